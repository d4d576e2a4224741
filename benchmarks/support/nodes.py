"""Nodes in processes of their own, and a camera that keeps one of them busy."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image

from coop_perception import topics
from coop_perception.images import fill_image
from coop_perception.recordings.frames import header_stamp
from coop_perception_msgs.msg import ModelInfo

IN_FLIGHT = 2
"""Frames that a node has: one in work, one waiting."""
FIRST_S, LOST_S = 120.0, 30.0
"""How long the first mask, and any other, is waited for."""
LEAST = 4
"""Masks of a turn, however long they take."""


@contextmanager
def process(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that is interrupted at the end; `log` gets what it prints.

    Raises:
        SystemExit: it has ended by itself.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as file,
        subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=subprocess.STDOUT) as it,
    ):
        try:
            yield it
            if it.poll() is not None:
                raise SystemExit(f"{arguments[:2]} ended with exit status {it.returncode}; see {log}")
        finally:
            it.send_signal(signal.SIGINT)
            try:
                it.wait(10)
            except subprocess.TimeoutExpired:
                it.kill()


def spin(executor: SingleThreadedExecutor) -> None:
    """For a thread, until ROS is shut down."""
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


class Model:
    """What the perception node says that it runs.

    Args:
        node: that subscribes.
    """

    def __init__(self, node: Node) -> None:
        self._info: ModelInfo | None = None
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        name = f"/{topics.NODE}/{topics.MODEL_INFO.removeprefix('~/')}"
        node.create_subscription(ModelInfo, name, self._on_info, latched)

    def facts(self) -> dict[str, str]:
        """For a benchmark's file.

        Raises:
            SystemExit: the node has not said it yet.
        """
        if self._info is None:
            raise SystemExit("the node's model_info did not come")
        return {name: getattr(self._info, name) for name in ("bundle_name", "backend", "precision", "device")}

    def _on_info(self, info: ModelInfo) -> None:
        self._info = info


@dataclass
class Served:
    """What came back of a camera's frames: when their masks arrived, and how long after their publication began."""

    arrived_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    restored: int = 0

    @property
    def fps(self) -> float:
        """From the first mask to the last."""
        return (len(self.arrived_s) - 1) / (self.arrived_s[-1] - self.arrived_s[0])


class Camera:
    """Publishes frames and counts the masks and the restored images of them.

    Args:
        name: of the camera.
        frame: uint8 [H,W,3] RGB, its every frame.
    """

    def __init__(self, name: str, frame: NDArray[np.uint8]) -> None:
        self.node = Node(f"{name}_benchmark")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._message = Image()
        fill_image(self._message, frame, "rgb8")
        self._publisher = self.node.create_publisher(Image, topics.of(name, topics.IMAGE), QoSProfile(depth=5))
        # Serialised: they are only counted, and the node is to have the processor.
        for topic, arrived in ((topics.MASK, self._on_mask), (topics.RESTORED, self._on_restored)):
            self.node.create_subscription(Image, topics.of(name, topic), arrived, QoSProfile(depth=5), raw=True)
        self._in_flight: list[int] = []
        self._served = Served()
        self._sends = False

    def first_mask(self, every_s: float) -> float:
        """Publish a frame so often, until a mask comes; when that was, by `time.monotonic`.

        Raises:
            SystemExit: none comes.
        """
        self._served = Served()
        begun = sent = time.monotonic()
        while not self._served.arrived_s:
            now = time.monotonic()
            if now - begun > FIRST_S:
                raise SystemExit(f"no mask within {FIRST_S:.0f} s")
            if now >= sent:
                self._send()
                sent = now + every_s
            self.executor.spin_once(sent - time.monotonic())
        return self._served.arrived_s[0]

    def saturate(self, seconds: float) -> Served:
        """Keep the node busy: for every restored image, which is the last of a frame's outputs, another frame.

        Raises:
            SystemExit: nothing comes back.
        """
        served = self._served = Served()
        self._sends, begun = True, time.monotonic()
        for _ in range(IN_FLIGHT):
            self._send()
        while time.monotonic() - begun < seconds or len(served.arrived_s) < LEAST:
            self.executor.spin_once(0.1)
            if time.monotonic() - (served.arrived_s or [begun])[-1] > LOST_S:
                raise SystemExit(f"no mask for {LOST_S:.0f} s")
        self._sends = False
        self._served = Served()  # what comes now does not count
        self.settle()
        return served

    def settle(self) -> None:
        """Until the newest frame has come back: the node rests.

        Raises:
            SystemExit: it does not.
        """
        deadline = time.monotonic() + LOST_S
        while self._in_flight:
            if time.monotonic() > deadline:
                raise SystemExit(f"the last frame did not come back within {LOST_S:.0f} s")
            self.executor.spin_once(0.1)

    def alone(self) -> None:
        """Until the node that has ended is no longer known of: the next one is not taken for it.

        Raises:
            SystemExit: it is not forgotten.
        """
        deadline = time.monotonic() + LOST_S
        while self._publisher.get_subscription_count():
            if time.monotonic() > deadline:
                raise SystemExit(f"the node's subscription is still there, {LOST_S:.0f} s after its end")
            time.sleep(0.05)

    def _send(self) -> None:
        stamp = time.monotonic_ns()
        self._message.header.stamp.sec, self._message.header.stamp.nanosec = divmod(stamp, 10**9)
        self._in_flight.append(stamp)
        self._publisher.publish(self._message)

    def _on_mask(self, raw: bytes) -> None:
        now = time.monotonic_ns()
        self._served.arrived_s.append(now / 1e9)
        self._served.latencies_ms.append((now - header_stamp(raw)) / 1e6)

    def _on_restored(self, raw: bytes) -> None:
        self._served.restored += 1
        stamp = header_stamp(raw)  # older ones will not come any more: they were lost, or dropped
        self._in_flight = [waiting for waiting in self._in_flight if waiting > stamp]
        while self._sends and len(self._in_flight) < IN_FLIGHT:
            self._send()
