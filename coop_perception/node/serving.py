"""What an active node does: frames from its cameras to the worker, reports about that at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from coop_perception import topics
from coop_perception.model.pipeline import Pipeline
from coop_perception.node import status_messages
from coop_perception.node.diagnostics import PERIOD_S, diagnostics
from coop_perception.node.inputs import CameraInput
from coop_perception.node.outputs import CameraOutputs
from coop_perception.node.settings import NodeParameters
from coop_perception.node.twins import Twins
from coop_perception.node.worker import Channel, Worker
from coop_perception_msgs.msg import PipelineStatus


class Serving:
    """Serves cameras from its creation until `stop`.

    Args:
        node: that subscribes, publishes and has the timers.
        outputs: by camera.
        pipeline: gives the one in use; with another one, the networks are exchanged between two batches.
        parameters: of the node.
        twins: others of its name.
    """

    def __init__(
        self,
        node: Node,
        outputs: Mapping[str, CameraOutputs],
        pipeline: Callable[[], Pipeline],
        parameters: NodeParameters,
        twins: Twins,
    ) -> None:
        self._twins = twins
        self._node, self._parameters, self._since = node, parameters, time.monotonic()
        self._channels = {camera: Channel(output) for camera, output in outputs.items()}
        self._pipeline = pipeline
        self._inputs: dict[str, CameraInput] = {}
        with ExitStack() as stack:  # stops what has begun if the rest fails; inputs first, then the worker
            self._worker = Worker(node, self._channels, pipeline, parameters)
            stack.callback(self._worker.stop)
            compressed = parameters.value("image_transport") == "compressed"
            for camera, channel in self._channels.items():
                on_image = partial(self._worker.put, camera)
                self._inputs[camera] = CameraInput(node, camera, compressed, on_image, channel.infos.put)
                stack.callback(self._inputs[camera].destroy)
            self._report(stack, parameters.value("status_period"), PipelineStatus, topics.STATUS, self._status)
            self._report(stack, PERIOD_S, DiagnosticArray, topics.DIAGNOSTICS, self._diagnostics)
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Frames that wait are let go."""
        self._running.close()

    def _report(
        self, stack: ExitStack, period_s: float, kind: type, topic: str, message: Callable[[Time], Any]
    ) -> None:
        publisher = self._node.create_publisher(kind, topic, 10)
        stack.callback(self._node.destroy_publisher, publisher)
        # Steady: without /clock, or while it stands still, the node's state is what somebody wants to know.
        timer = self._node.create_timer(
            period_s,
            lambda: publisher.publish(message(self._node.get_clock().now().to_msg())),
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        stack.callback(self._node.destroy_timer, timer)

    def _stages(self) -> dict[str, bool]:
        parameters = self._parameters.snapshot()
        return {stage: parameters[stage] for stage in ("refinement", "restoration")}

    def _status(self, stamp: Time) -> PipelineStatus:
        summaries = {camera: channel.statistics.summary() for camera, channel in self._channels.items()}
        return status_messages.status(summaries, self._stages(), time.monotonic() - self._since, stamp)

    def _diagnostics(self, stamp: Time) -> DiagnosticArray:
        summaries = {camera: channel.statistics.summary() for camera, channel in self._channels.items()}
        cameras = {
            camera: (summary, self._inputs[camera].missing(summary.silence_s)) for camera, summary in summaries.items()
        }
        name = self._node.get_fully_qualified_name()
        return diagnostics(name, cameras, self._pipeline(), self._stages(), stamp, self._twins.said)
