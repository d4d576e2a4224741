"""How long after a camera image its mask comes, at shares of what the node can do, to out/bench/latency.json.

First the node's capacity: masks per second while more images come than it manages. Then images at 50, 90 and 120 % of
that, and of each mask the time since its image's stamp, by one clock. Over capacity images are dropped; those that are
not must come as soon as ever: p99 at most two frames' time above p50, or images would have queued, and the exit status
is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image
from support.nodes import Model, process, spin

from coop_perception import topics
from coop_perception.images import fill_image
from coop_perception.launching.transport import profile_environment
from coop_perception.metrics import percentiles
from coop_perception.resources import share
from coop_perception.ros.lifecycle_client import bring_up
from coop_perception.sample_scene.drive import SampleDrive

CAMERA = "front"
SHARES = (0.5, 0.9, 1.2)
FRAMES = 30
"""Different ones, sent over and over."""
WARM_UP_S = 3.0
QUEUED = 2.0
"""Frames' time that p99 may be above p50 over capacity."""
OUT = Path("out/bench")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="at each rate (default: %(default)s)")
    seconds = parser.parse_args().seconds
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ |= profile_environment(str(share("config/fastdds.xml")))  # as the launch file does
    OUT.mkdir(parents=True, exist_ok=True)
    # All networks for each frame, whatever it shows.
    command = ["-m", "coop_perception.commands.perception_node", "--ros-args", "-p", "skip_when_clear:=false"]
    with process(command, OUT / "latency_node.log") as node:
        result = measure(node, seconds)
    (OUT / "latency.json").write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    frames = result["over_capacity_p99_minus_p50_in_frames"]
    if not frames <= QUEUED:
        sys.exit(f"latency: over capacity p99 is {frames:.1f} frames' time above p50, at most {QUEUED:g} are expected")


def measure(node: subprocess.Popen[bytes], seconds: float) -> dict[str, object]:
    rclpy.init()
    drive = Drive()
    executor = SingleThreadedExecutor()
    executor.add_node(drive.node)
    bring_up(drive.node, executor, f"/{topics.NODE}", lambda: node.poll() is None)
    spinning = threading.Thread(target=spin, args=(executor,), daemon=True)
    spinning.start()
    drive.send(60.0, WARM_UP_S)
    capacity = drive.send(60.0, seconds)["masks_per_second"]
    if not capacity:
        raise SystemExit(f"latency: no mask came; see {OUT / 'latency_node.log'}")
    loads = [{"share": share, **drive.send(share * capacity, seconds)} for share in SHARES]
    model = drive.model.facts()
    executor.shutdown()
    spinning.join()
    drive.node.destroy_node()
    rclpy.shutdown()
    over = loads[-1]["latency_ms"]
    return {
        **model,
        "capacity_fps": capacity,
        "loads": loads,
        "over_capacity_p99_minus_p50_in_frames": (over["p99"] - over["p50"]) * capacity / 1e3,
    }


class Drive:
    """A camera, and who waits for its masks and restored images."""

    def __init__(self) -> None:
        self.node = Node("latency")
        self.model = Model(self.node)
        self._publisher = self.node.create_publisher(Image, topics.of(CAMERA, topics.IMAGE), qos_profile_sensor_data)
        drive = SampleDrive(0)
        self._messages = []
        for index in range(FRAMES):
            message = Image()
            fill_image(message, drive.frame(4 * index).image, "rgb8")
            self._messages.append(message)
        self._latencies_ms: list[float] = []
        for topic, on_image in ((topics.MASK, self._on_mask), (topics.RESTORED, lambda _: None)):
            self.node.create_subscription(Image, topics.of(CAMERA, topic), on_image, QoSProfile(depth=5))

    def send(self, rate: float, seconds: float) -> dict[str, object]:
        """Images at this rate; what became of them."""
        self._latencies_ms = []
        begun, sent = time.monotonic(), 0
        while (now := time.monotonic()) < begun + seconds:
            message = self._messages[sent % FRAMES]
            message.header.stamp = self.node.get_clock().now().to_msg()
            self._publisher.publish(message)
            sent += 1
            time.sleep(max(0.0, begun + sent / rate - now))
        latencies = list(self._latencies_ms)
        # What is still under way would come after the next rate's images.
        time.sleep(1.0)
        p50, p95, p99 = percentiles(latencies)
        return {
            "images_per_second": round(sent / seconds, 2),
            "masks_per_second": round(len(latencies) / seconds, 2),
            "latency_ms": {"p50": round(p50, 1), "p95": round(p95, 1), "p99": round(p99, 1)},
        }

    def _on_mask(self, message: Image) -> None:
        stamp = message.header.stamp
        now = self.node.get_clock().now().nanoseconds
        self._latencies_ms.append((now - stamp.sec * 10**9 - stamp.nanosec) / 1e6)


def show(result: dict[str, object]) -> None:
    table = Table(
        "load", "images/s", "masks/s", "p50 ms", "p95 ms", "p99 ms", title=f"{result['capacity_fps']} fps at most"
    )
    for load in result["loads"]:
        latency = load["latency_ms"]
        table.add_row(
            f"{load['share']:.0%}",
            *(f"{load[key]:.1f}" for key in ("images_per_second", "masks_per_second")),
            *(f"{latency[key]:.0f}" for key in ("p50", "p95", "p99")),
        )
    console = Console()
    console.print(table)
    frames = result["over_capacity_p99_minus_p50_in_frames"]
    console.print(f"over capacity p99 is {frames:.1f} frames' time above p50 (goal: at most {QUEUED:g})")


if __name__ == "__main__":
    main()
