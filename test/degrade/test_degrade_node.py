"""The degrade node as its users meet it: a process of its own, spoken to over DDS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node_harness import (
    DEADLINE,
    DOMAIN,
    NODE,
    QOS,
    Client,
    client,
    environment,
    executable,
    image_message,
    node_process,
)
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from toy_bundle import write_toy_bundle

from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.depth import ground_plane_depth
from coop_perception.degrade.node import MOST_NOTES
from coop_perception.images import decode, fill_compressed, to_mask
from coop_perception.ros.lifecycle_client import bring_up

WIDTH, HEIGHT = 96, 72
CAMERA = Intrinsics(WIDTH, HEIGHT, 90.0, 90.0, 47.5, 30.0)
NANOSECONDS = 5
"""Of the stamps that image_message makes."""
RELIABLE = {"reliability": "reliable", "depth": 100}


def degrade_process(log: Path, **parameters: object) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return executable("degrade_node", DOMAIN, log, **parameters)


@pytest.fixture
def ours() -> Iterator[Client]:
    it = Client(DOMAIN)
    it.spin()
    try:
        yield it
    finally:
        it.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "degrade.log"


def connected(ours: Client, kind: type, topic: str) -> Publisher:
    publisher = ours.node.create_publisher(kind, topic, QOS)
    ours.wait(lambda: publisher.get_subscription_count() == 1, f"the node subscribes to {topic}")
    return publisher


def clean(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def camera_info(second: int) -> CameraInfo:
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", k=CAMERA.k())
    info.header.stamp.sec = second
    info.header.frame_id = "front_optical_frame"
    return info


def depth_message(metres: np.ndarray, second: int) -> Image:
    message = Image(height=metres.shape[0], width=metres.shape[1], encoding="32FC1", step=4 * metres.shape[1])
    message.data = metres.astype("<f4").tobytes()
    message.header = image_message(clean(), second).header
    return message


def expected(image: np.ndarray, second: int, condition: str, level: int, **scene: Any) -> np.ndarray:
    stamp = second * 10**9 + NANOSECONDS
    return degrade(image, condition, level, seed=3, frame=stamp, intrinsics=CAMERA, **scene)


def receive(ours: Client, messages: list[Any], second: int, send: Callable[[], object]) -> Any:
    """What comes of the frame with a stamp; sent anew until it is there, as discovery may still be under way."""

    def arrived() -> list[Any]:
        return [message for message in messages if message.header.stamp.sec == second]

    def sent() -> bool:
        send()
        return bool(arrived())

    ours.wait(lambda: bool(arrived()) or sent(), f"the image of second {second}")
    return arrived()[0]


def test_fog_by_the_depth_image_of_the_same_stamp(ours: Client, log: Path) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    references = ours.listen(Image, "/front/reference/image")
    infos = ours.listen(CameraInfo, "/front/camera_info")
    depth = np.linspace(2, 90, WIDTH * HEIGHT, dtype=np.float32).reshape(HEIGHT, WIDTH)
    with degrade_process(log, condition="fog", level=2, seed=3, depth_image="true"):
        images = connected(ours, Image, "/front/clean/image_raw")
        depths = connected(ours, Image, "/front/depth/image_raw")
        info = connected(ours, CameraInfo, "/front/clean/camera_info")
        receive(ours, infos, 7, lambda: info.publish(camera_info(7)))
        image = clean()

        def send() -> None:
            images.publish(image_message(image, 7))
            depths.publish(depth_message(np.ones_like(depth), 6))
            depths.publish(depth_message(depth, 7))

        message = receive(ours, adverse, 7, send)
        reference = receive(ours, references, 7, send)
    np.testing.assert_array_equal(decode(message), expected(image, 7, "fog", 2, depth=depth))
    assert message.header == image_message(image, 7).header
    np.testing.assert_array_equal(decode(reference), image)
    assert reference.header == message.header
    assert infos[-1] == camera_info(7)
    assert "stands in" not in log.read_text()


def test_fog_without_depth_is_that_of_an_empty_street_and_said(ours: Client, log: Path) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    infos = ours.listen(CameraInfo, "/front/camera_info")
    with degrade_process(log, condition="fog", level=3, seed=3, camera_height=2.0):
        info = connected(ours, CameraInfo, "/front/clean/camera_info")
        receive(ours, infos, 1, lambda: info.publish(camera_info(1)))
        images = connected(ours, Image, "/front/clean/image_raw")
        message = receive(ours, adverse, 1, lambda: images.publish(image_message(clean(), 1)))
    plane = ground_plane_depth(CAMERA, 2.0)
    np.testing.assert_array_equal(decode(message), expected(clean(), 1, "fog", 3, depth=plane))
    assert "camera front: no depth image: an empty, level street 2 m below the camera stands in" in log.read_text()


def test_a_frame_whose_depth_never_comes_goes_on_with_the_next(ours: Client, log: Path) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    with degrade_process(log, condition="rain", level=1, depth_image="true"):
        images = connected(ours, Image, "/front/clean/image_raw")
        second = iter(range(1, 1000))
        ours.wait(lambda: images.publish(image_message(clean(), next(second))) or bool(adverse), "an image")
    assert "no depth image" in log.read_text()


def set_parameters(ours: Client, atomically: bool = False, **values: object) -> list[str]:
    """The reasons for refusing, empty texts where it did not."""
    kind, name = (SetParametersAtomically, "_atomically") if atomically else (SetParameters, "")
    service = ours.node.create_client(kind, f"/degrade/set_parameters{name}")
    assert service.wait_for_service(DEADLINE)
    parameters = [Parameter(key, value=value).to_parameter_msg() for key, value in values.items()]
    future = service.call_async(kind.Request(parameters=parameters))
    ours.wait(future.done, "an answer to set_parameters")
    ours.node.destroy_client(service)
    results = [future.result().result] if atomically else future.result().results
    assert all(result.successful == (not result.reason) for result in results)
    return [str(result.reason) for result in results]


def test_condition_and_level_change_with_the_next_frame_and_wrong_ones_are_refused(ours: Client, log: Path) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    with degrade_process(log, condition="fog", level=3, seed=3):
        images = connected(ours, Image, "/front/clean/image_raw")

        def send(second: int) -> np.ndarray:
            return decode(receive(ours, adverse, second, lambda: images.publish(image_message(clean(second), second))))

        send(1)
        assert set_parameters(ours, True, condition="gaussian_noise", level=4) == [""]
        np.testing.assert_array_equal(send(2), expected(clean(2), 2, "gaussian_noise", 4))
        assert set_parameters(ours, level=5) == [
            "level is 5, expected 1 to 4 for gaussian_noise, or 0 for the unchanged image"
        ]
        assert set_parameters(ours, condition="fog") == [
            "level is 4, expected 1 to 3 for fog, or 0 for the unchanged image"
        ]
        (reason,) = set_parameters(ours, condition="snow")
        assert all(name in reason for name in ("snow", *CONDITIONS))
        (reason,) = set_parameters(ours, image_transport="compressed")
        assert "read-only" in reason
        np.testing.assert_array_equal(send(3), expected(clean(3), 3, "gaussian_noise", 4))
        assert set_parameters(ours, seed=4) == [""]
        assert np.any(send(4) != expected(clean(4), 4, "gaussian_noise", 4))
        assert set_parameters(ours, level=0) == [""]
        np.testing.assert_array_equal(send(5), clean(5))


def test_compressed_in_compressed_out(ours: Client, log: Path) -> None:
    adverse = ours.listen(CompressedImage, "/front/image_raw/compressed")
    references = ours.listen(Image, "/front/reference/image")
    smooth = np.full((HEIGHT, WIDTH, 3), (200, 120, 40), np.uint8)
    message = CompressedImage(header=image_message(smooth, 1).header)
    fill_compressed(message, smooth, "png")
    with degrade_process(log, condition="gaussian_blur", level=1, image_transport="compressed"):
        images = connected(ours, CompressedImage, "/front/clean/image_raw/compressed")
        blurred = decode(receive(ours, adverse, 1, lambda: images.publish(message)))
        reference = receive(ours, references, 1, lambda: images.publish(message))
    assert np.abs(blurred.astype(int) - smooth).max() <= 3  # JPEG's
    np.testing.assert_array_equal(decode(reference), smooth)


def test_cameras_have_their_own_noise(ours: Client, log: Path) -> None:
    adverse = {camera: ours.listen(Image, f"/{camera}/image_raw") for camera in ("front", "rear")}
    with degrade_process(log, cameras="[front, rear]", condition="gaussian_noise", level=1):
        for camera, messages in adverse.items():
            images = connected(ours, Image, f"/{camera}/clean/image_raw")
            receive(ours, messages, 1, lambda publish=images.publish: publish(image_message(clean(), 1)))
    front, rear = (decode(messages[0]) for messages in adverse.values())
    assert np.any(front != rear)


def short_image(second: int) -> tuple[Image, Image]:
    image = image_message(clean(), second)
    image.data = image.data[:-7]
    return image, depth_message(np.ones((HEIGHT, WIDTH), np.float32), second)


def unknown_encoding(second: int) -> tuple[Image, Image]:
    image = image_message(clean(), second)
    image.encoding = "rgb7"
    return image, depth_message(np.ones((HEIGHT, WIDTH), np.float32), second)


def small_depth(second: int) -> tuple[Image, Image]:
    return image_message(clean(), second), depth_message(np.ones((3, 4), np.float32), second)


def negative_stamp_and_no_depth_encoding(second: int) -> tuple[Image, Image]:
    image, depth = image_message(clean(), -second), depth_message(np.ones((HEIGHT, WIDTH), np.float32), -second)
    depth.encoding = "rgb8"
    return image, depth


@pytest.mark.parametrize(
    "malformed", [short_image, unknown_encoding, small_depth, negative_stamp_and_no_depth_encoding]
)
def test_malformed_messages_are_said_and_the_node_lives_on(
    ours: Client, log: Path, malformed: Callable[[int], tuple[Image, Image]]
) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    topics = "/front/clean/image_raw", "/front/depth/image_raw"
    overrides = {f"qos_overrides.{topic}.subscription.{k}": v for topic in topics for k, v in RELIABLE.items()}
    with degrade_process(log, condition="fog", level=1, seed=3, depth_image="true", **overrides):
        images, depths = (connected(ours, Image, topic) for topic in topics)
        info = connected(ours, CameraInfo, "/front/clean/camera_info")

        def send(image: Image, depth: Image) -> None:
            info.publish(camera_info(1))
            images.publish(image)
            depths.publish(depth)

        right = image_message(clean(), 1), depth_message(np.ones((HEIGHT, WIDTH), np.float32), 1)
        foggy = expected(clean(), 1, "fog", 1, depth=np.ones((HEIGHT, WIDTH), np.float32))
        ours.wait(
            lambda: send(*right) or any(np.array_equal(decode(message), foggy) for message in adverse),
            "the fog of the depth image, so both topics are connected",
        )
        send(*malformed(2))  # once: an image after it would have the waiting one go on without its depth
        ours.wait(lambda: "frame malformed" in log.read_text(), "a warning")
        for message in right:
            message.header.stamp.sec = 3
        receive(ours, adverse, 3, lambda: send(*right))
    assert "Traceback" not in log.read_text()
    assert not [message for message in adverse if message.header.stamp.sec not in (1, 3)]


def test_what_no_camera_sends_is_neither_sent_on_nor_written_without_end(ours: Client, log: Path) -> None:
    """A camera_info and a frame_id of megabytes, and a camera_info of another focal length each time."""
    adverse, infos = ours.listen(Image, "/front/image_raw"), ours.listen(CameraInfo, "/front/camera_info")
    topics = "/front/clean/image_raw", "/front/clean/camera_info"
    overrides = {f"qos_overrides.{topic}.subscription.{k}": v for topic in topics for k, v in RELIABLE.items()}
    with degrade_process(log, condition="fog", level=1, **overrides):
        images, info = connected(ours, Image, topics[0]), connected(ours, CameraInfo, topics[1])
        receive(ours, adverse, 1, lambda: images.publish(image_message(clean(), 1)))
        ours.wait(lambda: info.publish(camera_info(1)) or bool(infos), "a camera_info")
        info.publish(CameraInfo(d=[0.0] * 100_000))
        images.publish(image_message(clean(), 2, "x" * 1_000_000))
        ours.wait(lambda: "frame malformed: its frame_id has 1000000 characters" in log.read_text(), "a warning")
        for count in range(2 * MOST_NOTES):
            odd = camera_info(10 + count)
            odd.k = [1.0 + 0.01 * count] * 9
            # The node has it before the image comes.
            receive(ours, infos, 10 + count, lambda odd=odd: info.publish(odd))  # type: ignore[misc]
            receive(ours, adverse, 10 + count, lambda: images.publish(image_message(clean(), 10 + count)))  # noqa: B023
        receive(ours, infos, 3, lambda: info.publish(camera_info(3)))
    assert "a camera_info has 800000 bytes" in log.read_text()
    assert not [message for message in infos if len(message.d) > 14]
    assert not [message for message in adverse if message.header.stamp.sec == 2]
    assert MOST_NOTES / 2 < log.read_text().count("60 degrees is assumed") <= MOST_NOTES


def test_what_cannot_keep_up_drops_older_frames_and_counts_them(ours: Client, log: Path) -> None:
    adverse = ours.listen(Image, "/front/image_raw")
    large = np.zeros((720, 1280, 3), np.uint8)
    count = 30
    overrides = {f"qos_overrides./front/clean/image_raw.subscription.{k}": v for k, v in RELIABLE.items()}
    with degrade_process(log, condition="rain", level=3, **overrides):
        images = connected(ours, Image, "/front/clean/image_raw")
        receive(ours, adverse, 1, lambda: images.publish(image_message(large[:8, :8], 1)))
        for second in range(2, 2 + count):
            images.publish(image_message(large, second))
        ours.wait(lambda: adverse[-1].header.stamp.sec == 1 + count, "the newest frame's image")
        ours.wait(lambda: "superseded" in log.read_text(), "a report of what was dropped")
    reported = [line for line in log.read_text().splitlines() if "superseded" in line][-1]
    counts = {what: int(n) for n, what in (entry.split() for entry in reported.partition("front: ")[2].split(", "))}
    assert (
        counts["received"] - sum(n for what, n in counts.items() if what != "received") <= 2
    )  # one under way, one waiting
    assert counts["superseded"] > 0
    stamps = [message.header.stamp.sec for message in adverse]
    assert stamps == sorted(stamps)


def test_feeds_the_perception_node_without_remapping(log: Path, tmp_path: Path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    with (
        client(DOMAIN) as ours,
        degrade_process(log, condition="fog", level=2, seed=3),
        node_process(DOMAIN, tmp_path / "node.log", bundle=str(bundle)),
    ):
        bring_up(ours.node, ours.executor, NODE)
        masks = ours.listen(Image, "/front/coop/mask")
        ours.spin()
        images = connected(ours, Image, "/front/clean/image_raw")
        message = receive(ours, masks, 1, lambda: images.publish(image_message(clean() // 24, 1)))
    assert to_mask(message).shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("level:=7", "level is 7, expected 1 to 3 for fog"),
        ("condition:=snow", "condition is 'snow', expected one of gaussian_blur"),
        ("seed:=many", "seed"),
        ("image_transport:=theora", "image_transport is 'theora'"),
        ("cameras:=[front, front]", "parameter cameras is ['front', 'front']"),
        ("cameras:=['rear cam']", "'rear cam' is no topic name"),
    ],
)
def test_wrong_parameters_end_in_one_line(parameter: str, says: str) -> None:
    command = [sys.executable, "-m", "coop_perception.commands.degrade_node", "--ros-args", "-p", parameter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(DOMAIN))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
