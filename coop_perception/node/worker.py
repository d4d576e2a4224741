"""What becomes of a frame that arrived: it is decoded, goes through the networks, and what they say is published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from coop_perception.contracts import STAGES, Bundle
from coop_perception.encoded_images import Limits
from coop_perception.engines.cuda import GpuLostError
from coop_perception.images import EMPTY_BITS, ImageError, decode, leaves_high_bits_empty
from coop_perception.model.conditions import Conditions, present
from coop_perception.model.over_time import CameraConditions
from coop_perception.model.pipeline import Pipeline, Result, outputs_of
from coop_perception.node.infos import CameraInfos
from coop_perception.node.outputs import CameraOutputs
from coop_perception.node.settings import NodeParameters
from coop_perception.node.stage import Stage
from coop_perception.node.statistics import CameraStatistics
from coop_perception.node.transitions import end_without_gpu
from coop_perception.node.weather import BatchWeather, Shown
from coop_perception.ros.bounds import check_frame_id
from coop_perception.shown import plain
from coop_perception_msgs.msg import DropCount

T = TypeVar("T")

DECODE, PUBLISH = "decode", "publish"
"""What is timed besides the networks; see StageTime."""

NEARLY_BLACK_FRAMES = 30
REPEAT_LOG_S = 5.0
"""A camera whose frames cannot be used logs one line in this time."""

END_S = 0.1
"""A process that is to end waits no longer for a batch in work."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image message as it waits for its turn, and when it was received (monotonic seconds)."""

    message: Image | CompressedImage
    received: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """A frame that waits for the networks: uint8 [H,W,3] RGB, and the outputs that it is to be processed for."""

    frame: Frame
    image: NDArray[np.uint8]
    asked_for: set[str]
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Processed:
    """A frame that waits to be published: what the networks of this bundle say, asked with these parameters."""

    decoded: Decoded
    result: Result
    filtered: Conditions | None
    """Over time; None where nobody asked for what that takes."""
    bundle: Bundle
    parameters: Mapping[str, Any]


class Channel:
    """What belongs to one camera while it is served."""

    def __init__(self, outputs: CameraOutputs) -> None:
        self.outputs, self.statistics, self.infos = outputs, CameraStatistics(), CameraInfos()
        self.nearly_black = 0
        """So many frames in a row left their high bits empty."""


class _Dropped(Exception):  # noqa: N818 (no error: what becomes of a frame)
    """A frame that is not processed: a reason of DropCount's, and the cause in words."""

    def __init__(self, reason: str, why: str = "") -> None:
        super().__init__(why)
        self.reason = reason


class Worker:
    """Decodes, runs the networks and publishes, each in a thread of its own: while one frame is in the networks, the
    one before is published and the next one decoded, each camera's for itself: what one of them sends may take seconds.
    No frame is queued behind an older one: at each step the newest of a camera's wins, and whatever waits is one batch.

    Args:
        node: whose clock and log are used.
        channels: by camera.
        pipeline: gives what is in use, asked for each batch. Not the pipeline itself: rclpy's executor keeps entities
            that are destroyed for a while, and by their callbacks this worker, which must not keep networks alive.
        parameters: read once for each batch, all together.
    """

    def __init__(
        self, node: Node, channels: Mapping[str, Channel], pipeline: Callable[[], Pipeline], parameters: NodeParameters
    ) -> None:
        self._pipeline = pipeline
        self._node, self._channels, self._parameters = node, channels, parameters
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        # Loggers of their own: throttling one camera's warnings shall not hide another's.
        self._loggers = {camera: node.get_logger().get_child(camera.replace("/", "_")) for camera in channels}
        self._conditions: dict[str, CameraConditions] = {}
        self._estimated_by: Bundle | None = None
        """Another bundle's estimates are not averaged with this one's."""
        cameras = list(channels)
        self._publishing: Stage[Processed] = Stage("publishing", cameras, self._publish)
        self._networks: Stage[Decoded] = Stage(
            "networks", cameras, self._process, self._publishing, lambda: parameters.value("batch_window_ms") / 1e3
        )
        self._decoding: dict[str, Stage[Frame]] = {
            camera: Stage("decoding", [camera], self._decode, self._networks) for camera in cameras
        }

    def put(self, camera: str, message: Image | CompressedImage) -> None:
        """Leave a camera's newest frame."""
        self._channels[camera].statistics.received(self._age_s(message))
        self._hand_on(self._decoding[camera], {camera: Frame(message, time.monotonic())})

    def stop(self) -> None:
        """Finish what is in work (once ROS is shut down, wait for each thread no longer than END_S); let waiting frames
        go, but publish what the networks have said."""
        stages: list[Stage[Any]] = [*self._decoding.values(), self._networks, self._publishing]
        for stage in stages:
            stage.close(drain=stage is self._publishing)
            while not stage.join(END_S) and self._node.context.ok():
                pass

    def _hand_on(self, stage: Stage[T], frames: Mapping[str, T]) -> None:
        if not frames:
            return
        for camera in stage.put(frames):
            self._channels[camera].statistics.dropped(DropCount.SUPERSEDED)

    def _decode(self, frames: Mapping[str, Frame]) -> None:
        begun, parameters = time.perf_counter(), self._parameters.snapshot()
        stages = _stages(parameters)
        for camera, frame in frames.items():
            try:
                image, asked_for = self._admit(camera, frame, stages, parameters)
            except Exception as error:
                self._networks.skip(camera)
                self._drop(camera, error)
            else:
                decode_ms = (time.perf_counter() - begun) * 1e3
                self._hand_on(self._networks, {camera: Decoded(frame, image, asked_for, decode_ms)})

    def _process(self, frames: Mapping[str, Decoded]) -> None:
        if not self._node.context.ok():
            return
        pipeline, parameters = self._pipeline(), self._parameters.snapshot()
        if pipeline.bundle is not self._estimated_by:
            self._estimated_by = pipeline.bundle
            self._conditions = {camera: CameraConditions() for camera in self._channels}
        shown = {camera: _shown(frame) for camera, frame in frames.items()}
        weather = BatchWeather(self._conditions, shown, parameters)
        wanted = {output for frame in frames.values() for output in frame.asked_for} - {"camera_info"}
        images = {camera: frame.image for camera, frame in frames.items()}
        results = self._run(pipeline, images, wanted, parameters, weather)
        processed: dict[str, Processed] = {}
        for camera, result in results.items():
            if not shown[camera].to_restore:
                result.restored = None  # which was another camera's wish
            filtered = weather.over_time(camera, result.condition)
            processed[camera] = Processed(frames[camera], result, filtered, pipeline.bundle, parameters)
        self._hand_on(self._publishing, processed)

    def _publish(self, frames: Mapping[str, Processed]) -> None:
        begun = time.perf_counter()
        for camera, it in frames.items():
            channel, frame = self._channels[camera], it.decoded.frame
            header = frame.message.header
            try:
                info = channel.infos.of(header.stamp)
                channel.outputs.publish(
                    header, it.decoded.image, it.result, it.filtered, it.bundle, info, it.parameters
                )
                publish_ms = (time.perf_counter() - begun) * 1e3
                latency_ms = (time.monotonic() - frame.received) * 1e3
                stages_ms = {DECODE: it.decoded.decode_ms, **it.result.stages_ms, PUBLISH: publish_ms}
                clear = it.result.restored is not None and it.result.used is None
                shows = None if it.filtered is None else present(it.bundle.conditions, it.filtered)
                channel.statistics.processed(latency_ms, stages_ms, clear, shows)
            except Exception as error:
                self._drop(camera, error)

    def _admit(
        self, camera: str, frame: Frame, stages: Sequence[str], parameters: Mapping[str, Any]
    ) -> tuple[NDArray[np.uint8], set[str]]:
        """A frame's pixels and the outputs that it is to be processed for.

        Raises:
            _Dropped: for none.
        """
        asked_for = self._channels[camera].outputs.wanted() & (outputs_of(stages) | {"camera_info"})
        if not asked_for:
            raise _Dropped(DropCount.UNWATCHED)
        limit_s, age_s = parameters["max_age"], self._age_s(frame.message)
        if limit_s and age_s > limit_s:
            raise _Dropped(
                DropCount.TOO_OLD,
                f"its stamp is {age_s:.3f} s behind the node's clock, max_age is {limit_s:g} s; check the machines' "
                "clocks, and use_sim_time where a recording is played",
            )
        try:
            limits = Limits(tuple(parameters["image_formats"]), parameters["max_image_pixels"])
            check_frame_id(frame.message)
            image = decode(frame.message, limits)
        except ImageError as error:
            raise _Dropped(DropCount.MALFORMED, str(error)) from error
        self._tell_of_empty_bits(camera, frame, image)
        return image, asked_for

    def _tell_of_empty_bits(self, camera: str, frame: Frame, image: NDArray[np.uint8]) -> None:
        channel = self._channels[camera]
        channel.nearly_black = channel.nearly_black + 1 if leaves_high_bits_empty(frame.message, image) else 0
        if channel.nearly_black == NEARLY_BLACK_FRAMES:
            self._loggers[camera].warning(f"{NEARLY_BLACK_FRAMES} images of 16 bits in a row stay {EMPTY_BITS}")

    def _run(
        self,
        pipeline: Pipeline,
        images: Mapping[str, NDArray[np.uint8]],
        wanted: set[str],
        parameters: Mapping[str, Any],
        weather: BatchWeather,
    ) -> dict[str, Result]:
        """Results by camera. Where a batch fails, each camera's frame gets its own chance."""
        if not wanted:  # camera_info alone needs no network
            return {camera: Result() for camera in images}
        try:
            height, decide = parameters["network_height"], weather.decide(list(images))
            results = pipeline.run(list(images.values()), wanted, _stages(parameters), height, decide)
            return dict(zip(images, results, strict=True))
        except Exception as error:  # whatever it was, the next frames deserve their chance
            if isinstance(error, GpuLostError) and self._parameters.value("exit_on_gpu_loss"):
                end_without_gpu(self._node, error)
                return {}
            if len(images) > 1:
                alone = [
                    self._run(pipeline, {each: image}, wanted, parameters, weather) for each, image in images.items()
                ]
                return {camera: result for results in alone for camera, result in results.items()}
            self._drop(next(iter(images)), error)
            return {}

    def _age_s(self, message: Image | CompressedImage) -> float:
        """Of a frame by its stamp; NaN without one. Negative where it comes from the future."""
        stamp = message.header.stamp
        if not (stamp.sec or stamp.nanosec):
            return float("nan")
        return float(self._node.get_clock().now().nanoseconds / 1e9 - (stamp.sec + stamp.nanosec / 1e9))

    def _drop(self, camera: str, error: Exception) -> None:
        dropped = (
            error if isinstance(error, _Dropped) else _Dropped(DropCount.FAILED, f"{type(error).__name__}: {error}")
        )
        self._channels[camera].statistics.dropped(dropped.reason)
        if str(dropped) and self._node.context.ok():
            self._loggers[camera].warning(
                f"frame {dropped.reason}: {plain(dropped)}",
                throttle_duration_sec=REPEAT_LOG_S,
                throttle_time_source_type=self._steady,
            )


def _shown(frame: Decoded) -> Shown:
    header, (height, width) = frame.frame.message.header, frame.image.shape[:2]
    stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
    return Shown(stamp_ns, (height, width, header.frame_id), "restored" in frame.asked_for)


def _stages(parameters: Mapping[str, Any]) -> list[str]:
    return [stage for stage in STAGES if stage == "segmenter" or parameters[stage]]
