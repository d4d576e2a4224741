"""One camera's subscriptions, and what is said when nothing comes through them."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception import topics
from coop_perception.node.input_health import IMAGE_TYPES, INFO_TYPE, SILENT_S, Missing, why_silent
from coop_perception.ros.camera_topics import camera_topics
from coop_perception.shown import plain

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # ROS 2 Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)


class CameraInput:
    """Subscribes to a camera's images, raw or compressed, and its camera_info.

    Args:
        node: that subscribes.
        camera: its name, the topics' prefix.
        compressed: which of the two image topics.
        on_image: gets every image message.
        on_camera_info: gets every camera_info.
    """

    def __init__(
        self,
        node: Node,
        camera: str,
        compressed: bool,
        on_image: Callable[[Image | CompressedImage], None],
        on_camera_info: Callable[[CameraInfo], None],
    ) -> None:
        image, camera_info = camera_topics(
            node, topics.of(camera, topics.IMAGE), topics.of(camera, topics.CAMERA_INFO), compressed
        )
        kind = CompressedImage if compressed else Image
        self._image = _Input(node, camera, kind, IMAGE_TYPES[compressed], image, on_image)
        self._info = _Input(node, camera, CameraInfo, INFO_TYPE, camera_info, on_camera_info)
        self._without_info: float | None = None
        """Since when images have been seen to come without any camera_info (monotonic seconds)."""
        self._image.logger.info(f"waiting for images on {self._image.topic}")

    def missing(self, silence_s: float) -> Missing:
        """What does not come, and why: no image for longer than SILENT_S; or, while they have come for that long, no
        camera_info since activation. Logs what is new. To be asked again and again.

        Args:
            silence_s: since the last image, or since activation.
        """
        silent = silence_s > SILENT_S
        no_image = self._image.report(self._image.why_silent() if silent else "")
        if self._info.arrived:
            self._info.report("")
        if self._info.arrived or silent or not self._image.arrived:
            self._without_info = None
            return Missing(no_image)
        now = time.monotonic()
        self._without_info = self._without_info or now
        if now - self._without_info < SILENT_S:
            return Missing()
        no_info = self._info.report(f"no camera_info: {self._info.why_silent()}")
        return Missing(camera_info=no_info, info_published=self._info.published())

    def destroy(self) -> None:
        self._image.destroy()
        self._info.destroy()


class _Input:
    """One subscription, whether anything has come through it, and if not why."""

    def __init__(
        self, node: Node, camera: str, kind: type, type_name: str, topic: str, callback: Callable[[Any], None]
    ) -> None:
        self.logger = node.get_logger().get_child(camera.replace("/", "_"))
        self._node, self._type_name = node, type_name
        self._problem = ""
        self.arrived = False
        self._subscription = node.create_subscription(
            kind,
            topic,
            partial(self._on_message, callback),
            copy.copy(qos_profile_sensor_data),  # rclpy writes a topic's overrides into the profile that it is given
            # rclpy's own warnings name neither the publisher nor the remedy.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )

    @property
    def topic(self) -> str:
        """Fully resolved."""
        return str(self._subscription.topic_name)

    def published(self) -> bool:
        """Whether anybody does, in whatever way."""
        return bool(self._node.get_publishers_info_by_topic(self.topic))

    def report(self, problem: str) -> str:
        """Log a problem that is new, and that one is over; returns it."""
        if problem and problem != self._problem:
            self.logger.warning(plain(problem))
        elif self._problem and not problem:
            self.logger.info(
                f"{'camera_info arrives' if self._type_name == INFO_TYPE else 'images arrive'} on {self.topic}"
            )
        self._problem = problem
        return problem

    def why_silent(self) -> str:
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        own = dict(self._node.get_publisher_names_and_types_by_node(self._node.get_name(), self._node.get_namespace()))
        published = {
            name: types
            for name, types in self._node.get_topic_names_and_types()
            if set(types) & {*IMAGE_TYPES, INFO_TYPE} and name not in own and self._node.count_publishers(name)
        }
        return why_silent(self.topic, self._type_name, self._subscription.qos_profile, publishers, published)

    def destroy(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _on_message(self, callback: Callable[[Any], None], message: Any) -> None:
        self.arrived = True
        callback(message)
