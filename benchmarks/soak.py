"""The node under more than it can do, for as long as --minutes says, to out/bench/soak.json and soak.png.

Two cameras send more frames than the networks manage. Every few seconds the node's memory, threads and open files are
read. In the end every frame that reached it must be accounted for as processed or dropped; since warm-up, memory must
not have grown by 1 MB a minute, nor threads or open files at all. Otherwise the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median_low

import numpy as np
import rclpy
from matplotlib.figure import Figure
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.progress import Progress
from sensor_msgs.msg import CompressedImage, Image
from support.nodes import Model, spin

from coop_perception import topics
from coop_perception.images import fill_image
from coop_perception.launching.transport import profile_environment
from coop_perception.resources import share
from coop_perception.ros.lifecycle_client import bring_up
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception_msgs.msg import PipelineStatus

CAMERAS = ("left", "right")
FRAMES = 30
"""Different frames per camera, sent over and over."""
READ_S = 5.0
SLOPE_MB_PER_MINUTE = 1.0
"""A leak has this slope or more."""
STATUS_S = 1.0
OUTPUTS = {
    topics.MASK: Image,
    topics.RESTORED: Image,
    topics.RESTORED + topics.COMPRESSED: CompressedImage,
    topics.OVERLAY: Image,
}
OUT = Path("out/bench")


@dataclass(frozen=True, slots=True)
class Reading:
    """Of the node's process: seconds since it was active, resident memory in MB, counts."""

    seconds: float
    memory_mb: float
    threads: int
    files: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of load (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="frames per second and camera (default: %(default)s)")
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ |= profile_environment(str(share("config/fastdds.xml")))  # as the launch file does
    OUT.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "coop_perception.commands.perception_node", "--ros-args"]
    # All networks for each frame, whatever it shows.
    given = {"cameras": str(list(CAMERAS)), "status_period": str(STATUS_S), "skip_when_clear": "false"}
    for name, value in given.items():
        command += ["-p", f"{name}:={value}"]
    with (
        (OUT / "soak_node.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            result, readings = soak(process, 60 * arguments.minutes, arguments.rate)
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(60)  # on a machine that is busy with other things
    result["exit_status"] = status
    (OUT / "soak.json").write_text(json.dumps({**result, "readings": [asdict(r) for r in readings]}, indent=2) + "\n")
    draw(readings, OUT / "soak.png")
    print(json.dumps(result, indent=2))
    if failures := failed(result):
        sys.exit(f"soak: {', '.join(failures)}; {OUT / 'soak_node.log'}")


def failed(result: dict[str, object]) -> list[str]:
    """What the node did not stand up to."""
    lost = sum(camera["unaccounted"] for camera in result["cameras"].values())
    slope = result["memory_slope_mb_per_minute"]
    failures = {
        f"{lost} frames unaccounted for": lost,
        f"exit status {result['exit_status']}": result["exit_status"],
        f"memory grows by {slope} MB a minute": slope is not None and slope >= SLOPE_MB_PER_MINUTE,
    }
    for what in ("threads", "files"):
        before, after = result[what]
        failures[f"{after} {what}, {before} after warm-up"] = after > before
    return [failure for failure, is_so in failures.items() if is_so]


def soak(process: subprocess.Popen[bytes], seconds: float, rate: float) -> tuple[dict[str, object], list[Reading]]:
    """Load the node and read its process; the summary and the readings."""
    rclpy.init()
    load = Load()
    executor = SingleThreadedExecutor()
    executor.add_node(load.node)
    bring_up(load.node, executor, f"/{topics.NODE}", lambda: process.poll() is None)
    spinning = threading.Thread(target=spin, args=(executor,), daemon=True)
    spinning.start()
    readings: list[Reading] = []
    begun = time.monotonic()
    with Progress() as progress:
        task = progress.add_task("soak", total=seconds)
        sent = 0
        while (now := time.monotonic() - begun) < seconds and process.poll() is None:
            load.send(sent)
            sent += 1
            if now >= len(readings) * READ_S:
                readings.append(read(process.pid, now))
                progress.update(task, completed=now)
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
    accounted, model = load.settle(), load.model.facts()
    executor.shutdown()
    spinning.join()
    load.node.destroy_node()
    rclpy.shutdown()
    # A third of the time, a minute at most, is warm-up: allocators reach their size.
    steady = [r for r in readings if r.seconds > min(seconds / 3, 60)]
    slope = np.polyfit([r.seconds / 60 for r in steady], [r.memory_mb for r in steady], 1)[0] if steady[2:] else None
    return {
        "cpu": platform.processor() or platform.machine(),
        **model,
        "minutes": round(seconds / 60, 2),
        "sent_per_camera": sent,
        "cameras": accounted,
        "received_back": load.received,
        "memory_mb": {"first": readings[0].memory_mb, "steady": steady[0].memory_mb, "last": readings[-1].memory_mb},
        "memory_slope_mb_per_minute": None if slope is None else round(float(slope), 3),
        "threads": first_and_last([r.threads for r in steady]),
        "files": first_and_last([r.files for r in steady]),
    }, readings


def first_and_last(counts: Sequence[int]) -> list[int]:
    """Medians of the first and of the last third: a file may be open for just the moment of one reading."""
    third = max(1, len(counts) // 3)
    return [median_low(counts[:third]), median_low(counts[-third:])]


class Load:
    """Publishers of the cameras, subscribers of the outputs, and the node's newest status."""

    def __init__(self) -> None:
        self.node = Node("soak")
        self.model = Model(self.node)
        self.received = 0
        self._status: PipelineStatus | None = None
        self._publishers, self._messages = {}, {}
        for seed, camera in enumerate(CAMERAS):
            self._publishers[camera] = self.node.create_publisher(Image, topics.of(camera, topics.IMAGE), 5)
            drive = SampleDrive(seed)
            self._messages[camera] = [image(drive.frame(4 * index).image, camera) for index in range(FRAMES)]
            for topic, kind in OUTPUTS.items():
                self.node.create_subscription(kind, topics.of(camera, topic), self._on_output, QoSProfile(depth=5))
        name = f"/{topics.NODE}/{topics.STATUS.removeprefix('~/')}"
        self.node.create_subscription(PipelineStatus, name, self._on_status, 10)

    def send(self, index: int) -> None:
        for camera in CAMERAS:
            message = self._messages[camera][index % FRAMES]
            message.header.stamp = self.node.get_clock().now().to_msg()
            self._publishers[camera].publish(message)

    def settle(self) -> dict[str, dict[str, object]]:
        """The node's account of each camera's frames, once it has come to rest."""
        deadline, last = time.monotonic() + 15, None
        while time.monotonic() < deadline:
            status = self._status
            if status is not None and status is not last:
                if all(c.frames_received == c.frames_processed + drops(c) for c in status.cameras):
                    break
                last = status
            time.sleep(STATUS_S / 4)
        assert self._status is not None
        return {
            c.name: {
                "received": c.frames_received,
                "processed": c.frames_processed,
                "dropped": {drop.reason: drop.count for drop in c.dropped if drop.count},
                "unaccounted": c.frames_received - c.frames_processed - drops(c),
                "output_rate_hz": round(c.output_rate_hz, 2),
                "latency_ms": {p: round(getattr(c, f"latency_{p}_ms"), 1) for p in ("p50", "p95", "p99")},
            }
            for c in self._status.cameras
        }

    def _on_output(self, message: Image | CompressedImage) -> None:
        self.received += 1

    def _on_status(self, message: PipelineStatus) -> None:
        self._status = message


def drops(camera: object) -> int:
    return sum(drop.count for drop in camera.dropped)


def image(pixels: np.ndarray, camera: str) -> Image:
    message = Image()
    message.header.frame_id = f"{camera}_optical_frame"
    fill_image(message, pixels, "rgb8")
    return message


def read(pid: int, seconds: float) -> Reading:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    memory = int(fields["VmRSS"].split()[0]) / 1024
    files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return Reading(round(seconds, 1), round(memory, 1), int(fields["Threads"]), files)


def draw(readings: list[Reading], path: Path) -> None:
    figure = Figure(figsize=(8, 6))
    axes = figure.subplots(3, 1, sharex=True)
    minutes = [r.seconds / 60 for r in readings]
    for axis, field in zip(axes, ("memory_mb", "threads", "files"), strict=True):
        values = [getattr(r, field) for r in readings]
        axis.plot(minutes, values)
        axis.set_ylabel(field.replace("memory_mb", "resident memory, MB").replace("files", "open files"))
        axis.set_ylim(0, 1.2 * max(values))
    axes[-1].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
