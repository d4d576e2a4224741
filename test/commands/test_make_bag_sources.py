"""make_bag: several conditions and cameras, schedules, videos, depth, other classes, and recordings made adverse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from making_bags import HEIGHT, STREET, WIDTH, make, refusal, write_pairs
from toy_bundle import edit_manifest, write_toy_bundle

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES
from coop_perception.commands.make_bag import main
from coop_perception.degradations import CONDITIONS, degrade, degrade_by
from coop_perception.degradations.depth import depth_from_labels, ground_plane_depth
from coop_perception.images import decode, to_depth, to_mask
from coop_perception.recordings.cameras import find_image_topic
from coop_perception.recordings.messages import (
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    TYPES,
    applied_levels,
    compressed_image_message,
    image_message,
)
from coop_perception.recordings.recording import Recording
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.sample_scene.drive import SampleDrive

STRING_TYPE = "std_msgs/msg/String"


def images(found: dict[str, list[Any]], topic: str) -> list[np.ndarray]:
    return [decode(message) for _, message in found[topic]]


def changed(found: dict[str, list[Any]]) -> list[bool]:
    """Whether each frame is another than its reference."""
    pairs = zip(images(found, "/front/image_raw"), images(found, "/front/reference/image"), strict=True)
    return [bool((seen != clear).any()) for seen, clear in pairs]


def applied(found: dict[str, list[Any]], camera: str = "front") -> list[dict[str, float]]:
    """What the recording says was applied to each frame, by level."""
    return [applied_levels(message) for _, message in found[f"/{camera}/reference/condition"]]


def schedule(folder: Path, segments: list[dict[str, object]], **others: object) -> Path:
    path = folder / "schedule.yaml"
    path.write_text(yaml.safe_dump({**others, "segments": segments}))
    return path


def test_several_conditions_at_once(tmp_path: Path) -> None:
    """On the sample drive, in light's order, with a level for each."""
    arguments = ("--condition", "jpeg", "--condition", "fog", "--level", 1, "--level", 3, "--frames", 1, "--seed", 2)
    found = make(tmp_path / "bag", *arguments)
    drive = SampleDrive(2, 480, 360, 15)
    frame = drive.frame(0)
    parameters = {"fog": CONDITIONS["fog"].levels[2], "jpeg": CONDITIONS["jpeg"].levels[0]}
    expected = degrade_by(frame.image, parameters, seed=2, depth=frame.depth, intrinsics=drive.intrinsics)
    np.testing.assert_array_equal(images(found, "/front/image_raw")[0], expected)
    np.testing.assert_array_equal(images(found, "/front/reference/image")[0], frame.image)
    assert applied(found) == [{"jpeg": 1.0, "fog": 3.0}]


def test_one_level_for_all_of_them(tmp_path: Path) -> None:
    folder, _ = write_pairs(tmp_path)
    arguments = ("--images", folder, "--frames", 1, "--condition", "gaussian_blur", "--condition", "gaussian_noise")
    once = make(tmp_path / "once", *arguments, "--level", 3)
    each = make(tmp_path / "each", *arguments, "--level", 3, "--level", 3)
    np.testing.assert_array_equal(images(once, "/front/image_raw"), images(each, "/front/image_raw"))


@pytest.mark.parametrize("unit", ["seconds", "share"])
def test_a_schedule_on_images(tmp_path: Path, unit: str) -> None:
    """Ten frames at 10 Hz: a second."""
    folder, labels = write_pairs(tmp_path, 10)
    path = schedule(
        tmp_path,
        [
            {"condition": "fog", "start": 0.2, "end": 0.5, "level": [0, 3]},
            {"condition": "jpeg", "start": 0.4, "end": 0.8, "parameter": 12},
        ],
        unit=unit,
    )
    arguments = ("--images", folder, "--labels", labels, "--rate", 10, "--schedule", path, "--seed", 4)
    found = make(tmp_path / "bag", *arguments)
    assert changed(found) == [False] * 3 + [True] * 5 + [False] * 2  # the ramp begins at level 0
    np.testing.assert_array_equal(
        images(found, "/front/image_raw")[5],
        degrade_by(images(found, "/front/reference/image")[5], {"jpeg": 12}, seed=4, frame=5),
    )
    told = applied(found)
    assert told[:3] == [{}, {}, {"fog": 0.0}]
    assert told[3] == {"fog": pytest.approx(1.0)}
    assert told[4:] == [{"fog": pytest.approx(2.0), "jpeg": pytest.approx(2.0)}, *[{"jpeg": 2.0}] * 3, {}, {}]
    assert [stamp for stamp, _ in found["/front/reference/condition"]] == [s for s, _ in found["/front/image_raw"]]
    again = make(tmp_path / "again", *arguments)
    np.testing.assert_array_equal(images(again, "/front/image_raw"), images(found, "/front/image_raw"))


def test_a_schedule_on_the_sample_drive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    segment = {"condition": "rain", "start": 0.1, "end": 20, "level": 2}
    found = make(tmp_path / "bag", "--frames", 3, "--rate", 10, "--schedule", schedule(tmp_path, [segment]))
    assert changed(found) == [False, True, True]
    drive = SampleDrive(0, 480, 360, 10)
    frame = drive.frame(2)
    expected = degrade(frame.image, "rain", 2, seed=0, frame=2, depth=frame.depth, intrinsics=drive.intrinsics)
    np.testing.assert_array_equal(images(found, "/front/image_raw")[2], expected)
    said = capsys.readouterr().err
    assert "3 frames, rain by" in said
    assert "goes on to 20 s, the recording ends after 0.3 s" in said


def test_a_schedule_that_does_not_fit(tmp_path: Path) -> None:
    folder, _ = write_pairs(tmp_path)
    out, path = tmp_path / "bag", schedule(tmp_path, [{"condition": "fog", "start": 0, "end": 1, "level": 9}])
    assert f"{path}: segments[0].level is 9, expected" in refusal(out, "--schedule", path)
    path.write_text("{segments: [{condition: fog, start: 0, end: 1, level: 1}]}")
    assert "give --labels as well" in refusal(out, "--images", folder, "--schedule", path)
    assert "without --condition" in refusal(out, "--schedule", path, "--condition", "jpeg")
    assert "no-such.yaml" in refusal(out, "--schedule", tmp_path / "no-such.yaml")


def test_several_cameras_on_the_sample_drive(tmp_path: Path) -> None:
    arguments = ("--camera", "front", "--camera", "left/rear", "--frames", 2, "--depth", "--seed", 3)
    found = make(tmp_path / "bag", *arguments)
    names = ("camera_info", "depth/image_raw", "image_raw", "reference/image", "reference/mask")
    assert sorted(found) == sorted(f"/{camera}/{name}" for camera in ("front", "left/rear") for name in names)
    for camera, seed in (("front", 3), ("left/rear", 4)):
        drive = SampleDrive(seed, 480, 360, 15)
        for index in range(2):
            frame = drive.frame(index)
            np.testing.assert_array_equal(images(found, f"/{camera}/image_raw")[index], frame.image)
            depth = found[f"/{camera}/depth/image_raw"][index][1]
            np.testing.assert_array_equal(to_depth(depth), frame.depth)
            assert depth.header.frame_id == f"{camera.replace('/', '_')}_optical_frame"
    for messages in found.values():
        assert [stamp for stamp, _ in messages] == [stamp for stamp, _ in found["/front/image_raw"]]


def test_depth_is_no_camera(tmp_path: Path) -> None:
    make(tmp_path / "bag", "--frames", 1, "--depth")
    with Recording(tmp_path / "bag") as recording:
        assert find_image_topic(recording) == "/front/image_raw"


def test_several_cameras_of_folders(tmp_path: Path) -> None:
    """One has more images: the other one ends earlier."""
    first, first_labels = write_pairs(tmp_path / "first", 2)
    second, second_labels = write_pairs(tmp_path / "second", 3)
    found = make(
        tmp_path / "bag",
        *("--camera", "a", "--images", first, "--labels", first_labels),
        *("--camera", "b", "--images", second, "--labels", second_labels),
    )
    assert {topic: len(found[topic]) for topic in ("/a/image_raw", "/b/image_raw", "/b/reference/mask")} == {
        "/a/image_raw": 2,
        "/b/image_raw": 3,
        "/b/reference/mask": 3,
    }
    out = tmp_path / "other"
    assert "1 --images for 2 --camera" in refusal(out, "--camera", "a", "--camera", "b", "--images", first)
    assert "expected distinct names" in refusal(out, "--camera", "a", "--camera", "a")


def test_depth_from_labels(tmp_path: Path) -> None:
    folder, labels = write_pairs(tmp_path)
    found = make(tmp_path / "bag", "--images", folder, "--labels", labels, "--depth", "--frames", 1)
    clear, mask = images(found, "/front/image_raw")[0], to_mask(found["/front/reference/mask"][0][1])
    expected = depth_from_labels(mask, clear, Intrinsics.from_fov(WIDTH, HEIGHT))
    np.testing.assert_array_equal(to_depth(found["/front/depth/image_raw"][0][1]), expected)
    assert "give --labels as well" in refusal(tmp_path / "other", "--images", folder, "--depth")
    ready_made = ("--images", folder, "--references", folder, "--labels", labels)
    assert "does not go with --references" in refusal(tmp_path / "other", *ready_made, "--depth")


def write_video(path: Path, count: int = 12, rate: float = 25.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), rate, (64, 48))
    assert writer.isOpened()
    for index in range(count):
        writer.write(np.full((48, 64, 3), (20 * index, 128, 255 - 20 * index), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("name", ["drive.mp4", "drive %02d #1.mp4"])
def test_a_video(tmp_path: Path, name: str) -> None:
    found = make(tmp_path / "bag", "--images", write_video(tmp_path / name))
    stamps = [stamp for stamp, _ in found["/front/image_raw"]]
    assert np.diff(stamps).tolist() == [40_000_000] * 11
    assert sorted(found) == ["/front/camera_info", "/front/image_raw", "/front/reference/image"]
    for index, image in enumerate(images(found, "/front/image_raw")):
        assert np.abs(image.mean((0, 1)) - (255 - 20 * index, 128, 20 * index)).max() < 8  # RGB, in order


def test_a_video_under_a_condition_at_another_rate(tmp_path: Path) -> None:
    arguments = ("--images", write_video(tmp_path / "drive.mp4"), "--rate", 10, "--frames", 4, "--condition", "jpeg")
    found = make(tmp_path / "bag", *arguments)
    assert np.diff([stamp for stamp, _ in found["/front/image_raw"]]).tolist() == [100_000_000] * 3
    assert changed(found) == [True] * 4


def test_videos_that_cannot_be_used(tmp_path: Path) -> None:
    video, out = write_video(tmp_path / "drive.mp4"), tmp_path / "bag"
    _, labels = write_pairs(tmp_path)
    assert "is a video" in refusal(out, "--images", video, "--labels", labels)
    assert "needs depth" in refusal(out, "--images", video, "--condition", "fog")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    assert "broken.mp4: no frame can be read as a video" in refusal(out, "--images", broken)


def test_videos_of_several_cameras_have_one_rate(tmp_path: Path) -> None:
    slow, fast = (write_video(tmp_path / f"{rate}.mp4", 3, rate) for rate in (10, 20))
    arguments = ("--camera", "a", "--images", slow, "--camera", "b", "--images", fast)
    assert "differ (a 10, b 20): give --rate" in refusal(tmp_path / "bag", *arguments)
    found = make(tmp_path / "bag", *arguments, "--rate", 20)
    assert [stamp for stamp, _ in found["/a/image_raw"]] == [stamp for stamp, _ in found["/b/image_raw"]]


def test_a_bundles_classes(tmp_path: Path) -> None:
    """Labels are its ids, depth is made up from its road and sky, and the drive's masks are translated by name."""
    bundle, names = write_toy_bundle(tmp_path / "toy"), ("road", "sky", "moose")
    edit_manifest(bundle, classes=[{"id": i, "name": name, "rgb": [i, i, i]} for i, name in enumerate(names)])
    folder, labels = write_pairs(tmp_path)
    for path in labels.iterdir():
        cv2.imwrite(str(path), np.repeat([1, 2, 0, 0], HEIGHT // 4)[:, np.newaxis] + np.zeros((1, WIDTH), np.uint8))
    arguments = ("--images", folder, "--labels", labels, "--frames", 1, "--condition", "fog")
    found = make(tmp_path / "bag", *arguments, "--bundle", bundle)
    assert np.unique(to_mask(found["/front/reference/mask"][0][1])).tolist() == [0, 1, 2]
    clear = images(found, "/front/reference/image")[0]
    as_camvid = np.where(STREET == 1, 255, STREET).astype(np.uint8)  # a moose stands upright
    intrinsics = Intrinsics.from_fov(WIDTH, HEIGHT)
    expected = degrade(clear, "fog", 2, seed=0, depth=depth_from_labels(as_camvid, clear, intrinsics))
    np.testing.assert_array_equal(images(found, "/front/image_raw")[0], expected)
    drive = make(tmp_path / "drive", "--frames", 1, "--bundle", bundle)
    true, mask = SampleDrive(0, 480, 360, 15).frame(0).mask, to_mask(drive["/front/reference/mask"][0][1])
    ids = {c.name.lower(): c.id for c in CAMVID_CLASSES}
    np.testing.assert_array_equal(mask == 0, true == ids["road"])
    np.testing.assert_array_equal(mask == 1, true == ids["sky"])
    assert set(np.unique(mask)) == {0, 1, 255}
    edit_manifest(bundle, classes=[{"id": i, "name": f"part{i}", "rgb": [i, i, i]} for i in range(3)])
    assert "do not say which of them are ground" in refusal(tmp_path / "other", *arguments, "--bundle", bundle)


def test_a_recording_made_adverse(tmp_path: Path) -> None:
    """Its depth is used; all else in it is the same, byte for byte, at the same times."""
    clear = tmp_path / "clear"
    main(["--out", str(clear), "--frames", "4", "--rate", "10", "--depth", "--seed", "5"])
    path = schedule(tmp_path, [{"condition": "fog", "start": 0.15, "end": 9, "level": 2}])
    found = make(tmp_path / "bag", "--bag", clear, "--schedule", path, "--seed", 7)
    assert changed(found) == [False, False, True, True]
    with Recording(clear) as before, Recording(tmp_path / "bag") as after:
        changing = ("/front/image_raw", "/front/reference/condition")
        kept = [[m for m in recording.messages() if m.topic not in changing] for recording in (before, after)]
        assert sorted(kept[0], key=str) == sorted(kept[1], key=str)
    drive = SampleDrive(5, 480, 360, 10)
    frame = drive.frame(3)
    expected = degrade(frame.image, "fog", 2, seed=7, frame=3, depth=frame.depth, intrinsics=drive.intrinsics)
    np.testing.assert_array_equal(images(found, "/front/image_raw")[3], expected)
    assert applied(found) == [{}, {}, {"fog": 2.0}, {"fog": 2.0}]
    twice = make(tmp_path / "twice", "--bag", tmp_path / "bag", "--condition", "jpeg", "--level", 1)
    assert applied(twice) == [{"jpeg": 1.0}] * 2 + [{"fog": 2.0, "jpeg": 1.0}] * 2


def foreign(path: Path, count: int = 4, broken: int = 0) -> Path:
    """A recording of a vehicle: JPEG images at uneven times, of a camera without calibration, and something else."""
    with RecordingWriter(path) as writer:
        for index in range(count):
            stamp = (100 + index) * 10**9 + index * 1000
            image = np.random.default_rng(index).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            message = compressed_image_message(image, "png", "cam", stamp)
            if index < broken:
                message.data = message.data[:40]
            writer.write("/cam/image_raw/compressed", message, COMPRESSED_IMAGE_TYPE, stamp + 5)
            writer.write("/said", TYPES.types[STRING_TYPE](f"{index}"), STRING_TYPE, stamp + 6)
    return path


def test_a_vehicles_recording_made_adverse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without depth and masks the street is empty, which is said; the clear images become references."""
    found = make(tmp_path / "bag", "--bag", foreign(tmp_path / "given"), "--condition", "fog", "--condition", "jpeg")
    assert {topic: len(messages) for topic, messages in found.items()} == {
        "/cam/image_raw/compressed": 4,
        "/cam/reference/condition": 4,
        "/cam/reference/image": 4,
        "/said": 4,
    }
    for index, (stamp, message) in enumerate(found["/cam/image_raw/compressed"]):
        assert stamp == (100 + index) * 10**9 + index * 1000 + 5
        assert (message.header.stamp.sec, message.header.frame_id) == (100 + index, "cam")
    intrinsics = Intrinsics.from_fov(WIDTH, HEIGHT)
    clear = images(found, "/cam/reference/image")
    np.testing.assert_array_equal(clear[1], np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    parameters = {name: CONDITIONS[name].levels[1] for name in ("fog", "jpeg")}
    depth = ground_plane_depth(intrinsics)
    expected = degrade_by(clear[1], parameters, seed=0, frame=1, depth=depth, intrinsics=intrinsics)
    seen = images(found, "/cam/image_raw/compressed")[1]
    assert np.abs(seen.astype(int) - expected).mean() < np.abs(seen.astype(int) - clear[1]).mean() / 4  # JPEG again
    said = capsys.readouterr().err
    assert "depth is that of an empty, level street" in said
    assert "a horizontal field of view of 60 degrees is assumed" in said


def test_images_that_cannot_be_decoded_stay_and_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--condition", "jpeg", "--bag")
    make(tmp_path / "few", *arguments, foreign(tmp_path / "given", 20, broken=1))
    assert "1 of 20 images of /cam/image_raw/compressed cannot be decoded and stay as they are" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit) as stopped:
        make(tmp_path / "many", *arguments, foreign(tmp_path / "worse", 4, broken=3))
    assert stopped.value.code == 4
    assert "3 of 4 images of" in capsys.readouterr().err
    with Recording(tmp_path / "many") as recording:
        assert recording.topics["/cam/image_raw/compressed"].count == 4


def test_a_schedule_that_says_nothing_of_a_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its images were logged before the clock ran and after, or all of them before the first segment."""
    given = tmp_path / "given"
    with RecordingWriter(given) as writer:
        for stamp in (0, 0, 1_700_000_000 * 10**9, 1_700_000_001 * 10**9):
            image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
            writer.write("/front/image_raw", image_message(image, "rgb8", "front", stamp), IMAGE_TYPE, stamp)
    late = {"condition": "jpeg", "start": 500, "end": 900, "level": 2}
    for segment, bag, says in (
        (
            {**late, "start": 0.5},
            given,
            "were logged up to 1700000000 s apart, so the schedule's seconds were not the drive's",
        ),
        (late, foreign(tmp_path / "foreign"), "none of 4 images of /cam/image_raw/compressed is within the schedule"),
    ):
        out = tmp_path / "out"
        with pytest.raises(SystemExit) as stopped:
            make(out, "--bag", bag, "--schedule", schedule(tmp_path, [segment]), "--force")
        assert stopped.value.code == 4
        assert says in capsys.readouterr().err
    assert changed(make(tmp_path / "always", "--bag", given, "--condition", "gaussian_noise")) == [True] * 4


def test_masks_in_a_recording_give_its_depth(tmp_path: Path) -> None:
    given = tmp_path / "given"
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with RecordingWriter(given) as writer:
        writer.write("/front/image_raw", image_message(image, "rgb8", "front", 10**9), IMAGE_TYPE, 10**9)
        mask = image_message(STREET.astype(np.uint8), "mono8", "front", 10**9)
        writer.write("/front/reference/mask", mask, IMAGE_TYPE, 10**9)
    found = make(tmp_path / "bag", "--bag", given, "--condition", "fog")
    depth = depth_from_labels(STREET.astype(np.uint8), image, Intrinsics.from_fov(WIDTH, HEIGHT))
    np.testing.assert_array_equal(images(found, "/front/image_raw")[0], degrade(image, "fog", 2, seed=0, depth=depth))


def test_what_does_not_go_with_a_recording(tmp_path: Path) -> None:
    bag, out = foreign(tmp_path / "given"), tmp_path / "bag"
    assert "give --condition or --schedule" in refusal(out, "--bag", bag)
    assert "--frames does not go with --bag" in refusal(out, "--bag", bag, "--condition", "jpeg", "--frames", 2)
    assert "there is no topic /rear" in refusal(out, "--bag", bag, "--condition", "jpeg", "--topic", "/rear")
    assert "--image-topic is one of --bag's" in refusal(out, "--image-topic", "/front/image_raw")
    assert "choose another place" in refusal(bag, "--bag", bag, "--condition", "jpeg", "--force")
    assert "no such recording" in refusal(out, "--bag", tmp_path / "absent", "--condition", "jpeg")
