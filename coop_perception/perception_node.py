"""The lifecycle node: camera images in, masks and restored images out."""

from __future__ import annotations

import argparse
import copy
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import (
    InvalidParameterTypeException,
    InvalidParameterValueException,
    InvalidTopicNameException,
)
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.utilities import remove_ros_args
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception import status_messages, topics
from coop_perception.bundle import BundleError, load_bundle
from coop_perception.camera_outputs import CameraOutputs
from coop_perception.camera_statistics import CameraStatistics
from coop_perception.engines import EngineError
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.frame_slots import FrameSlots
from coop_perception.images import ImageError, decode
from coop_perception.parameters import PARAMETERS, Definition, parameters_yaml
from coop_perception.pipeline import OUTPUTS, Pipeline, Result
from coop_perception.resources import default_bundle
from coop_perception_msgs.msg import DropCount, PipelineStatus

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
REPEAT_LOG_S = 5.0
"""A camera that sends nothing but broken frames logs one line in this time."""


class ConfigurationError(ValueError):
    """Parameters that the node cannot work with; the message names the parameter."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image message as it waits for its turn, and when it was received (monotonic seconds)."""

    message: Image | CompressedImage
    received: float


Callback = TypeVar("Callback", bound=Callable[..., TransitionCallbackReturn])


def logged(transition: Callback) -> Callback:
    """rclpy swallows what a lifecycle callback raises: log it, and let the transition fail."""

    @wraps(transition)
    def wrapper(node: PerceptionNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except (ConfigurationError, BundleError, EngineError) as error:
            node.get_logger().error(f"{transition.__name__}: {error}")
        except Exception as error:
            node.get_logger().error(f"{transition.__name__}: {type(error).__name__}: {error}")
        node.undo(transition.__name__)
        return TransitionCallbackReturn.FAILURE

    return wrapper  # type: ignore[return-value]


class PerceptionNode(LifecycleNode):  # type: ignore[misc]
    """configure loads the bundle; activate serves the cameras; deactivate stops; cleanup frees everything.

    Images wait in one slot per camera; one worker thread runs the networks on whatever waits, so that a frame is never
    queued behind an older one, and a frame that is superseded is never even decoded.
    """

    def __init__(self) -> None:
        super().__init__(topics.NODE)
        self._service_change_state.callback = partial(_refusing, self._service_change_state.callback)
        for definition in PARAMETERS:
            self.declare_parameter(definition.name, _ros_value(definition), _descriptor(definition))
        self.add_on_set_parameters_callback(self._refuse_while_configured)
        self._pipeline: Pipeline | None = None
        self._outputs: dict[str, CameraOutputs] = {}
        self._latched: list[Publisher] = []
        self._stop_serving: list[Callable[[], object]] = []
        self._statistics: dict[str, CameraStatistics] = {}
        self._camera_info: dict[str, CameraInfo] = {}
        self._slots: FrameSlots[Frame] = FrameSlots(())

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._check_choices()
        cameras = self._cameras()
        directory = Path(self._value("bundle") or default_bundle())
        self.get_logger().info(f"loading bundle {directory}")
        begun = time.perf_counter()
        bundle = load_bundle(directory)
        pipeline = Pipeline(bundle, partial(OnnxRuntimeEngine, threads=self._value("threads")))
        pipeline.warm_up()
        self._pipeline = pipeline
        for camera in cameras:
            self._outputs[camera] = CameraOutputs(self, camera, bundle, self._value("overlay_opacity"))
        self._latch(topics.MODEL_INFO, status_messages.model_info(bundle, pipeline.engines, self._now()))
        label_info = status_messages.label_info(bundle, self._now())
        for camera in cameras if label_info is not None else ():
            self._latch(topics.of(camera, topics.LABEL_INFO), label_info)
        engine = pipeline.engines["segmenter"]
        self.get_logger().info(
            f"bundle {bundle.name}: {len(bundle.classes)} classes at {bundle.width}x{bundle.height}, {engine.backend} "
            f"{engine.precision} on {engine.device}, ready in {time.perf_counter() - begun:.1f} s"
        )
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._statistics = {camera: CameraStatistics() for camera in self._outputs}
        self._camera_info = {}
        self._slots = FrameSlots(list(self._outputs))
        worker = threading.Thread(target=self._work, args=(self._slots,), name="networks", daemon=True)
        self._stop_serving += [self._slots.close, worker.join]
        worker.start()
        compressed = self._value("image_transport") == "compressed"
        for camera in self._outputs:
            topic = topics.of(camera, topics.IMAGE) + (topics.COMPRESSED if compressed else "")
            self._subscribe(CompressedImage if compressed else Image, topic, partial(self._on_image, camera))
            self._subscribe(CameraInfo, topics.of(camera, topics.CAMERA_INFO), partial(self._on_camera_info, camera))
            self.get_logger().info(f"camera {camera}: waiting for images on {self.resolve_topic_name(topic)}")
        status = self.create_publisher(PipelineStatus, topics.STATUS, 10)
        diagnostics = self.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
        report = partial(self._report, status, diagnostics, time.monotonic())
        # Steady: without /clock, or while it stands still, the node's state is what somebody wants to know.
        timer = self.create_timer(self._value("status_period"), report, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._stop_serving += [
            partial(self.destroy_timer, timer),
            partial(self.destroy_publisher, status),
            partial(self.destroy_publisher, diagnostics),
        ]
        return super().on_activate(state)

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._stop()
        super().destroy_node()

    def undo(self, transition: str) -> None:
        """Leave nothing behind of a transition that failed half-way."""
        self._stop()
        if transition == "on_configure":
            self._free()

    def _stop(self) -> None:
        """Stop serving; the engines and output topics stay. Frames that wait are let go."""
        for stop in self._stop_serving:
            stop()
        self._stop_serving = []

    def _free(self) -> None:
        for outputs in self._outputs.values():
            outputs.destroy()
        for publisher in self._latched:
            self.destroy_publisher(publisher)
        self._outputs, self._latched, self._pipeline = {}, [], None

    def _on_image(self, camera: str, message: Image | CompressedImage) -> None:
        self._statistics[camera].received()
        if self._slots.put(camera, Frame(message, time.monotonic())) is not None:
            self._statistics[camera].dropped(DropCount.SUPERSEDED)

    def _on_camera_info(self, camera: str, message: CameraInfo) -> None:
        self._camera_info[camera] = message

    def _work(self, slots: FrameSlots[Frame]) -> None:
        """The worker thread: whatever waits is one batch."""
        while (frames := slots.take()) and self.context.ok():
            self._process(frames)

    def _process(self, frames: dict[str, Frame]) -> None:
        assert self._pipeline is not None
        images: dict[str, NDArray[np.uint8]] = {}
        wanted: set[str] = set()
        for camera, frame in frames.items():
            asked_for = self._outputs[camera].wanted()
            if not asked_for:
                self._statistics[camera].dropped(DropCount.UNWATCHED)
                continue
            try:
                images[camera] = decode(frame.message)
                wanted |= asked_for
            except ImageError as error:
                self._drop(camera, DropCount.MALFORMED, str(error))
            except Exception as error:
                self._drop(camera, DropCount.FAILED, f"{type(error).__name__}: {error}")
        try:
            # camera_info alone needs no network.
            compute = wanted & set(OUTPUTS) and images
            results = self._pipeline.run(list(images.values()), wanted) if compute else [Result() for _ in images]
        except Exception as error:  # whatever it was, the next frames deserve their chance
            for camera in images:
                self._drop(camera, DropCount.FAILED, f"{type(error).__name__}: {error}")
            return
        for (camera, image), result in zip(images.items(), results, strict=True):
            try:
                header = frames[camera].message.header
                self._outputs[camera].publish(header, image, result, self._camera_info.get(camera))
                latency_ms = (time.monotonic() - frames[camera].received) * 1e3
                self._statistics[camera].processed(latency_ms, result.stages_ms)
            except Exception as error:
                self._drop(camera, DropCount.FAILED, f"{type(error).__name__}: {error}")

    def _drop(self, camera: str, reason: str, why: str) -> None:
        self._statistics[camera].dropped(reason)
        if self.context.ok():
            # A logger of its own: throttling one camera's warnings shall not hide another's.
            logger = self.get_logger().get_child(camera.replace("/", "_"))
            logger.warning(f"frame {reason}: {why}", throttle_duration_sec=REPEAT_LOG_S)

    def _report(self, status: Publisher, diagnostics: Publisher, since: float) -> None:
        cameras = {camera: statistics.summary() for camera, statistics in self._statistics.items()}
        status.publish(status_messages.status(cameras, time.monotonic() - since, self._now()))
        diagnostics.publish(status_messages.diagnostics(self.get_fully_qualified_name(), cameras, self._now()))

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        subscription = self.create_subscription(
            kind,
            topic,
            callback,
            copy.copy(qos_profile_sensor_data),  # rclpy writes a topic's overrides into the profile that it is given
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # First to go when serving stops, so that nothing fills the slots any more.
        self._stop_serving.insert(0, partial(self.destroy_subscription, subscription))

    def _latch(self, topic: str, message: Any) -> None:
        publisher = self.create_publisher(type(message), topic, LATCHED)
        publisher.publish(message)
        self._latched.append(publisher)

    def _cameras(self) -> Sequence[str]:
        cameras = self._value("cameras") or []
        if not cameras or len(set(cameras)) != len(cameras):
            raise ConfigurationError(f"parameter cameras is {cameras}, expected distinct names such as ['front']")
        for camera in cameras:
            try:
                validate_topic_name(camera)
            except InvalidTopicNameException as error:
                raise ConfigurationError(f"parameter cameras: {camera!r} is no topic name: {error}") from error
            if camera.startswith(("/", "~")):
                raise ConfigurationError(
                    f"parameter cameras: {camera!r} is not relative; write {camera.strip('/~')!r}, and set a namespace"
                )
        return list(cameras)

    def _refuse_while_configured(self, changed: list[Parameter]) -> SetParametersResult:
        names = {definition.name for definition in PARAMETERS}
        refused = [parameter.name for parameter in changed if parameter.name in names]
        if refused and self._pipeline is not None:
            reason = f"{', '.join(refused)}: read when the node is configured; clean it up first"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _check_choices(self) -> None:
        for definition in PARAMETERS:
            value = self._value(definition.name)
            if definition.choices and value not in definition.choices:
                raise ConfigurationError(
                    f"parameter {definition.name} is {value!r}, expected one of {', '.join(definition.choices)}"
                )

    def _value(self, name: str) -> Any:
        return self.get_parameter_or(name).value  # None for an empty list, which has no type

    def _now(self) -> Time:
        return self.get_clock().now().to_msg()


def _refusing(change_state: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    """rclpy lets a transition that the state does not allow end the whole process (its issue 1209): refuse it."""
    try:
        return change_state(request, response)
    except RCLError:
        response.success = False
        return response


def _ros_value(definition: Definition) -> Any:
    return list(definition.default) if isinstance(definition.default, tuple) else definition.default


def _descriptor(definition: Definition) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=definition.description)
    if definition.choices:
        descriptor.additional_constraints = "one of: " + ", ".join(definition.choices)
    if definition.low is not None and definition.high is not None:
        if isinstance(definition.default, int):
            descriptor.integer_range = [IntegerRange(from_value=int(definition.low), to_value=int(definition.high))]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=definition.low, to_value=definition.high)]
    return descriptor


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of the executable: spin until interrupted."""
    args = sys.argv if args is None else list(args)
    parser = argparse.ArgumentParser(
        prog="perception_node",
        description=f"The {topics.NODE} lifecycle node. It starts unconfigured; pipeline.launch.py brings it up.",
        epilog="parameters (--ros-args -p NAME:=VALUE):\n\n" + parameters_yaml(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(remove_ros_args(args)[1:])
    try:
        rclpy.init(args=args)
        node = PerceptionNode()
    except (RCLError, InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f"perception_node: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:
        if rclpy.ok():  # else a callback was publishing when the signal came
            raise
    finally:
        # Launch and the terminal may both signal: the second one shall not cut the clean end short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
