"""Publishers of one camera's results: which of them anybody wants, and a frame's results as messages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.images import fill_compressed, fill_image
from coop_perception.model.conditions import Conditions
from coop_perception.model.pipeline import Result
from coop_perception.visualization import overlay
from coop_perception_msgs.msg import ImageCondition

# Reliable, so that rviz and recorders connect whatever they ask for; shallow, for a late frame helps nobody.
OUTPUT_QOS = QoSProfile(depth=5)


class _ImagePublisher:
    """Fills the same message for every frame: rclpy has serialised it when `publish` returns. For one thread."""

    def __init__(self, publisher: Publisher, encoding: Literal["rgb8", "mono8"]) -> None:
        self.publisher, self._encoding, self._message = publisher, encoding, Image()

    def publish(self, header: Header, array: NDArray[np.uint8]) -> None:
        self._message.header = header
        fill_image(self._message, array, self._encoding)
        self.publisher.publish(self._message)


class CameraOutputs:
    """One camera's publishers, on the topics that `coop_perception.topics` names.

    Args:
        node: that publishes.
        camera: its name, the topics' prefix.
    """

    def __init__(self, node: Node, camera: str) -> None:
        self._node = node

        def publisher(kind: type, topic: str) -> Publisher:
            return node.create_publisher(
                kind,
                topics.of(camera, topic),
                copy.copy(OUTPUT_QOS),  # rclpy writes a topic's overrides into the profile that it is given
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )

        self._images = {
            "mask_raw": _ImagePublisher(publisher(Image, topics.MASK_RAW), "mono8"),
            "mask": _ImagePublisher(publisher(Image, topics.MASK), "mono8"),
            "confidence": _ImagePublisher(publisher(Image, topics.CONFIDENCE), "mono8"),
            "restored": _ImagePublisher(publisher(Image, topics.RESTORED), "rgb8"),
        }
        self._overlay = _ImagePublisher(publisher(Image, topics.OVERLAY), "rgb8")
        self._compressed = publisher(CompressedImage, topics.RESTORED + topics.COMPRESSED)
        self._camera_info = publisher(CameraInfo, topics.OUT_CAMERA_INFO)
        self._condition = publisher(ImageCondition, topics.CONDITION)

    def wanted(self) -> set[str]:
        """The pipeline outputs that a subscriber waits for, directly or through the overlay or a compressed topic, and
        `camera_info` where one waits for that."""
        names = {name for name, image in self._images.items() if image.publisher.get_subscription_count()}
        if self._overlay.publisher.get_subscription_count():
            names.add("mask")
        if self._compressed.get_subscription_count():
            names.add("restored")
        if self._condition.get_subscription_count():
            names.add("condition")
        if self._camera_info.get_subscription_count():
            names.add("camera_info")
        return names

    def publish(
        self,
        header: Header,
        frame: NDArray[np.uint8],
        result: Result,
        filtered: Conditions | None,
        bundle: Bundle,
        info: CameraInfo | None,
        parameters: Mapping[str, Any],
    ) -> None:
        """Publish what is subscribed to, every message with the frame's own header.

        Args:
            header: the frame's.
            frame: uint8 [H,W,3] RGB.
            result: what the bundle's networks say of it.
            filtered: the conditions over time, wherever the result has the frame's own.
            bundle: for its classes and conditions.
            info: the camera's, for this frame.
            parameters: the node's, of which overlay_opacity and jpeg_quality are used.
        """
        for name, image in self._images.items():
            array = getattr(result, name)
            if array is not None and image.publisher.get_subscription_count():
                image.publish(header, array)
        if result.mask is not None and self._overlay.publisher.get_subscription_count():
            drawn = overlay(frame, result.mask, bundle.classes, parameters["overlay_opacity"])
            self._overlay.publish(header, drawn)
        if result.restored is not None and self._compressed.get_subscription_count():
            compressed = CompressedImage(header=header)
            fill_compressed(compressed, result.restored, "jpeg", parameters["jpeg_quality"])
            self._compressed.publish(compressed)
        if result.condition is not None and filtered is not None and self._condition.get_subscription_count():
            self._condition.publish(
                ImageCondition(
                    header=header,
                    conditions=list(bundle.conditions),
                    presence=result.condition.presence.tolist(),
                    strength=result.condition.strength.tolist(),
                    presence_filtered=filtered.presence.tolist(),
                    strength_filtered=filtered.strength.tolist(),
                    familiarity=result.condition.familiarity,
                    familiarity_filtered=filtered.familiarity,
                    restoration_ran=result.used is not None,
                )
            )
        if info is not None and self._camera_info.get_subscription_count():
            info.header = header
            self._camera_info.publish(info)

    def destroy(self) -> None:
        images = [image.publisher for image in (*self._images.values(), self._overlay)]
        for publisher in (*images, self._compressed, self._camera_info, self._condition):
            self._node.destroy_publisher(publisher)
