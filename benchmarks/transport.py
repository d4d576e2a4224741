"""Camera images of 1920x1080 between two processes, by who uses config/fastdds.xml, to out/bench/transport.json.

The publisher is reliable and the subscription best-effort, as a camera's driver and the perception node are. The four
cases take turns, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rich.progress import track
from sensor_msgs.msg import Image

from coop_perception.images import fill_image
from coop_perception.launching.transport import PROFILE_VARIABLES, profile_environment
from coop_perception.recordings.frames import header_stamp
from coop_perception.resources import share

WIDTH, HEIGHT = 1920, 1080
PROFILE = share("config/fastdds.xml")
CASES = {"default": (), "publisher": ("publisher",), "subscriber": ("subscriber",), "both": ("publisher", "subscriber")}
"""Which of the two processes use the profile."""
TOPIC = "camera/image_raw"
CONNECT_S = 30.0
SETTLE_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=["publisher", "subscriber"], help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=30.0, help="images per second (default %(default)s)")
    parser.add_argument("--frames", type=int, default=90, help="images per run (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each case (default %(default)s)")
    options = parser.parse_args()
    if options.role == "publisher":
        publish(options.rate, options.frames)
    elif options.role == "subscriber":
        subscribe()
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    runs: dict[str, list[list[float]]] = {case: [] for case in CASES}
    for _ in track(range(options.repeats), description="transport"):
        for case, latencies in runs.items():
            latencies.append(run(CASES[case], options))
    cases = {}
    for case, latencies in runs.items():
        delivered = [len(run) / options.frames for run in latencies]
        pooled = [latency for run in latencies for latency in run]
        cases[case] = {
            "delivered": round(statistics.mean(delivered), 3),
            "delivered_runs": [round(share, 3) for share in delivered],
            "latency_ms": dict(
                zip(("p50", "p95"), (round(float(p), 1) for p in np.percentile(pooled, (50, 95))), strict=True)
            )
            if pooled
            else None,
        }
    result = {
        "image": [HEIGHT, WIDTH, 3],
        "rate": options.rate,
        "frames": options.frames,
        "repeats": options.repeats,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "rmw": rclpy.get_rmw_implementation_identifier(),
        "profile_used_by": cases,
    }
    out = Path("out/bench/transport.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def run(with_profile: tuple[str, ...], options: argparse.Namespace) -> list[float]:
    """Latencies in ms of the images that arrived, from before publication to the subscription's callback."""

    def start(role: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))}
        for variable in PROFILE_VARIABLES:
            environment.pop(variable, None)
        if role in with_profile:
            environment |= profile_environment(str(PROFILE))
        command = [sys.executable, __file__, "--role", role, f"--rate={options.rate}", f"--frames={options.frames}"]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd="/"
        )

    with start("subscriber") as subscriber, start("publisher") as publisher:
        if publisher.wait() != 0:
            subscriber.kill()
            raise SystemExit("transport: the publisher failed")
        received, _ = subscriber.communicate()  # which ends its input, and with that the subscriber
    return [float(latency) for latency in json.loads(received)]


def publish(rate: float, count: int) -> None:
    rclpy.init()
    node = Node("benchmark_publisher")
    publisher = node.create_publisher(Image, TOPIC, QoSProfile(depth=5))
    message = Image()
    fill_image(message, np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), "rgb8")
    deadline = time.monotonic() + CONNECT_S
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            raise SystemExit(f"transport: no subscriber within {CONNECT_S:.0f} s")
        time.sleep(0.02)
    time.sleep(SETTLE_S)  # the other side discovers us later than we it
    begun = time.monotonic()
    for index in range(count):
        time.sleep(max(0.0, begun + index / rate - time.monotonic()))
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(time.monotonic_ns(), 10**9)
        publisher.publish(message)
    time.sleep(SETTLE_S)
    node.destroy_node()
    rclpy.try_shutdown()


def subscribe() -> None:
    rclpy.init()
    node = Node("benchmark_subscriber")
    latencies: list[float] = []

    def arrived(raw: bytes) -> None:
        latencies.append((time.monotonic_ns() - header_stamp(raw)) / 1e6)

    node.create_subscription(Image, TOPIC, arrived, qos_profile_sensor_data, raw=True)

    def end() -> None:
        sys.stdin.read()
        rclpy.try_shutdown()

    threading.Thread(target=end, daemon=True).start()
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass
    print(json.dumps(latencies))


if __name__ == "__main__":
    main()
