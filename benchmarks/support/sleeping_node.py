"""An active node whose networks sleep, as a thread does that waits for a GPU."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from support.no_networks import NoNetworks

from coop_perception import topics
from coop_perception.contracts import STAGES
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import Pipeline, Result
from coop_perception.node.outputs import CameraOutputs
from coop_perception.node.serving import Serving
from coop_perception.node.settings import NodeParameters
from coop_perception.resources import default_bundle


class SleepingPipeline(Pipeline):
    """Results of each frame's own size, `seconds` later."""

    def __init__(self, seconds: float) -> None:
        self.bundle = load_bundle(default_bundle())
        self.engines = {"segmenter": NoNetworks(self.bundle.height, self.bundle.width, len(self.bundle.conditions))}
        self._seconds = seconds

    def run(
        self, frames: Sequence[NDArray[np.uint8]], wanted: Collection[str], stages: Collection[str] = STAGES
    ) -> list[Result]:
        time.sleep(self._seconds)
        took = {"segmenter": self._seconds * 1e3}
        return [Result(mask=np.zeros(frame.shape[:2], np.uint8), restored=frame, stages_ms=took) for frame in frames]


def main() -> None:
    camera, seconds = sys.argv[1], float(sys.argv[2])
    rclpy.init()
    node, pipeline = Node(topics.NODE), SleepingPipeline(seconds)
    serving = Serving(node, {camera: CameraOutputs(node, camera)}, lambda: pipeline, NodeParameters(node))
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        serving.stop()


if __name__ == "__main__":
    main()
