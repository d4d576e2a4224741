"""What it brings that decoding, networks and publishing overlap, to out/bench/overlap.json.

A node in a process of its own gets a camera's JPEG images and publishes masks, overlays and restored images, raw and
compressed. Its networks sleep, as a thread does that waits for a GPU, for as long as decoding and publishing together
take. Its rate under more frames than it can serve, and its latency, are compared with those of one frame at a time,
which is the sum of the three.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image
from support.frames import street
from support.goals import Goal, report
from support.nodes import FIRST_S, LOST_S, process

from coop_perception import topics
from coop_perception.images import fill_compressed
from coop_perception.launching.transport import profile_environment
from coop_perception.recordings.frames import header_stamp, with_header_stamp
from coop_perception.resources import share
from coop_perception_msgs.msg import PipelineStatus

CAMERA = "front"
WIDTH, HEIGHT = 1280, 720
OUTPUTS = {
    topics.MASK: Image,
    topics.OVERLAY: Image,
    topics.RESTORED: Image,
    topics.RESTORED + topics.COMPRESSED: CompressedImage,
}
LAST = topics.RESTORED + topics.COMPRESSED
"""The output that is published behind a frame's others."""
RATES = {"easy": 0.7, "busy": 1.5, "flooded": 3.0}
"""Of the camera, in frames/s of one at a time."""
SUPPORT = Path(__file__).parent / "support"
LOG = Path("out/bench/overlap_node.log")


@dataclass
class Turn:
    """When each frame's last output arrived, and how long after the frame's publication."""

    arrived_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def fps(self) -> float:
        return (len(self.arrived_s) - 1) / (self.arrived_s[-1] - self.arrived_s[0])


class Camera:
    """Publishes frames and notes when the last output of each arrives."""

    def __init__(self) -> None:
        self._node = Node("overlap")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        message = CompressedImage()
        fill_compressed(message, street(WIDTH, HEIGHT), "jpeg", 90)
        self._raw = serialize_message(message)
        qos = QoSProfile(depth=5)
        topic = topics.of(CAMERA, topics.IMAGE) + topics.COMPRESSED
        self._publisher = self._node.create_publisher(CompressedImage, topic, qos)
        for output, kind in OUTPUTS.items():  # serialised, for the node is to have the processor
            on_output = self._on_last if output == LAST else lambda raw: None
            self._node.create_subscription(kind, topics.of(CAMERA, output), on_output, qos, raw=True)
        status = f"/{topics.NODE}/{topics.STATUS.removeprefix('~/')}"
        self._node.create_subscription(PipelineStatus, status, self._on_status, 1)
        self._turn, self._stages = Turn(), dict[str, float]()

    def until_served(self) -> None:
        """Until the node has been found.

        Raises:
            SystemExit: it is not.
        """
        self._turn, sent = Turn(), 0.0
        deadline = time.monotonic() + FIRST_S
        while not self._turn.arrived_s:
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing comes back within {FIRST_S:.0f} s; see {LOG}")
            if time.monotonic() - sent > 0.5:
                sent = self._send()
            self._executor.spin_once(0.1)

    def one_at_a_time(self, seconds: float) -> Turn:
        turn = self._turn = Turn()
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            before, sent = len(turn.arrived_s), self._send()
            self._until(lambda before=before: len(turn.arrived_s) > before, sent)
        return turn

    def at(self, rate: float, seconds: float) -> Turn:
        turn = self._turn = Turn()
        begun, sent = time.monotonic(), 0
        while (now := time.monotonic()) - begun < seconds:
            if now - begun >= sent / rate:
                self._send()
                sent += 1
            self._executor.spin_once(max(0.0, begun + sent / rate - time.monotonic()))
        rest = time.monotonic()
        while time.monotonic() - max([rest, *turn.arrived_s[-1:]]) < 0.5:  # the next turn finds an idle node
            self._executor.spin_once(0.1)
        return turn

    def stages_ms(self) -> dict[str, float]:
        """Medians of the node's stages, from the next two statuses."""
        for _ in range(2):
            self._stages = {}
            self._until(lambda: bool(self._stages), time.monotonic())
        return self._stages

    def close(self) -> None:
        self._executor.remove_node(self._node)
        self._node.destroy_node()

    def _until(self, condition: Callable[[], bool], since: float) -> None:
        while not condition():
            if time.monotonic() - since > LOST_S:
                raise SystemExit(f"nothing comes back for {LOST_S:.0f} s; see {LOG}")
            self._executor.spin_once(0.1)

    def _send(self) -> float:
        self._publisher.publish(with_header_stamp(self._raw, time.monotonic_ns()))
        return time.monotonic()

    def _on_last(self, raw: bytes) -> None:
        now = time.monotonic_ns()
        self._turn.arrived_s.append(now / 1e9)
        self._turn.latencies_ms.append((now - header_stamp(raw)) / 1e6)

    def _on_status(self, status: PipelineStatus) -> None:
        self._stages = {stage.name: stage.median_ms for stage in status.cameras[0].stages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="of all turns (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a turn (default: %(default)s)")
    options = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ |= profile_environment(str(share("config/fastdds.xml")))  # as the launch file does
    os.environ["PYTHONPATH"] = os.pathsep.join([str(SUPPORT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    rclpy.init()
    without = measure(0.0, lambda camera: (camera.one_at_a_time(options.seconds), camera.stages_ms())[1])
    asleep_s = (without["decode"] + without["publish"]) / 1e3
    turns: dict[str, list[Turn]] = {"one at a time": [], **{name: [] for name in RATES}}

    def take_turns(camera: Camera) -> dict[str, float]:
        for _ in range(options.rounds):
            turns["one at a time"].append(camera.one_at_a_time(options.seconds))
            alone = turns["one at a time"][-1].fps
            for name, share_of_alone in RATES.items():
                turns[name].append(camera.at(share_of_alone * alone, options.seconds))
        return camera.stages_ms()

    stages_ms = measure(asleep_s, take_turns)
    rclpy.try_shutdown()
    fps = {name: statistics.median(turn.fps for turn in each) for name, each in turns.items()}
    p50 = {
        name: statistics.median(ms for turn in each for ms in turn.latencies_ms) for name, each in turns.items()
    }
    alone = "one at a time"
    goals = [
        Goal("frames/s, over one at a time", fps["flooded"] / fps[alone], 1.3),
        Goal("latency p50 at 0.7 of that rate, over one at a time", p50["easy"] / p50[alone], 1.05, at_most=True),
        Goal("latency p50 at 1.5 times that rate, over one at a time", p50["busy"] / p50[alone], None),
        Goal("latency p50 at 3 times that rate, over one at a time", p50["flooded"] / p50[alone], None),
    ]
    measured = {
        "size": [WIDTH, HEIGHT],
        "networks_sleep_ms": round(asleep_s * 1e3, 1),
        "stages_ms": {name: round(ms, 1) for name, ms in stages_ms.items()},
        "fps": {name: round(value, 2) for name, value in fps.items()},
        "latency_p50_ms": {name: round(value, 1) for name, value in p50.items()},
    }
    report("overlap", goals, measured)


def measure(asleep_s: float, what: Callable[[Camera], dict[str, float]]) -> dict[str, float]:
    """What is measured of a node whose networks take so long."""
    parameters = ["--ros-args", "-p", "image_transport:=compressed", "-p", "status_period:=0.5"]
    camera = Camera()
    with process([str(SUPPORT / "sleeping_node.py"), CAMERA, str(asleep_s), *parameters], LOG):
        camera.until_served()
        result = what(camera)
    camera.close()
    return result


if __name__ == "__main__":
    main()
