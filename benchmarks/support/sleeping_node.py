"""An active node whose networks sleep, as a thread does that waits for a GPU. Its steps overlap, or do not."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from support.no_networks import no_networks

from coop_perception.contracts import STAGES
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import Decide, Pipeline, Result
from coop_perception.node import worker
from coop_perception.node.outputs import CameraOutputs
from coop_perception.node.serving import Serving
from coop_perception.node.settings import NodeParameters
from coop_perception.node.stage import Stage
from coop_perception.node.twins import Twins
from coop_perception.resources import default_bundle

NETWORKS = "segmenter"


class SleepingPipeline(Pipeline):
    """Results of each frame's own size, `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self.bundle = load_bundle(default_bundle())
        self.engines = no_networks(self.bundle)
        self._seconds = seconds

    def run(
        self,
        frames: Sequence[NDArray[np.uint8]],
        wanted: Collection[str],
        stages: Collection[str] = STAGES,
        network_height: int = 0,
        decide: Decide | None = None,
    ) -> list[Result]:
        begun = time.perf_counter()
        time.sleep(self._seconds)
        took = {NETWORKS: (time.perf_counter() - begun) * 1e3}
        return [Result(mask=np.zeros(frame.shape[:2], np.uint8), restored=frame, stages_ms=took) for frame in frames]


class Inline:
    """A stage that works in the thread of whoever hands it something; the first one has a thread."""

    def __init__(
        self, name: str, cameras: Sequence[str], work: Callable[[Mapping[str, Any]], None], *_: object
    ) -> None:
        self._work = work

    def put(self, frames: Mapping[str, Any]) -> dict[str, Any]:
        self._work(frames)
        return {}

    def close(self, drain: bool = False) -> None:
        pass

    def join(self, timeout_s: float) -> bool:
        return True


def stage_of_one_thread(
    name: str, cameras: Sequence[str], work: Callable[[Mapping[str, Any]], None], *others: Any
) -> Stage[Any] | Inline:
    if name != "decoding":
        return Inline(name, cameras, work)
    return Stage(name, cameras, work, None, *others[1:])


def main() -> None:
    name, seconds, overlapping = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "overlapping"
    if not overlapping:
        worker.Stage = stage_of_one_thread  # type: ignore[assignment, misc]
    rclpy.init()
    node, pipeline = Node(name), SleepingPipeline(seconds)
    outputs = {name: CameraOutputs(node, name)}
    serving = Serving(node, outputs, lambda: pipeline, NodeParameters(node), Twins(node))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        serving.stop()


if __name__ == "__main__":
    main()
