"""One camera's subscriptions, and what is said when nothing comes through them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception import topics
from coop_perception.input_health import IMAGE_TYPES, SILENT_S, why_silent

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
        self._node = node
        self._logger = node.get_logger().get_child(camera.replace("/", "_"))
        self._type = IMAGE_TYPES[compressed]
        topic = topics.of(camera, topics.IMAGE) + (topics.COMPRESSED if compressed else "")
        self._image = self._subscribe(CompressedImage if compressed else Image, topic, on_image)
        self._info = self._subscribe(CameraInfo, topics.of(camera, topics.CAMERA_INFO), on_camera_info)
        self._problem = ""
        self._logger.info(f"waiting for images on {self._image.topic_name}")

    def problem(self, silence_s: float) -> str:
        """Why no image has come for SILENT_S or longer, with the remedy; empty while they come. Logs what is new."""
        problem = self._why_silent() if silence_s > SILENT_S else ""
        if problem and problem != self._problem:
            self._logger.warning(problem)
        elif self._problem and not problem:
            self._logger.info(f"images arrive on {self._image.topic_name}")
        self._problem = problem
        return problem

    def destroy(self) -> None:
        self._node.destroy_subscription(self._image)
        self._node.destroy_subscription(self._info)

    def _why_silent(self) -> str:
        topic = self._image.topic_name
        publishers = self._node.get_publishers_info_by_topic(topic)
        own = dict(self._node.get_publisher_names_and_types_by_node(self._node.get_name(), self._node.get_namespace()))
        published = {
            name: types
            for name, types in self._node.get_topic_names_and_types()
            if set(types) & set(IMAGE_TYPES) and name not in own and self._node.count_publishers(name)
        }
        return why_silent(topic, self._type, self._image.qos_profile, publishers, published)

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> Subscription:
        return self._node.create_subscription(
            kind,
            topic,
            callback,
            copy.copy(qos_profile_sensor_data),  # rclpy writes a topic's overrides into the profile that it is given
            # rclpy's own warnings name neither the publisher nor the remedy.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )
