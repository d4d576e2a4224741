"""A perception node in a process of its own, and a client beside it, in a ROS domain of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

from coop_perception.images import fill_image
from coop_perception_msgs.msg import CameraStatus, PipelineStatus

NODE = "/coop_perception"
DEADLINE = 30.0
DOMAIN = int(os.environ.get("TEST_DOMAIN", 1 + os.getpid() % 100))
"""This test run's own: another one on the same machine shall not hear it."""
QOS = QoSProfile(depth=100)  # a test's bursts are lost by the node, which counts them, or not at all


def environment(domain: int) -> dict[str, str]:
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@contextmanager
def node_process(domain: int, log: Path, **parameters: str) -> Iterator[subprocess.Popen[bytes]]:
    """The node's executable with parameters (YAML texts); `log` gets what it prints."""
    command = [sys.executable, "-m", "coop_perception.perception_node", "--ros-args"]
    for name, value in {"status_period": "0.1", **parameters}.items():
        command += ["-p", f"{name}:={value}"]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(domain))
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.returncode == 0, f"exit status {process.returncode}: {log.read_text()}"


class Client:
    """Subscribes, publishes and waits. What arrives is in `received[topic]`, in order."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        self._context.init(domain_id=domain)
        self.node = Node("client", context=self._context)
        self.executor = SingleThreadedExecutor(context=self._context)
        self.executor.add_node(self.node)
        self.received: dict[str, list[Any]] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def spin(self) -> None:
        """From here on, in the background."""
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        self.executor.shutdown()
        if self._thread is not None:
            self._thread.join()
        self.node.destroy_node()
        self._context.shutdown()

    def listen(self, kind: type, topic: str, qos: QoSProfile = QOS) -> list[Any]:
        messages = self.received.setdefault(topic, [])

        def arrived(message: Any) -> None:
            with self._changed:
                messages.append(message)
                self._changed.notify_all()

        self.node.create_subscription(kind, topic, arrived, qos)
        return messages

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        with self._changed:
            while not condition():
                assert time.monotonic() < deadline, f"not within {DEADLINE:.0f} s: {what}"
                self._changed.wait(0.05)

    def status(self, camera: str) -> CameraStatus | None:
        """The newest status of a camera; `listen(PipelineStatus, ...)` must have been called."""
        for message in reversed(self.received[f"{NODE}/status"]):
            return next((c for c in message.cameras if c.name == camera), None)
        return None

    def state(self) -> str:
        """The node's lifecycle state; only before `spin`."""
        service = self.node.create_client(GetState, f"{NODE}/get_state")
        assert service.wait_for_service(DEADLINE)
        future = service.call_async(GetState.Request())
        self.executor.spin_until_future_complete(future, DEADLINE)
        self.node.destroy_client(service)
        return str(future.result().current_state.label)


@contextmanager
def client(domain: int) -> Iterator[Client]:
    it = Client(domain)
    it.listen(PipelineStatus, f"{NODE}/status")
    try:
        yield it
    finally:
        it.close()


def image_message(pixels: np.ndarray, second: int, frame_id: str = "front_optical_frame") -> Image:
    message = Image()
    fill_image(message, pixels, "rgb8")
    message.header.stamp.sec = second
    message.header.stamp.nanosec = 5
    message.header.frame_id = frame_id
    return message
