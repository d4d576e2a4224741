"""A perception node in a process of its own, and a client beside it, in a ROS domain of their own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from toy_bundle import HEIGHT, WIDTH

from coop_perception.images import fill_image
from coop_perception_msgs.msg import CameraStatus, PipelineStatus

NODE = "/coop_perception"
DEADLINE = 90.0
ANSWER_S = 30.0
"""A service's answer that takes longer is lost: the service had not seen its client yet."""


def claim_domain() -> int:
    """A ROS domain that no other process of these tests has, on this machine; kept until this process ends."""
    for domain in range(1, 101):
        file = os.open(Path(tempfile.gettempdir(), f"coop_perception-test-domain-{domain}"), os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
        else:
            return domain
    raise RuntimeError("a hundred test processes have a ROS domain each; wait for one of them to end")


DOMAIN = claim_domain()
"""This process's own: other workers of the same run, and other runs, shall not hear it."""
QOS = QoSProfile(depth=100)  # a test's bursts are lost by the node, which counts them, or not at all
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE = {
    f"qos_overrides./{camera}/{topic}.subscription.{policy}": value
    for camera in ("front", "rear")
    for topic in ("image_raw", "image_raw/compressed")
    for policy, value in (("reliability", "reliable"), ("depth", "100"))
}


def loaded() -> bool:
    """Whether the machine is busy with other things than a test, which then takes it that something comes late."""
    return os.getloadavg()[0] > len(os.sched_getaffinity(0))


def environment(domain: int) -> dict[str, str]:
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


@contextmanager
def executable(
    module: str, domain: int, log: Path, *flags: str, **parameters: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A node's executable with parameters (YAML texts); `log` gets what it prints. It must end with status 0."""
    command = [sys.executable, "-m", f"coop_perception.commands.{module}", *flags, "--ros-args"]
    for name, value in parameters.items():
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


def node_process(
    domain: int, log: Path, *flags: str, **parameters: str
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """The perception node, telling its status often."""
    return executable("perception_node", domain, log, *flags, **{"status_period": "0.1", **parameters})


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

    def dropped(self, camera: str, reason: str) -> int:
        status = self.status(camera)
        return sum(d.count for d in status.dropped if d.reason == reason) if status else 0

    def diagnostic(self, name: str) -> DiagnosticStatus | None:
        """The newest entry of that name; `listen(DiagnosticArray, "/diagnostics")` must have been called."""
        for message in reversed(self.received["/diagnostics"]):
            return next((entry for entry in message.status if entry.name == f"{NODE}: {name}"), None)
        return None

    def call(self, kind: type, name: str, request: Any) -> Any:
        """A service's answer; only after `spin`. Asked again after ANSWER_S, as in `state`."""
        service = self.node.create_client(kind, name)
        assert service.wait_for_service(DEADLINE), name
        begun, futures = time.monotonic(), [service.call_async(request)]

        def answered() -> bool:
            if time.monotonic() - begun > ANSWER_S * len(futures):
                futures.append(service.call_async(request))
            return any(future.done() for future in futures)

        self.wait(answered, f"an answer of {name}")
        self.node.destroy_client(service)
        return next(future.result() for future in futures if future.done())

    def state(self) -> str:
        """The node's lifecycle state; only before `spin`."""
        service = self.node.create_client(GetState, f"{NODE}/get_state")
        assert service.wait_for_service(DEADLINE)
        deadline = time.monotonic() + DEADLINE
        while True:
            # Asked again: a service that is seen may not have seen its client yet, and its answer is then lost. To ask
            # changes nothing.
            future = service.call_async(GetState.Request())
            self.executor.spin_until_future_complete(future, 3.0)
            if future.done():
                break
            service.remove_pending_request(future)
            assert time.monotonic() < deadline, f"no answer of {NODE}/get_state within {DEADLINE:.0f} s"
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


def pixels(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Red, green and blue are classes; a camera in the toy's clear weather."""
    return np.random.default_rng(seed).integers(0, 11, (height, width, 3), dtype=np.uint8)


def connected(ours: Client, kind: type, topic: str, qos: QoSProfile = QOS) -> Publisher:
    publisher = ours.node.create_publisher(kind, topic, qos)
    ours.wait(lambda: publisher.get_subscription_count() == 1, f"the node subscribes to {topic}")
    return publisher


def publish_until(
    ours: Client, publisher: Publisher, message: object, condition: Callable[[], bool], what: str
) -> None:
    """Discovery is asymmetric: that we see the node's publishers does not mean that it sees our subscriptions yet."""

    def sent() -> bool:
        publisher.publish(message)
        return condition()

    ours.wait(lambda: condition() or sent(), what)


def change_state(ours: Client, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(ours.call(ChangeState, f"{NODE}/change_state", request).success)


def set_parameters(ours: Client, **values: Any) -> str:
    """The node's reason for refusing, empty if it did not."""
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    results = ours.call(SetParameters, f"{NODE}/set_parameters", SetParameters.Request(parameters=parameters)).results
    assert all(result.successful == (not result.reason) for result in results)
    return "; ".join(result.reason for result in results if not result.successful)


def settle(ours: Client, *cameras: str) -> None:
    """Until no frame is waiting or in work, as a status after the last one says."""

    def settled() -> bool:
        return all(
            s is not None and s.frames_received == s.frames_processed + sum(d.count for d in s.dropped)
            for s in map(ours.status, cameras)
        )

    seen = len(ours.received[f"{NODE}/status"])
    ours.wait(lambda: len(ours.received[f"{NODE}/status"]) > seen + 2 and settled(), "all frames accounted for")
