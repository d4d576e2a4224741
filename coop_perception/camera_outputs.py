"""Publishers of one camera's results: which of them anybody wants, and a frame's results as messages."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from coop_perception import topics
from coop_perception.bundle import Bundle
from coop_perception.images import fill_compressed, fill_image
from coop_perception.pipeline import Result
from coop_perception.visualization import overlay
from coop_perception_msgs.msg import ImageCondition

# Reliable, so that rviz and recorders connect whatever they ask for; shallow, for a late frame helps nobody.
OUTPUT_QOS = QoSProfile(depth=5)
JPEG_QUALITY = 90


class CameraOutputs:
    """One camera's publishers, on the topics that `coop_perception.topics` names.

    Args:
        node: that publishes.
        camera: its name, the topics' prefix.
        bundle: for classes and conditions.
        overlay_opacity: share of the class colours in the overlay, 0..1.
    """

    def __init__(self, node: LifecycleNode, camera: str, bundle: Bundle, overlay_opacity: float) -> None:
        self._node, self._bundle, self._opacity = node, bundle, overlay_opacity

        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(
                kind,
                topics.of(camera, topic),
                copy.copy(OUTPUT_QOS),  # rclpy writes a topic's overrides into the profile that it is given
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

        self._images: Mapping[str, tuple[Publisher, Literal["rgb8", "mono8"]]] = {
            "mask_raw": (publisher(Image, topics.MASK_RAW), "mono8"),
            "mask": (publisher(Image, topics.MASK), "mono8"),
            "confidence": (publisher(Image, topics.CONFIDENCE), "mono8"),
            "restored": (publisher(Image, topics.RESTORED), "rgb8"),
        }
        self._overlay = publisher(Image, topics.OVERLAY)
        self._compressed = publisher(CompressedImage, topics.RESTORED + topics.COMPRESSED)
        self._camera_info = publisher(CameraInfo, topics.OUT_CAMERA_INFO)
        # A bundle that knows no condition but clear has nothing to say on this topic.
        self._condition = publisher(ImageCondition, topics.CONDITION) if len(bundle.conditions) > 1 else None

    def wanted(self) -> set[str]:
        """The pipeline outputs that a subscriber waits for, directly or through the overlay or a compressed topic, and
        `camera_info` where one waits for that."""
        names = {name for name, (publisher, _) in self._images.items() if publisher.get_subscription_count()}
        if self._overlay.get_subscription_count():
            names.add("mask")
        if self._compressed.get_subscription_count():
            names.add("restored")
        if self._condition is not None and self._condition.get_subscription_count():
            names.add("condition")
        if self._camera_info.get_subscription_count():
            names.add("camera_info")
        return names

    def publish(self, header: Header, frame: NDArray[np.uint8], result: Result, info: CameraInfo | None) -> None:
        """Publish what is subscribed to, every message with the frame's own header."""
        for name, (publisher, encoding) in self._images.items():
            array = getattr(result, name)
            if array is not None and publisher.get_subscription_count():
                self._publish_image(publisher, header, array, encoding)
        if result.mask is not None and self._overlay.get_subscription_count():
            drawn = overlay(frame, result.mask, self._bundle.classes, self._opacity)
            self._publish_image(self._overlay, header, drawn, "rgb8")
        if result.restored is not None and self._compressed.get_subscription_count():
            compressed = CompressedImage(header=header)
            fill_compressed(compressed, result.restored, "jpeg", JPEG_QUALITY)
            self._compressed.publish(compressed)
        if result.condition is not None and self._condition is not None:
            self._condition.publish(
                ImageCondition(
                    header=header,
                    conditions=list(self._bundle.conditions),
                    probabilities=result.condition.tolist(),
                    most_likely=self._bundle.conditions[int(result.condition.argmax())],
                    strength=float(result.strength or 0.0),
                )
            )
        if info is not None:
            info.header = header
            self._camera_info.publish(info)

    def destroy(self) -> None:
        for publisher in self._all():
            self._node.destroy_publisher(publisher)

    def _all(self) -> Sequence[Publisher]:
        rest = (self._overlay, self._compressed, self._camera_info, self._condition)
        return [p for p in (*(publisher for publisher, _ in self._images.values()), *rest) if p is not None]

    @staticmethod
    def _publish_image(
        publisher: Publisher, header: Header, array: NDArray[np.uint8], encoding: Literal["rgb8", "mono8"]
    ) -> None:
        message = Image(header=header)
        fill_image(message, array, encoding)
        publisher.publish(message)
