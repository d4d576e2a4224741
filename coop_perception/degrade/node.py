"""The degrade node: a camera's clean images in, the same images under an adverse condition out."""

from __future__ import annotations

import copy
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception import topics
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.scene import depth_of, intrinsics_of
from coop_perception.degrade.parameters import DYNAMIC, PARAMETERS, Settings
from coop_perception.degrade.stamp_pairing import StampPairing
from coop_perception.images import ImageError, decode, fill_compressed, fill_image
from coop_perception.ros.bounds import check_frame_id, check_info
from coop_perception.ros.camera_topics import camera_topics
from coop_perception.ros.declaring import descriptor, ros_value
from coop_perception.ros.definition import refusal
from coop_perception.ros.frame_slots import FrameSlots
from coop_perception.shown import plain

REPORT_S = 10.0
MOST_NOTES = 20
"""Of what is assumed for a camera; who sends another camera_info each time fills no log."""
OUTPUT_QOS = QoSProfile(depth=5)


@dataclass(frozen=True, slots=True)
class Frame:
    """An image message as it waits for its turn, with the depth image that belongs to it."""

    message: Image | CompressedImage
    depth: Image | None


@dataclass(slots=True)
class Camera:
    """One camera's publishers, and what is known of it."""

    name: str
    index: int
    image: Publisher
    info: Publisher
    reference: Publisher
    newest_info: CameraInfo | None = None
    pairing: StampPairing[Image | CompressedImage, Image] = field(default_factory=StampPairing)
    counts: Counter[str] = field(default_factory=Counter)
    """`received`, `published`, and by reason what was dropped."""
    reported: int = 0
    """Drops that are in the log already."""
    assumed: set[str] = field(default_factory=set)
    """What the log already says about what stands in for what is not known."""


class DegradationNode(Node):  # type: ignore[misc]
    """Reads `<camera>/clean/...`; writes the adverse image and its camera_info where the camera would, in
    `<camera>/...`, and the clean image as `<camera>/reference/image`.

    Images wait in one slot per camera, as in the perception node: a frame that waits when a newer one arrives is
    dropped and counted. The randomness of a frame depends on seed and stamp alone, so a replay gives the same images,
    whatever was dropped.

    Raises:
        InvalidParameterTypeException, InvalidParameterValueException: started with parameters that are wrong or do not
            fit together; the message names them.
    """

    def __init__(self) -> None:
        super().__init__("degrade")
        for definition in PARAMETERS:
            described = descriptor(definition)
            described.read_only = not definition.dynamic
            self.declare_parameter(definition.name, ros_value(definition), described)
            if reason := refusal(definition, self._value(definition.name)):
                raise InvalidParameterValueException(definition.name, self._value(definition.name), reason)
        try:
            self._settings = Settings(**{name: self._value(name) for name in DYNAMIC})
        except ValueError as error:
            raise InvalidParameterValueException("level", self._value("level"), str(error)) from error
        self.add_on_set_parameters_callback(self._change_settings)
        names = self._value("cameras")
        compressed = self._value("image_transport") == "compressed"
        kind, suffix = (CompressedImage, topics.COMPRESSED) if compressed else (Image, "")
        self._depth_images = bool(self._value("depth_image"))
        self._cameras = {name: self._camera(name, index, kind, suffix) for index, name in enumerate(names)}
        self._slots: FrameSlots[Frame] = FrameSlots(names)
        self._worker = threading.Thread(target=self._work, name="degrade", daemon=True)
        self._worker.start()
        self.create_timer(REPORT_S, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        for camera in self._cameras.values():
            image, info = (topics.of(camera.name, topic) for topic in (topics.CLEAN_IMAGE, topics.CLEAN_CAMERA_INFO))
            image_topic, info_topic = camera_topics(self, image, info, compressed)
            self._subscribe(kind, image_topic, partial(self._on_image, camera))
            self._subscribe(CameraInfo, info_topic, partial(self._on_info, camera))
            if self._depth_images:
                self._subscribe(Image, topics.of(camera.name, topics.DEPTH), partial(self._on_depth, camera))
        self._say_settings()

    def destroy_node(self) -> None:
        self._slots.close()
        self._worker.join()
        super().destroy_node()

    def _camera(self, name: str, index: int, kind: type, suffix: str) -> Camera:
        def publisher(kind: type, topic: str) -> Publisher:
            qos = copy.copy(OUTPUT_QOS)  # rclpy writes a topic's overrides into the profile that it is given
            overrides = QoSOverridingOptions.with_default_policies()
            return self.create_publisher(kind, topics.of(name, topic), qos, qos_overriding_options=overrides)

        return Camera(
            name,
            index,
            image=publisher(kind, topics.IMAGE + suffix),
            info=publisher(CameraInfo, topics.CAMERA_INFO),
            reference=publisher(Image, topics.REFERENCE_IMAGE),
        )

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        qos, overrides = copy.copy(qos_profile_sensor_data), QoSOverridingOptions.with_default_policies()
        self.create_subscription(kind, topic, callback, qos, qos_overriding_options=overrides)
        self.get_logger().info(f"reading {self.resolve_topic_name(topic)}")

    def _on_image(self, camera: Camera, message: Image | CompressedImage) -> None:
        camera.counts["received"] += 1
        if self._depth_images and self._settings.needs_depth:
            self._put(camera, camera.pairing.image(_stamp(message), message))
        else:
            self._put(camera, [*camera.pairing.flush(), (message, None)])

    def _on_depth(self, camera: Camera, message: Image) -> None:
        self._put(camera, camera.pairing.depth(_stamp(message), message))

    def _on_info(self, camera: Camera, message: CameraInfo) -> None:
        check_info(message)
        camera.newest_info = message
        camera.info.publish(message)

    def _put(self, camera: Camera, ready: Sequence[tuple[Image | CompressedImage, Image | None]]) -> None:
        for message, depth in ready:
            if self._slots.put(camera.name, Frame(message, depth)) is not None:
                camera.counts["superseded"] += 1

    def _work(self) -> None:
        """The worker thread."""
        while (frames := self._slots.take()) and self.context.ok():
            for name, frame in frames.items():
                self._process(self._cameras[name], frame)

    def _process(self, camera: Camera, frame: Frame) -> None:
        watched = camera.image.get_subscription_count(), camera.reference.get_subscription_count()
        if not any(watched):
            camera.counts["unwatched"] += 1
            return
        try:
            check_frame_id(frame.message)
            clean = decode(frame.message)
            adverse = self._adverse(camera, frame, clean)
            # The reference first: whoever has the adverse image can rely on it.
            camera.reference.publish(self._reference(frame.message, clean))
            camera.image.publish(adverse)
            camera.counts["published"] += 1
        except ImageError as error:
            self._drop(camera, "malformed", str(error))
        except Exception as error:  # whatever it was, the next frames deserve their chance
            self._drop(camera, "failed", f"{type(error).__name__}: {error}")

    def _adverse(self, camera: Camera, frame: Frame, clean: NDArray[np.uint8]) -> Image | CompressedImage:
        settings = self._settings
        if settings.level == 0:
            return frame.message
        height, width = clean.shape[:2]
        depth = intrinsics = None
        if settings.needs_depth:
            intrinsics, assumed_intrinsics = intrinsics_of(camera.newest_info, width, height)
            depth, assumed_depth = depth_of(frame.depth, intrinsics, settings.camera_height)
            self._say_assumed(camera, assumed_intrinsics, assumed_depth)
        adverse = degrade(
            clean,
            settings.condition,
            settings.level,
            seed=settings.seed,
            frame=abs(_stamp(frame.message)) + camera.index,  # cameras that are triggered together: noise of their own
            depth=depth,
            intrinsics=intrinsics,
        )
        header = frame.message.header
        if isinstance(frame.message, CompressedImage):
            compressed = CompressedImage(header=header)
            fill_compressed(compressed, adverse, "jpeg")
            return compressed
        image = Image(header=header)
        fill_image(image, adverse, "rgb8")
        return image

    @staticmethod
    def _reference(message: Image | CompressedImage, clean: NDArray[np.uint8]) -> Image:
        if isinstance(message, CompressedImage):
            image = Image(header=message.header)
            fill_image(image, clean, "rgb8")
            return image
        return message

    def _say_assumed(self, camera: Camera, *notes: str | None) -> None:
        for note in notes:
            if note is not None and note not in camera.assumed and len(camera.assumed) < MOST_NOTES:
                camera.assumed.add(note)
                self.get_logger().warning(f"camera {camera.name}: {plain(note)}")

    def _drop(self, camera: Camera, reason: str, why: str) -> None:
        camera.counts[reason] += 1
        if self.context.ok():
            # A logger of its own: throttling one camera's warnings shall not hide another's.
            logger = self.get_logger().get_child(camera.name.replace("/", "_"))
            logger.warning(f"frame {reason}: {plain(why)}", throttle_duration_sec=REPORT_S)

    def _report(self) -> None:
        for camera in self._cameras.values():
            dropped = sum(count for what, count in camera.counts.items() if what not in ("received", "published"))
            if dropped > camera.reported:
                camera.reported = dropped
                counts = ", ".join(f"{count} {what}" for what, count in camera.counts.items())
                self.get_logger().info(f"camera {camera.name}: {counts}")

    def _change_settings(self, changed: list[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in changed if parameter.name in DYNAMIC}
        try:
            self._settings = replace(self._settings, **values)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if values:
            self._say_settings()
        return SetParametersResult(successful=True)

    def _say_settings(self) -> None:
        settings = self._settings
        if settings.level == 0:
            self.get_logger().info("level 0: images pass unchanged")
            return
        condition = CONDITIONS[settings.condition]
        value = condition.levels[settings.level - 1]
        self.get_logger().info(
            f"{settings.condition}, level {settings.level} of {len(condition.levels)}: {condition.parameter} {value:g}"
        )

    def _value(self, name: str) -> Any:
        return self.get_parameter_or(name).value  # None for an empty list, which has no type


def _stamp(message: Image | CompressedImage) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)
