"""What the node says and does when its cameras send nothing, the wrong thing, at different rates, or at odd times."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import (
    DOMAIN,
    LATCHED,
    NODE,
    QOS,
    Client,
    client,
    connected,
    environment,
    image_message,
    loaded,
    pixels,
    publish_until,
    set_parameters,
    settle,
)
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String

from coop_perception.images import to_mask

WITHIN_S = 5.0
LOADED_MACHINE_S = 5.0
"""How much later a test still takes it where the machine is busy with other things than the node."""

CAMERA = """
import rclpy, sys
from node_harness import image_message, pixels
rclpy.init()
node = rclpy.create_node("driver")
publisher = node.create_publisher(type(image_message(pixels(), 1)), "/front/image_raw", 10)
node.create_timer(0.1, lambda: publisher.publish(image_message(pixels(), int(sys.argv[1]))))
rclpy.spin(node)
"""


def says(ours: Client, text: str, level: bytes = DiagnosticStatus.ERROR) -> Callable[[], bool]:
    def said() -> bool:
        entry = ours.diagnostic("front")
        return bool(entry) and text in entry.message and entry.level == level

    return said


def wait_briefly(ours: Client, condition: Callable[[], bool], what: str) -> None:
    begun = time.monotonic()
    ours.wait(condition, what)
    assert time.monotonic() - begun < WITHIN_S + (LOADED_MACHINE_S if loaded() else 0.0), what


def test_no_publisher_is_said_with_the_remedy_once(active: Callable[..., Client], node_log: Path) -> None:
    ours = active()
    ours.listen(DiagnosticArray, "/diagnostics")
    wait_briefly(ours, says(ours, "nothing publishes /front/image_raw; start the camera's driver"), "no publisher")
    elsewhere = ours.node.create_publisher(Image, "/cam/image", 10)
    wait_briefly(ours, says(ours, "images are on /cam/image: set parameter cameras, or remap"), "the nearest topic")
    compressed = ours.node.create_publisher(CompressedImage, "/front/image_raw/compressed", 10)
    wait_briefly(ours, says(ours, "set parameter image_transport to compressed"), "the other transport")
    assert node_log.read_text().count("start the camera's driver") == 1
    for publisher in (elsewhere, compressed):
        ours.node.destroy_publisher(publisher)


def test_a_publisher_that_does_not_fit_is_named_with_the_remedy(active: Callable[..., Client], node_log: Path) -> None:
    ours = active()  # whose subscription is reliable
    ours.listen(DiagnosticArray, "/diagnostics")
    wrong_type = "/client publishes /front/image_raw as std_msgs/msg/String, expected sensor_msgs/msg/Image"
    with client(DOMAIN) as other:  # a participant cannot have two types of one topic
        other.node.create_publisher(String, "/front/image_raw", 10)
        wait_briefly(ours, says(ours, wrong_type), "another type")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    ours.node.create_publisher(Image, "/front/image_raw", best_effort)
    remedy = "set qos_overrides./front/image_raw.subscription.reliability: best_effort"
    wait_briefly(ours, says(ours, remedy), "another QoS")
    log = node_log.read_text()
    assert wrong_type in log
    assert log.count(remedy) == 1
    assert "/client publishes /front/image_raw as best_effort, volatile" in log


def test_a_camera_that_goes_silent_and_comes_back(active: Callable[..., Client], node_log: Path) -> None:
    ours = active()
    ours.listen(DiagnosticArray, "/diagnostics")
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
    silent = "/client publishes /front/image_raw, but no image comes"
    wait_briefly(ours, says(ours, silent), "silence")
    publish_until(
        ours, publisher, image_message(pixels(), 2), says(ours, "running", DiagnosticStatus.OK), "running again"
    )
    log = node_log.read_text()
    assert log.count(silent) == 1
    assert "images arrive on /front/image_raw" in log


INFO_TRANSIENT_LOCAL = {"qos_overrides./front/camera_info.subscription.durability": "transient_local"}


@pytest.mark.parametrize(
    ("parameters", "publisher", "remedy"),
    [
        (
            INFO_TRANSIENT_LOCAL,
            QoSProfile(depth=1),
            "as reliable, volatile, which does not go with the node's best_effort, transient_local",
        ),
        (
            {},
            LATCHED,
            "if it was sent once, latched, set qos_overrides./front/camera_info.subscription.durability: "
            "transient_local",
        ),
    ],
    ids=["volatile", "latched"],
)
def test_a_camera_info_that_does_not_come_is_said_with_the_remedy_once(
    active: Callable[..., Client], node_log: Path, parameters: dict[str, str], publisher: QoSProfile, remedy: str
) -> None:
    ours = active(**parameters)
    ours.listen(DiagnosticArray, "/diagnostics")
    ours.node.create_publisher(CameraInfo, "/front/camera_info", publisher)
    images = connected(ours, Image, "/front/image_raw")
    said = says(ours, "no camera_info: /client publishes /front/camera_info", DiagnosticStatus.WARN)
    publish_until(ours, images, image_message(pixels(), 1), said, "no camera_info")
    assert remedy in ours.diagnostic("front").message
    fitting = ours.node.create_publisher(CameraInfo, "/front/camera_info", LATCHED)

    def sent() -> bool:
        fitting.publish(CameraInfo())
        return says(ours, "running", DiagnosticStatus.OK)()

    publish_until(ours, images, image_message(pixels(), 2), sent, "it comes")
    assert node_log.read_text().count("no camera_info: ") == 1
    ours.wait(lambda: "camera_info arrives on /front/camera_info" in node_log.read_text(), "that it comes is said")


def test_a_camera_without_camera_info_is_served_as_well(active: Callable[..., Client], node_log: Path) -> None:
    """The log says it, diagnostics have it among the values: nothing is wrong."""
    ours = active()
    ours.listen(DiagnosticArray, "/diagnostics")
    images = connected(ours, Image, "/front/image_raw")

    def told() -> bool:
        entry = ours.diagnostic("front")
        return entry is not None and any(pair.key == "camera_info" for pair in entry.values)

    publish_until(ours, images, image_message(pixels(), 1), told, "the value")
    entry = ours.diagnostic("front")
    assert (entry.level, entry.message) == (DiagnosticStatus.OK, "running")
    text = "no camera_info: nothing publishes /front/camera_info; where somebody needs it"
    assert [pair.value.startswith(text) for pair in entry.values if pair.key == "camera_info"] == [True]
    assert node_log.read_text().count(text) == 1


def test_a_camera_that_is_killed_and_started_again(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")

    def camera(second: int) -> subprocess.Popen[bytes]:
        env = {**environment(DOMAIN)}
        env["PYTHONPATH"] = f"{Path(__file__).parents[1]}:{env.get('PYTHONPATH', '')}"
        return subprocess.Popen([sys.executable, "-c", CAMERA, str(second)], env=env)

    first = camera(1)
    try:
        ours.wait(lambda: bool(masks), "a mask")
    finally:
        first.kill()
        first.wait()
    second = camera(2)
    try:
        ours.wait(lambda: masks[-1].header.stamp.sec == 2, "a mask of the second camera")
    finally:
        second.send_signal(signal.SIGKILL)
        second.wait()


def test_a_slow_camera_is_served_beside_a_fast_one(active: Callable[..., Client]) -> None:
    """The fast one sends whenever it can, far more than can be processed; of the slow one no frame is lost."""
    ours = active(cameras="[front, rear]", status_period="0.1")
    masks = {camera: ours.listen(Image, f"/{camera}/coop/mask") for camera in ("front", "rear")}
    fast, slow = (connected(ours, Image, f"/{camera}/image_raw") for camera in masks)
    large = image_message(pixels(0, 360, 480), 1)
    for camera, publisher in (("front", fast), ("rear", slow)):
        publish_until(ours, publisher, image_message(pixels(), 1), lambda c=camera: bool(masks[c]), "a first mask")
    settle(ours, "front", "rear")
    before = ours.dropped("rear", "superseded")
    for second in range(2, 12):
        for _ in range(8):
            fast.publish(large)
        slow.publish(image_message(pixels(), second))
        ours.wait(lambda s=second: masks["rear"][-1].header.stamp.sec == s, "the slow camera's mask")
    assert [mask.header.stamp.sec for mask in masks["rear"]][-10:] == list(range(2, 12))
    ours.wait(lambda: ours.dropped("front", "superseded") > 0, "the fast camera was too fast")
    assert ours.dropped("rear", "superseded") == before


def test_a_window_takes_effect_on_the_next_frame(active: Callable[..., Client]) -> None:
    ours = active(cameras="[front, rear]")
    masks = {camera: ours.listen(Image, f"/{camera}/coop/mask") for camera in ("front", "rear")}
    publishers = [connected(ours, Image, f"/{camera}/image_raw") for camera in masks]
    for camera, publisher in zip(masks, publishers, strict=True):
        publish_until(ours, publisher, image_message(pixels(), 1), lambda c=camera: bool(masks[c]), "a first mask")
    settle(ours, "front", "rear")
    assert set_parameters(ours, batch_window_ms=1000.0) == ""
    begun = time.monotonic()
    publishers[0].publish(image_message(pixels(), 3))
    ours.wait(lambda: masks["front"][-1].header.stamp.sec == 3, "a mask of one camera alone")
    assert time.monotonic() - begun > 0.9  # the other one's, waited for


def test_the_size_may_change_from_frame_to_frame(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
    for second, scale in enumerate((3, 1, 5, 2), 2):
        image = np.repeat(np.repeat(pixels(second), scale, 0), scale, 1)
        publisher.publish(image_message(image, second))
        ours.wait(lambda s=second: masks[-1].header.stamp.sec == s, "the mask")
        np.testing.assert_array_equal(to_mask(masks[-1]), image[..., 1])


def test_a_sensor_of_fewer_bits_than_its_encoding_is_said_once(active: Callable[..., Client], node_log: Path) -> None:
    ours = active()
    ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    message = image_message(pixels(), 1)
    twelve_bits = np.random.default_rng(0).integers(0, 4096, pixels().shape, np.uint16)
    message.encoding, message.step, message.data = "rgb16", 2 * message.step, twelve_bits.tobytes()
    said = "images of 16 bits in a row stay below a quarter of white"
    publish_until(ours, publisher, message, lambda: said in node_log.read_text(), "the warning")
    assert node_log.read_text().count(said) == 1


def stamped(seconds: float) -> Image:
    message = image_message(pixels(), 0)
    message.header.stamp = Time(sec=int(seconds), nanosec=int(seconds % 1 * 1e9))
    return message


def test_frames_of_the_past_are_dropped_and_those_of_the_future_are_not(
    active: Callable[..., Client], node_log: Path
) -> None:
    ours = active(max_age="0.0")
    ours.listen(DiagnosticArray, "/diagnostics")
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, stamped(time.time() - 100), lambda: bool(masks), "old, but no limit is set")
    assert set_parameters(ours, max_age=20.0) == ""
    masks.clear()
    publish_until(
        ours, publisher, stamped(time.time() - 100), lambda: ours.dropped("front", "too_old") > 1, "dropped as too old"
    )
    ours.wait(lambda: "frame too_old: its stamp is 10" in node_log.read_text(), "said in the log")
    assert not [mask for mask in masks if mask.header.stamp.sec < time.time() - 90][1:]  # one may have been in work
    for stamp in (time.time() + 1000, time.time(), 0.0):  # ahead, right, none at all
        masks.clear()
        publish_until(ours, publisher, stamped(stamp), lambda: bool(masks), f"a frame stamped {stamp}")
    ahead = says(ours, "ahead of the node's clock", DiagnosticStatus.WARN)
    publish_until(ours, publisher, stamped(time.time() + 1000), ahead, "a warning of the clocks")


def test_a_recording_that_is_played_in_a_loop(active: Callable[..., Client]) -> None:
    """Time goes from 100 s to 103 s, twice, by /clock: no frame of either time round is too old."""
    ours = active(use_sim_time="true", max_age="0.5")
    masks = ours.listen(Image, "/front/coop/mask")
    clock = connected(ours, Clock, "/clock")
    publisher = connected(ours, Image, "/front/image_raw")

    def play(second: int) -> None:
        message = image_message(pixels(), second)

        def arrived() -> bool:
            clock.publish(Clock(clock=message.header.stamp))
            return bool(masks) and masks[-1].header.stamp.sec == second

        publish_until(ours, publisher, message, arrived, f"the mask of second {second}")

    for second in (100, 101, 102, 103, 100, 101, 102, 103):
        play(second)
    before = ours.dropped("front", "too_old")
    publisher.publish(image_message(pixels(), 90))
    ours.wait(lambda: ours.dropped("front", "too_old") > before, "a frame of before the loop is too old")


def test_inputs_are_what_parameters_say(active: Callable[..., Client], node_log: Path) -> None:
    ours = active(camreas="[left]", **{"qos_overrides./frnt/image_raw.subscription.reliability": "reliable"})
    log = node_log.read_text()
    assert "parameter camreas is none of this node's and has no effect; did you mean cameras?" in log
    assert "did you mean qos_overrides./front/image_raw.subscription.reliability?" in log
    infos = ours.node.get_subscriptions_info_by_topic("/front/image_raw")
    assert [info.node_name for info in infos] == [NODE.strip("/")]
    assert infos[0].qos_profile.reliability == QOS.reliability


@pytest.mark.parametrize(("name", "value"), [("max_age", -1.0), ("jpeg_quality", 0), ("overlay_opacity", float("nan"))])
def test_defaults_outlive_a_refusal(active: Callable[..., Client], name: str, value: object) -> None:
    ours = active()
    assert name in set_parameters(ours, **{name: value})
