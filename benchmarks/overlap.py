"""What it brings that decoding, networks and publishing overlap, to out/bench/overlap.json.

Two nodes in processes of their own get a camera's JPEG images and publish masks, overlays and restored images, raw and
compressed; in one of them the three steps overlap, in the other they follow each other. Their networks sleep, as a
thread does that waits for a GPU, for as long as decoding and publishing together take. The nodes take turns, at three
rates of the camera each, so that whatever else the machine does slows down both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from rich.progress import track
from sensor_msgs.msg import CompressedImage, Image
from support.frames import street
from support.goals import Goal, report
from support.nodes import FIRST_S, process

from coop_perception import topics
from coop_perception.images import fill_compressed
from coop_perception.launching.transport import profile_environment
from coop_perception.node.statistics import WINDOW_S
from coop_perception.recordings.frames import with_header_stamp
from coop_perception.resources import share
from coop_perception_msgs.msg import CameraStatus, PipelineStatus

NODES = ("overlapping", "sequential")
WIDTH, HEIGHT = 1280, 720
OUTPUTS = {
    topics.MASK: Image,
    topics.OVERLAY: Image,
    topics.RESTORED: Image,
    topics.RESTORED + topics.COMPRESSED: CompressedImage,
}
RATES = {"few": 0.7, "many": 1.5, "flood": 3.0}
"""Frames, over what the steps serve one after the other."""
CALIBRATION_HZ = 5.0
SUPPORT = Path(__file__).parent / "support"
LOGS = Path("out/bench")


class Camera:
    """Publishes frames, subscribes to the outputs, and knows the newest status of its node, which is called like it."""

    def __init__(self, name: str) -> None:
        self._name, self._node = name, Node(f"{name}_benchmark")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        message = CompressedImage()
        fill_compressed(message, street(WIDTH, HEIGHT), "jpeg", 90)
        self._raw = serialize_message(message)
        topic = topics.of(name, topics.IMAGE) + topics.COMPRESSED
        self._publisher = self._node.create_publisher(CompressedImage, topic, QoSProfile(depth=5))
        for output, kind in OUTPUTS.items():  # serialised, for the node is to have the processor
            self._node.create_subscription(
                kind, topics.of(name, output), lambda raw: None, QoSProfile(depth=1), raw=True
            )
        status = f"/{name}/{topics.STATUS.removeprefix('~/')}"
        self._node.create_subscription(PipelineStatus, status, self._on_status, 1)
        self._status = CameraStatus()

    def at(self, rate: float, seconds: float) -> CameraStatus:
        """So many frames per second for so long; what the node says of its last WINDOW_S."""
        begun, sent = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            if time.monotonic() - begun >= sent / rate:
                self._publisher.publish(with_header_stamp(self._raw, time.monotonic_ns()))
                sent += 1
            self._executor.spin_once(max(0.0, begun + sent / rate - time.monotonic()))
        return self._status

    def until_served(self) -> None:
        """Until the node has been found.

        Raises:
            SystemExit: it is not.
        """
        begun = time.monotonic()
        while not self._status.frames_processed:
            if time.monotonic() - begun > FIRST_S:
                raise SystemExit(f"no frame is served within {FIRST_S:.0f} s; see {LOGS}")
            self.at(CALIBRATION_HZ, 0.5)

    def close(self) -> None:
        self._executor.remove_node(self._node)
        self._node.destroy_node()

    def _on_status(self, status: PipelineStatus) -> None:
        self._status = status.cameras[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="of all turns (default: %(default)s)")
    options = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ |= profile_environment(str(share("config/fastdds.xml")))  # as the launch file does
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    rclpy.init()
    seconds = WINDOW_S + 2.0  # until nothing else is in the node's window
    with served(NODES[1], 0.0) as camera:
        steps = camera.at(CALIBRATION_HZ, seconds).stages
        asleep_ms = sum(step.median_ms for step in steps)
    turns: dict[tuple[str, str], list[CameraStatus]] = {(rate, node): [] for rate in RATES for node in NODES}
    with ExitStack() as stack:
        cameras = {node: stack.enter_context(served(node, asleep_ms / 1e3)) for node in NODES}
        for _ in track(range(options.rounds), description="overlap"):
            for (rate, node), statuses in turns.items():
                statuses.append(cameras[node].at(RATES[rate] * 1e3 / (2 * asleep_ms), seconds))
    rclpy.try_shutdown()

    def ratio(rate: str, figure: Callable[[CameraStatus], float]) -> float:
        """Overlapping over sequential: the median of the rounds."""
        pairs = zip(*(turns[rate, node] for node in NODES), strict=True)
        return statistics.median(figure(overlapping) / figure(sequential) for overlapping, sequential in pairs)

    def p50(rate: str) -> float:
        return ratio(rate, lambda status: status.latency_p50_ms)

    goals = [
        Goal("frames/s, 3 times as many as fit, over sequential", ratio("flood", lambda s: s.output_rate_hz), 1.3),
        Goal("latency p50, 0.7 of what fits, over sequential", p50("few"), 1.05, at_most=True),
        Goal("latency p50, 1.5 times as many as fit, over sequential", p50("many"), 1.0, at_most=True),
        Goal("latency p50, 3 times as many as fit, over sequential", p50("flood"), 1.05, at_most=True),
    ]
    measured = {
        "size": [WIDTH, HEIGHT],
        "networks_sleep_ms": round(asleep_ms, 1),
        **{f"{rate}, {node}": [facts(status) for status in statuses] for (rate, node), statuses in turns.items()},
    }
    report("overlap", goals, measured)


@contextmanager
def served(name: str, asleep_s: float) -> Iterator[Camera]:
    """The camera of a node that serves it and whose networks take so long."""
    parameters = ["--ros-args", "-p", "image_transport:=compressed", "-p", "status_period:=0.5"]
    camera = Camera(name)
    with process(
        [str(SUPPORT / "sleeping_node.py"), name, str(asleep_s), name, *parameters], LOGS / f"overlap_{name}.log"
    ):
        camera.until_served()
        yield camera
    camera.close()


def facts(status: CameraStatus) -> dict[str, object]:
    return {
        "camera_hz": round(status.input_rate_hz, 2),
        "served_hz": round(status.output_rate_hz, 2),
        "latency_ms": [round(ms, 1) for ms in (status.latency_p50_ms, status.latency_p95_ms, status.latency_p99_ms)],
        "stages_ms": {stage.name: round(stage.median_ms, 1) for stage in status.stages},
    }


if __name__ == "__main__":
    main()
