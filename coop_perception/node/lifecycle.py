"""The lifecycle node: camera images in, masks and restored images out."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import rclpy.task
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.serialization import serialize_message

from coop_perception import topics
from coop_perception.engines import EngineError
from coop_perception.engines.cuda import GpuLostError
from coop_perception.engines.loading import EngineSettings
from coop_perception.model.bundle import BundleError
from coop_perception.model.loading import load_pipeline
from coop_perception.model.memory import give_back, returnable
from coop_perception.model.pipeline import Pipeline
from coop_perception.model.trial import too_late
from coop_perception.node import status_messages
from coop_perception.node.background import in_background
from coop_perception.node.bundle_roots import BundleRoots
from coop_perception.node.diagnostics import stages_in_words
from coop_perception.node.failure import FailureReport
from coop_perception.node.outputs import CameraOutputs
from coop_perception.node.serving import Serving
from coop_perception.node.settings import NodeParameters
from coop_perception.node.transitions import end_without_gpu, logged, refusing
from coop_perception.node.twins import Twins
from coop_perception.resources import default_bundle
from coop_perception.shown import plain
from coop_perception_msgs.srv import LoadBundle, SetStages

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MOST_CALLS = 200
"""Of load_bundle that wait to be looked at; DDS would drop others without an answer."""


class StoppedError(RuntimeError):
    """The process is to end."""


_or_back = logged(TransitionCallbackReturn.FAILURE, BundleError, EngineError, StoppedError)
_or_error = logged(TransitionCallbackReturn.ERROR)


class PerceptionNode(LifecycleNode):  # type: ignore[misc]
    """configure loads the bundle; activate serves the cameras; deactivate stops; cleanup frees everything.

    A transition that fails leaves nothing behind: configure and activate end in the state before, the others in
    unconfigured.
    """

    def __init__(self) -> None:
        super().__init__(topics.NODE)
        self._service_change_state.callback = partial(refusing, self._service_change_state.callback)
        self._settings = NodeParameters(self)  # _parameters is rclpy's own
        self._roots = BundleRoots(self._settings.value("bundle_roots"), self._settings.value("bundle"))
        self._asked: str | None = None
        self._late: Path | None = None  # what configure gave up, and is still being loaded
        self.failure = FailureReport(self)
        self._twins = Twins(self)
        self._configured = ExitStack()
        self._pipeline: Pipeline | None = None
        self._outputs: dict[str, CameraOutputs] = {}
        self._latched: dict[str, Publisher] = {}
        self._serving: Serving | None = None
        # Its callback awaits: in a group of its own, that it is not done keeps no other one waiting, nor a second call.
        group, many = ReentrantCallbackGroup(), QoSProfile(depth=MOST_CALLS)
        self.create_service(
            LoadBundle, topics.LOAD_BUNDLE, self._on_load_bundle, qos_profile=many, callback_group=group
        )
        self.create_service(SetStages, topics.SET_STAGES, self._on_set_stages)

    @_or_back
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        with ExitStack() as stack:  # frees what there is if the rest fails
            stack.callback(self._forget)
            self._pipeline = self._load_in_time(self._settings.value("bundle"))
            for camera in self._settings.value("cameras"):
                self._outputs[camera] = CameraOutputs(self, camera)
                stack.callback(self._outputs[camera].destroy)
            self._publish(self._described(self._pipeline), stack)
            self._settings.frozen = True
            self._configured = stack.pop_all()
        return TransitionCallbackReturn.SUCCESS

    @_or_back
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._serving = Serving(self, self._outputs, self._in_use, self._settings, self._twins)
        self._settings.warn_of_unknown_qos()
        return TransitionCallbackReturn.SUCCESS

    @_or_error
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        return TransitionCallbackReturn.SUCCESS

    @_or_error
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._configured.close()
        return TransitionCallbackReturn.SUCCESS

    @_or_error
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._configured.close()
        return TransitionCallbackReturn.SUCCESS

    on_error = on_shutdown

    def destroy_node(self) -> None:
        self._stop()
        super().destroy_node()

    def _stop(self) -> None:
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()

    def _in_use(self) -> Pipeline:
        assert self._pipeline is not None
        return self._pipeline

    def _forget(self) -> None:
        with returnable():
            pipeline, self._pipeline, self._outputs, self._latched = self._pipeline, None, {}, {}
            self._settings.frozen = False  # also where a GPU that is lost frees nothing
            try:
                if pipeline is not None:
                    pipeline.close()
            finally:
                give_back()

    def _load(self, path: str, limit_s: float | None = None) -> Future[Pipeline]:
        value = self._settings.value
        cache = Path(value("engine_cache")) if value("engine_cache") else None
        settings = EngineSettings(
            value("backend"),
            value("precision"),
            value("threads"),
            cache,
            max_batch=len(value("cameras")),
            network_height=value("network_height"),
        )

        def load() -> Pipeline:
            directory = self._roots.resolved(Path(path or default_bundle()))
            try:
                return load_pipeline(directory, settings, self._say, limit_s)
            except GpuLostError as error:
                if value("exit_on_gpu_loss"):
                    end_without_gpu(self, error)
                raise

        return in_background(load, "loading")

    def _say(self, line: str) -> None:
        self.get_logger().info(plain(line))

    def _load_in_time(self, path: str) -> Pipeline:
        if self._late is not None:
            raise EngineError(f"{self._late}: was given up, but is still being loaded; wait, or start the node again")
        loading, limit_s = self._load(path), self._settings.value("configure_timeout")
        until = time.monotonic() + limit_s
        while self.context.ok():
            if wait([loading], 0.05).done:
                return loading.result()
            if time.monotonic() > until:
                self._late = late = Path(path or default_bundle())
                loading.add_done_callback(lambda _: setattr(self, "_late", None))
                raise EngineError(too_late(late, limit_s, "configure_timeout"))
        raise StoppedError("the process was told to end")

    def _described(self, pipeline: Pipeline) -> dict[str, tuple[type, bytes]]:
        """By topic, what is said of networks that are to be used: a type and a message of it, serialised, so that
        nothing of it can fail any more when it is published."""
        now = self.get_clock().now().to_msg()
        messages = {topics.MODEL_INFO: status_messages.model_info(pipeline.bundle, pipeline.engines, now)}
        label_info = status_messages.label_info(pipeline.bundle, now)
        if label_info is not None:
            messages |= {topics.of(camera, topics.LABEL_INFO): label_info for camera in self._outputs}
        return {topic: (type(message), serialize_message(message)) for topic, message in messages.items()}

    def _publish(self, described: Mapping[str, tuple[type, bytes]], stack: ExitStack) -> None:
        """Latched; publishers that are new go with the stack."""
        for topic, (kind, message) in described.items():
            if topic not in self._latched:
                self._latched[topic] = self.create_publisher(kind, topic, LATCHED)
                stack.callback(self.destroy_publisher, self._latched[topic])
            self._latched[topic].publish(message)

    async def _on_load_bundle(self, request: LoadBundle.Request, response: LoadBundle.Response) -> LoadBundle.Response:
        if self._asked is not None:  # else whoever calls often enough keeps all others waiting
            response.message = plain(f"{self._asked} is being loaded; ask again once that has been answered")
            return response
        self._asked = request.path or str(default_bundle())
        before, loading = self._pipeline, None
        try:
            if before is None:
                raise BundleError("the node is not configured; set its parameter bundle, and configure it")
            limit_s = self._settings.value("load_timeout")
            loading = self._load(request.path, limit_s)
            await self._done(loading, limit_s)
            if not loading.done():
                raise EngineError(too_late(Path(self._asked), limit_s, "load_timeout"))
            pipeline = loading.result()
            if self._pipeline is not before:
                raise BundleError("the node was cleaned up meanwhile; the bundle is not used")
            described, path = self._described(pipeline), str(Path(request.path).resolve()) if request.path else ""
            # What can fail is done: from here on the node serves with the new networks, and says so.
            self._pipeline = pipeline
            self._publish(described, self._configured)
            self._settings.set({"bundle": path})
            self.get_logger().info(f"bundle {pipeline.bundle.name} is in use")
            response.success, response.message = True, f"bundle {pipeline.bundle.name} is in use"
        except Exception as error:
            kind = "" if isinstance(error, (BundleError, EngineError)) else f"{type(error).__name__}: "
            response.message = plain(f"{kind}{error}")
            self.get_logger().error(f"load_bundle: {response.message}")
        finally:
            if loading is None:
                self._asked = None
            else:  # which may go on behind an answer that came too late
                loading.add_done_callback(lambda _: setattr(self, "_asked", None))
        return response

    async def _done(self, loading: Future[Pipeline], limit_s: float) -> None:
        """Let the executor go on until then, or until so many seconds have gone by."""
        executor = self.executor
        waiting = rclpy.task.Future(executor=executor)

        def wake() -> None:
            if self.context.ok():
                executor.create_task(waiting.set_result, None)

        timer = threading.Timer(limit_s, wake)
        timer.daemon = True
        timer.start()
        loading.add_done_callback(lambda _: wake())
        await waiting
        timer.cancel()

    def _on_set_stages(self, request: SetStages.Request, response: SetStages.Response) -> SetStages.Response:
        stages = {"refinement": request.refinement, "restoration": request.restoration}
        refused = self._settings.set(stages)
        response.success = not refused
        response.message = refused or ", ".join(f"{stage} {word}" for stage, word in stages_in_words(stages).items())
        self.get_logger().info(f"set_stages: {response.message}")
        return response
