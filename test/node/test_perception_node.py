"""The node as its users meet it: a process of its own, spoken to over DDS."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from node_harness import (
    DOMAIN,
    LATCHED,
    NODE,
    Client,
    change_state,
    client,
    connected,
    environment,
    image_message,
    node_process,
    pixels,
    publish_until,
    set_parameters,
)
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from toy_bundle import CONDITIONS, HEIGHT, WIDTH, edit_manifest, write_toy_bundle

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.images import decode, fill_compressed, to_mask
from coop_perception.ros.lifecycle_client import LifecycleError, bring_up
from coop_perception.visualization import overlay
from coop_perception_msgs.msg import ImageCondition, ModelInfo


def test_outputs_are_the_networks_with_the_frames_header(active: Callable[..., Client]) -> None:
    ours = active()
    masks = {name: ours.listen(Image, f"/front/coop/{name}") for name in ("mask", "mask_raw", "confidence")}
    pictures = {name: ours.listen(Image, f"/front/coop/{name}") for name in ("image_restored", "overlay")}
    compressed = ours.listen(CompressedImage, "/front/coop/image_restored/compressed")
    conditions = ours.listen(ImageCondition, "/front/coop/condition")
    infos = ours.listen(CameraInfo, "/front/coop/camera_info")
    info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model="plumb_bob")
    info_publisher = connected(ours, CameraInfo, "/front/camera_info")
    publisher = connected(ours, Image, "/front/image_raw")
    image = pixels()
    image[:, : WIDTH // 2, 0] = 200  # fog, and restored
    message = image_message(image, 17)
    info.header.stamp.sec = 16  # the camera's driver sends it when it likes
    outputs = [*masks.values(), *pictures.values(), compressed, conditions, infos]

    def complete() -> bool:
        info_publisher.publish(info)  # again, as with images: the node may not have seen this publisher yet
        return all(outputs)

    publish_until(ours, publisher, message, complete, "every output of a frame")
    for output in outputs:
        assert output[-1].header == message.header
    for channel, name in enumerate(("mask_raw", "mask", "confidence")):
        assert masks[name][-1].encoding == "mono8"
        np.testing.assert_array_equal(to_mask(masks[name][-1]), image[..., channel])
    np.testing.assert_array_equal(decode(pictures["image_restored"][-1]), 255 - image)
    drawn = overlay(image, np.ascontiguousarray(image[..., 1]), CAMVID_CLASSES, 0.5)
    np.testing.assert_array_equal(decode(pictures["overlay"][-1]), drawn)
    assert np.abs(decode(compressed[-1]).astype(int) - (255 - image)).mean() < 12
    assert tuple(conditions[-1].conditions) == CONDITIONS
    assert conditions[-1].presence[0] == pytest.approx(image[..., 0].mean() / 255, abs=1e-5)
    assert conditions[-1].restoration_ran
    assert (infos[-1].width, infos[-1].height) == (WIDTH, HEIGHT)


def test_a_frame_of_another_size_keeps_its_size(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    large = np.repeat(np.repeat(pixels(), 3, 0), 3, 1)
    publish_until(ours, publisher, image_message(large, 1), lambda: bool(masks), "a mask")
    np.testing.assert_array_equal(to_mask(masks[-1]), large[..., 1])


def test_cameras_of_one_batch_do_not_mix(active: Callable[..., Client]) -> None:
    """Bursts on both cameras, each with its own subscriptions: whatever is batched, each gets its own results."""
    ours = active(cameras="[front, rear]")
    masks = {camera: ours.listen(Image, f"/{camera}/coop/mask") for camera in ("front", "rear")}
    restored = ours.listen(Image, "/rear/coop/image_restored")
    publishers = {camera: connected(ours, Image, f"/{camera}/image_raw") for camera in masks}
    for camera, publisher in publishers.items():
        first = image_message(pixels(0), 0, camera)
        publish_until(ours, publisher, first, lambda c=camera: bool(masks[c]), f"a first mask of {camera}")
    ours.wait(lambda: bool(restored), "a restored image")
    count = 30
    for second in range(1, count + 1):
        for camera, seed in (("front", second), ("rear", 1000 + second)):
            publishers[camera].publish(image_message(pixels(seed), second, camera))
    for camera in masks:
        ours.wait(lambda c=camera: masks[c][-1].header.stamp.sec == count, f"the last mask of {camera}")
    for camera, offset in (("front", 0), ("rear", 1000)):
        for mask in masks[camera]:
            assert mask.header.frame_id == camera
            if mask.header.stamp.sec:
                expected = pixels(offset + mask.header.stamp.sec)[..., 1]
                np.testing.assert_array_equal(to_mask(mask), expected)


def test_deactivate_stops_and_cleanup_lets_another_camera_be_configured(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
    assert "clean it up first" in set_parameters(ours, cameras=["left"])
    assert change_state(ours, Transition.TRANSITION_DEACTIVATE)
    ours.wait(lambda: publisher.get_subscription_count() == 0, "an inactive node subscribes to nothing")
    assert change_state(ours, Transition.TRANSITION_ACTIVATE)
    ours.wait(lambda: publisher.get_subscription_count() == 1, "an active node subscribes again")
    masks.clear()
    publish_until(ours, publisher, image_message(pixels(1), 2), lambda: bool(masks), "a mask after reactivation")

    assert change_state(ours, Transition.TRANSITION_DEACTIVATE)
    assert change_state(ours, Transition.TRANSITION_CLEANUP)
    ours.wait(lambda: ours.node.count_publishers("/front/coop/mask") == 0, "cleanup removes the outputs")
    assert set_parameters(ours, cameras=["left"]) == ""
    assert change_state(ours, Transition.TRANSITION_CONFIGURE)
    assert change_state(ours, Transition.TRANSITION_ACTIVATE)
    left = ours.listen(Image, "/left/coop/mask")
    left_publisher = connected(ours, Image, "/left/image_raw")
    publish_until(ours, left_publisher, image_message(pixels(2), 3), lambda: bool(left), "a mask of the other camera")
    np.testing.assert_array_equal(to_mask(left[-1]), pixels(2)[..., 1])


def test_a_failed_transition_leaves_nothing_behind(bundle: Path, tmp_path: Path) -> None:
    """A QoS override that is none makes the second camera's subscription fail, after the first one's was made."""
    parameters = {"cameras": "[front, rear]", "qos_overrides./rear/image_raw.subscription.reliability": "bogus"}
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", bundle=str(bundle), **parameters):
        with pytest.raises(LifecycleError, match="activate failed"):
            bring_up(ours.node, ours.executor, NODE)
        assert ours.state() == "inactive"
        ours.wait(lambda: ours.node.count_subscribers("/front/image_raw") == 0, "no subscription is left")
    assert "bogus" in (tmp_path / "log").read_text()


def test_qos_overrides_are_each_topics_own(active: Callable[..., Client]) -> None:
    ours = active(
        cameras="[front, rear]",
        **{
            "qos_overrides./rear/image_raw.subscription.reliability": "best_effort",
            "qos_overrides./front/coop/mask_raw.publisher.reliability": "best_effort",
        },
    )

    def reliability(infos: list[Any]) -> list[ReliabilityPolicy]:
        return [info.qos_profile.reliability for info in infos]

    node, policy = ours.node, ReliabilityPolicy
    ours.wait(lambda: bool(node.get_publishers_info_by_topic("/rear/coop/mask")), "the node's topics are known")
    assert reliability(node.get_subscriptions_info_by_topic("/front/image_raw")) == [policy.RELIABLE]
    assert reliability(node.get_subscriptions_info_by_topic("/rear/image_raw")) == [policy.BEST_EFFORT]
    assert reliability(node.get_subscriptions_info_by_topic("/front/camera_info")) == [policy.BEST_EFFORT]
    assert reliability(node.get_publishers_info_by_topic("/front/coop/mask_raw")) == [policy.BEST_EFFORT]
    assert reliability(node.get_publishers_info_by_topic("/front/coop/mask")) == [policy.RELIABLE]


def test_compressed_input(active: Callable[..., Client]) -> None:
    ours = active(image_transport="compressed")
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, CompressedImage, "/front/image_raw/compressed")
    message = CompressedImage()
    fill_compressed(message, pixels(), "png")
    publish_until(ours, publisher, message, lambda: bool(masks), "a mask")
    np.testing.assert_array_equal(to_mask(masks[-1]), pixels()[..., 1])


def test_every_frame_is_accounted_for(active: Callable[..., Client]) -> None:
    """Faster than any machine keeps up with: each frame is processed or dropped, the last one is processed."""
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a first mask")
    count, large = 60, pixels(3, 360, 480)

    def accounted() -> bool:
        status = ours.status("front")
        return bool(status) and status.frames_received == status.frames_processed + sum(d.count for d in status.dropped)

    ours.wait(accounted, "the first frames accounted for")
    received = ours.status("front").frames_received
    for second in range(100, 100 + count):
        publisher.publish(image_message(large, second))

    def settled() -> bool:
        status = ours.status("front")
        return status.frames_received >= received + count and accounted()

    ours.wait(lambda: bool(masks) and masks[-1].header.stamp.sec == 99 + count, "the newest frame's mask")
    ours.wait(settled, "received = processed + dropped")
    stamps = [mask.header.stamp.sec for mask in masks]
    assert stamps == sorted(stamps)
    assert [d.reason for d in ours.status("front").dropped] == ["superseded"]


def test_nothing_is_computed_for_nobody(active: Callable[..., Client]) -> None:
    ours = active()
    publisher = connected(ours, Image, "/front/image_raw")
    publisher.publish(image_message(pixels(), 1))
    ours.wait(
        lambda: any(d.reason == "unwatched" for s in [ours.status("front")] if s for d in s.dropped),
        "an unwatched frame",
    )
    assert ours.status("front").frames_processed == 0


def test_malformed_images_are_counted_and_the_node_lives_on(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")

    def malformed() -> int:
        status = ours.status("front")
        return sum(d.count for d in status.dropped if d.reason == "malformed") if status else 0

    short, unknown, empty = (image_message(pixels(), 2) for _ in range(3))
    short.data = short.data[:-7]
    unknown.encoding = "rgb7"
    empty.width = empty.step = 0
    for number, message in enumerate((short, unknown, empty), 1):
        publisher.publish(message)
        ours.wait(lambda n=number: malformed() == n, f"malformed frame {number} counted")
    publisher.publish(image_message(pixels(5), 3))
    ours.wait(lambda: masks[-1].header.stamp.sec == 3, "a mask after the malformed frames")


def test_model_info_is_latched_and_diagnostics_flow(active: Callable[..., Client], bundle: Path) -> None:
    ours = active(backend="onnxruntime")
    infos = ours.listen(ModelInfo, f"{NODE}/model_info", LATCHED)
    diagnostics = ours.listen(DiagnosticArray, "/diagnostics")
    ours.wait(lambda: bool(infos) and bool(diagnostics), "model info and diagnostics")
    info = infos[-1]
    assert (info.bundle_name, info.bundle_path, info.backend) == ("toy", str(bundle.resolve()), "onnxruntime")
    assert [(c.id, c.name, tuple(c.rgb)) for c in info.classes] == [(c.id, c.name, c.rgb) for c in CAMVID_CLASSES]
    assert diagnostics[-1].status[0].name == "/coop_perception: front"
    assert diagnostics[-1].status[0].level == DiagnosticStatus.WARN  # no image has arrived


def test_a_transition_that_the_state_does_not_allow_is_refused(active: Callable[..., Client]) -> None:
    ours = active()
    assert not change_state(ours, Transition.TRANSITION_ACTIVATE)
    publisher = connected(ours, Image, "/front/image_raw")
    masks = ours.listen(Image, "/front/coop/mask")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask all the same")


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ("threads:=many", "threads"),
        ("overlay_opacity:=7.0", "overlay_opacity"),
        ("max_age:=.nan", "max_age"),
        ("cameras:=[front, front]", "parameter cameras is ['front', 'front'], expected distinct names"),
        ("cameras:=[]", "parameter cameras is []"),
        ("cameras:=['rear cam']", "parameter cameras: 'rear cam' is no topic name"),
        ("cameras:=[/front]", "parameter cameras: '/front' is not relative; write 'front'"),
        ("image_transport:=theora", "parameter image_transport is 'theora', expected one of raw, compressed"),
    ],
)
def test_a_parameter_that_cannot_be_taken_ends_in_one_line(parameter: str, says: str) -> None:
    command = [sys.executable, "-m", "coop_perception.commands.perception_node", "--ros-args", "-p", parameter]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(DOMAIN))
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_interrupt_ends_the_node_cleanly(bundle: Path, tmp_path: Path) -> None:
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", bundle=str(bundle)) as process:
        bring_up(ours.node, ours.executor, NODE)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("changes", "parameters", "says"),
    [
        ({"format": 7}, {}, "format is 7"),
    ],
)
def test_what_cannot_be_configured_is_said_and_stays_unconfigured(
    tmp_path: Path, changes: dict[str, object], parameters: dict[str, str], says: str
) -> None:
    directory = write_toy_bundle(tmp_path / "toy")
    edit_manifest(directory, **changes)
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", bundle=str(directory), **parameters):
        with pytest.raises(LifecycleError, match="configure failed"):
            bring_up(ours.node, ours.executor, NODE)
        assert ours.state() == "unconfigured"
    assert says in (tmp_path / "log").read_text()


def test_compressed_picture_decodes_as_others_would(active: Callable[..., Client]) -> None:
    ours = active()
    compressed = ours.listen(CompressedImage, "/front/coop/image_restored/compressed")
    publisher = connected(ours, Image, "/front/image_raw")
    flat = np.full((HEIGHT, WIDTH, 3), (200, 120, 40), np.uint8)  # fog, and restored
    publish_until(ours, publisher, image_message(flat, 1), lambda: bool(compressed), "a compressed image")
    bgr = cv2.imdecode(np.frombuffer(compressed[-1].data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(bgr[..., ::-1].astype(int) - (255 - flat)).max() <= 3
