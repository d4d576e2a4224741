"""The command make_bag."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from making_bags import HEIGHT, STREET, WIDTH, make, refusal, write_pairs
from PIL import Image

from coop_perception.classes import IGNORE_ID
from coop_perception.commands.make_bag import main
from coop_perception.degradations import CONDITIONS
from coop_perception.images import decode, to_mask
from coop_perception.recordings.cameras import find_image_topic
from coop_perception.recordings.messages import CAMERA_INFO_TYPE, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.recordings.recording import Recording
from coop_perception.sample_scene.drive import SampleDrive


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_sample_drive(tmp_path, storage):
    found = make(tmp_path / "drive", "--frames", 3, "--rate", 10, "--storage", storage)
    assert {topic: len(messages) for topic, messages in found.items()} == {
        "/front/image_raw": 3,
        "/front/camera_info": 3,
        "/front/reference/image": 3,
        "/front/reference/mask": 3,
    }
    first = found["/front/image_raw"][0][0]
    for messages in found.values():
        assert [stamp for stamp, _ in messages] == [first, first + 10**8, first + 2 * 10**8]
        for stamp, message in messages:
            assert message.header.stamp.sec * 10**9 + message.header.stamp.nanosec == stamp
            assert message.header.frame_id == "front_optical_frame"
            assert (message.width, message.height) == (480, 360)
    clear = [decode(message) for _, message in found["/front/image_raw"]]
    np.testing.assert_array_equal(clear, [decode(message) for _, message in found["/front/reference/image"]])
    assert (clear[0] != clear[2]).any()
    masks = [to_mask(message) for _, message in found["/front/reference/mask"]]
    assert set(np.unique(masks)) <= {*range(11), IGNORE_ID}
    info = found["/front/camera_info"][0][1]
    assert info.k[0] == info.p[0] > 100
    with Recording(tmp_path / "drive") as recording:
        assert find_image_topic(recording) == "/front/image_raw"


def test_fog_in_the_sample_drive_hides_what_is_far(tmp_path):
    found = make(tmp_path / "drive", "--frames", 1, "--condition", "fog", "--level", 1)
    foggy, clear = (decode(found[topic][0][1]) for topic in ("/front/image_raw", "/front/reference/image"))
    depth = SampleDrive(0, 480, 360, 15).frame(0).depth
    beta = CONDITIONS["fog"].levels[0]
    assert np.abs(foggy[depth < 10].astype(int) - clear[depth < 10]).max() <= 255 * (1 - np.exp(-beta * 10)) + 1
    assert np.ptp(foggy[np.isinf(depth)], axis=0).max() <= 1 < np.ptp(clear[np.isinf(depth)], axis=0).max()


def test_equal_arguments_give_equal_recordings_and_seeds_differ(tmp_path):
    images, _ = write_pairs(tmp_path)
    arguments = ("--images", images, "--condition", "gaussian_noise", "--level", 1)
    first, second, other = (
        [decode(message) for _, message in make(tmp_path / name, *arguments, "--seed", seed)["/front/image_raw"]]
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    np.testing.assert_array_equal(first, second)
    assert (first[0] != other[0]).any()


@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_conditions_change_the_image_and_leave_the_reference(tmp_path, condition):
    images, labels = write_pairs(tmp_path)
    arguments = ("--images", images, "--labels", labels, "--frames", 1)
    clear = make(tmp_path / "clear", *arguments)
    adverse = make(tmp_path / "adverse", *arguments, "--condition", condition, "--level", 1)
    worse = make(tmp_path / "worse", *arguments, "--condition", condition, "--level", len(CONDITIONS[condition].levels))

    def image(found: dict[str, list[Any]], topic: str) -> np.ndarray:
        return decode(found[topic][0][1]).astype(float)

    reference = image(clear, "/front/reference/image")
    np.testing.assert_array_equal(image(adverse, "/front/reference/image"), reference)
    np.testing.assert_array_equal(image(worse, "/front/reference/image"), reference)
    errors = [np.square(image(found, "/front/image_raw") - reference).mean() for found in (clear, adverse, worse)]
    assert errors[0] == 0 < errors[1] < errors[2]


def test_folder_with_labels(tmp_path):
    images, labels = write_pairs(tmp_path)
    found = make(tmp_path / "bag", "--images", images, "--labels", labels, "--camera", "car/left")
    assert sorted(found) == [
        f"/car/left/{name}" for name in ("camera_info", "image_raw", "reference/image", "reference/mask")
    ]
    for index, (_, message) in enumerate(found["/car/left/image_raw"]):
        expected = cv2.cvtColor(cv2.imread(str(images / f"f{index}.png")), cv2.COLOR_BGR2RGB)
        np.testing.assert_array_equal(decode(message), expected)
        assert message.header.frame_id == "car_left_optical_frame"
    mask = to_mask(found["/car/left/reference/mask"][0][1])
    assert mask[0, 0] == IGNORE_ID
    np.testing.assert_array_equal(mask[1:], STREET[1:])
    info = found["/car/left/camera_info"][0][1]
    assert (info.width, info.height, info.k[2]) == (WIDTH, HEIGHT, (WIDTH - 1) / 2)


def test_files_of_fewer_bits_than_they_have_room_for_are_told(tmp_path, capsys):
    images, _ = write_pairs(tmp_path)
    cv2.imwrite(str(images / "f1.png"), np.full((HEIGHT, WIDTH, 3), 4095, np.uint16))
    make(tmp_path / "bag", "--images", images)
    assert "front: 1 of 3 images are nearly black" in capsys.readouterr().err


def test_folder_without_labels_has_no_reference_mask(tmp_path):
    images, _ = write_pairs(tmp_path)
    found = make(tmp_path / "bag", "--images", images, "--frames", 2)
    assert {topic: len(messages) for topic, messages in found.items()} == {
        "/front/image_raw": 2,
        "/front/camera_info": 2,
        "/front/reference/image": 2,
    }


def test_images_that_lie_on_their_sides_are_recorded_as_their_labels_show_them(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    exif = Image.Exif()
    exif[274] = 6
    for folder in (images, labels):
        folder.mkdir()
    Image.new("RGB", (40, 30)).save(images / "0.jpg", exif=exif)
    Image.new("L", (30, 40)).save(labels / "0.png")
    found = make(tmp_path / "bag", "--images", images, "--labels", labels)
    assert decode(found["/front/image_raw"][0][1]).shape == (40, 30, 3)
    assert to_mask(found["/front/reference/mask"][0][1]).shape == (40, 30)


def test_compressed(tmp_path):
    images, labels = write_pairs(tmp_path)
    found = make(tmp_path / "bag", "--images", images, "--labels", labels, "--compressed")
    with Recording(tmp_path / "bag") as recording:
        assert {topic: info.type for topic, info in recording.topics.items()} == {
            "/front/image_raw/compressed": COMPRESSED_IMAGE_TYPE,
            "/front/camera_info": CAMERA_INFO_TYPE,
            "/front/reference/image": IMAGE_TYPE,
            "/front/reference/mask": IMAGE_TYPE,
        }
    assert decode(found["/front/image_raw/compressed"][0][1]).shape == (HEIGHT, WIDTH, 3)


def broken_image(images: Path, labels: Path) -> str:
    (images / "f1.png").write_bytes(b"\x89PNG\r\n")
    return "f1.png"


def missing_label(images: Path, labels: Path) -> str:
    (labels / "f1.png").unlink()
    return "f1.png"


def label_of_another_size(images: Path, labels: Path) -> str:
    cv2.imwrite(str(labels / "f1.png"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    return "33x24"


def unknown_label(images: Path, labels: Path) -> str:
    cv2.imwrite(str(labels / "f1.png"), np.full((HEIGHT, WIDTH), 12, np.uint8))
    return "12"


def coloured_label(images: Path, labels: Path) -> str:
    cv2.imwrite(str(labels / "f1.png"), np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
    return "holds [7, 7, 7]"


def another_size(images: Path, labels: Path) -> str:
    cv2.imwrite(str(images / "f1.png"), np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))
    cv2.imwrite(str(labels / "f1.png"), np.zeros((HEIGHT, WIDTH + 2), np.uint8))
    return "34x24"


@pytest.mark.parametrize(
    "spoil",
    [broken_image, missing_label, label_of_another_size, unknown_label, coloured_label, another_size],
)
def test_bad_pairs_are_named(tmp_path, spoil):
    images, labels = write_pairs(tmp_path)
    found = spoil(images, labels)
    text = refusal(tmp_path / "bag", "--images", images, "--labels", labels, "--condition", "fog", "--level", 1)
    assert "f1.png" in text
    assert found in text


def test_options_that_do_not_go_together(tmp_path):
    images, labels = write_pairs(tmp_path)
    out = tmp_path / "bag"
    assert "labels" in refusal(out, "--images", images, "--condition", "fog")
    assert "--images" in refusal(out, "--labels", labels)
    assert "--condition" in refusal(out, "--level", 1)
    for level in (0, len(CONDITIONS["fog"].levels) + 1):
        assert f"levels 1 to {len(CONDITIONS['fog'].levels)}" in refusal(out, "--condition", "fog", "--level", level)
    assert "no such folder" in refusal(out, "--images", tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no image" in refusal(out, "--images", empty)


@pytest.mark.parametrize(
    "arguments",
    [("--rate", "0"), ("--rate", "inf"), ("--frames", "0"), ("--frames", "x"), ("--seed", "-1"), ("--camera", "../x")],
)
def test_impossible_values_are_usage_errors(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as error:
        main(["--out", str(tmp_path / "bag"), *arguments])
    assert error.value.code == 2
    assert f"argument {arguments[0]}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_earlier_recordings_are_replaced_on_demand_only(tmp_path):
    images, _ = write_pairs(tmp_path)
    out = tmp_path / "bag"
    make(out, "--images", images, "--frames", 1)
    assert "--force" in refusal(out, "--images", images)
    assert len(make(out, "--images", images, "--force")["/front/image_raw"]) == 3
    assert "no recording" in refusal(images, "--images", images, "--force")


def test_a_killed_run_leaves_no_recording(tmp_path):
    out = tmp_path / "bag"
    run = "from coop_perception.commands.make_bag import main; main()"
    arguments = [sys.executable, "-c", run, "--out", str(out), "--frames", "100000"]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    try:
        while not any(path.stat().st_size > 2**20 for path in tmp_path.rglob("*.mcap")):
            with pytest.raises(subprocess.TimeoutExpired):  # it is still at work
                process.wait(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not out.exists()
    images, _ = write_pairs(tmp_path)
    make(out, "--images", images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "images", "labels"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("name", ["run #3", "what? now", "%41", "a&b=c"])
def test_a_folder_of_any_name(tmp_path, storage, name):
    images, _ = write_pairs(tmp_path)
    out = tmp_path / f"below {name}" / name
    assert len(make(out, "--images", images, "--storage", storage)["/front/image_raw"]) == 3
    suffix = ".mcap" if storage == "mcap" else ".db3"
    assert sorted(path.name for path in out.iterdir()) == sorted([f"{name}{suffix}", "metadata.yaml"])
    assert [path.name for path in out.parent.iterdir()] == [name]
    assert f"{name}{suffix}" in (out / "metadata.yaml").read_text()


def test_a_recording_with_other_things_in_its_folder_is_not_replaced(tmp_path):
    images, _ = write_pairs(tmp_path)
    out = tmp_path / "bag"
    make(out, "--images", images)
    images.rename(out / "images")
    refused = refusal(out, "--images", out / "images", "--force")
    assert "bag holds images, which is no part of a recording" in refused


def test_interrupted_it_ends_with_130(tmp_path, monkeypatch, capsys):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coop_perception.recordings.making.degrade_by", stop)
    with pytest.raises(SystemExit) as stopped:
        main(["--out", str(tmp_path / "bag"), "--condition", "fog", "--frames", "1"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "make_bag: interrupted; no recording was made"


def test_ready_made_pairs(tmp_path: Path) -> None:
    """Adverse images as the camera's, clean ones and their labels as references."""
    adverse, clean, labels = (tmp_path / name for name in ("adverse", "clean", "labels"))
    for folder in (adverse, clean, labels):
        folder.mkdir()
    pictures = [np.random.default_rng(index).integers(0, 256, (16, 24, 3), np.uint8) for index in range(2)]
    for index, image in enumerate(pictures):
        cv2.imwrite(str(clean / f"{index}.png"), image[..., ::-1])
        cv2.imwrite(str(adverse / f"{index}_rain.png"), (image // 2)[..., ::-1])
        cv2.imwrite(str(labels / f"{index}.png"), np.full((16, 24), index, np.uint8))
    out = tmp_path / "bag"
    main(["--out", str(out), "--images", str(adverse), "--references", str(clean), "--labels", str(labels)])
    with Recording(out) as recording:
        found: dict[str, list[np.ndarray]] = {}
        for message in recording.messages():
            if message.type == "sensor_msgs/msg/Image":
                decoded = recording.deserialize(message)
                found.setdefault(message.topic, []).append(decoded.data.reshape(16, 24, -1))
    np.testing.assert_array_equal(found["/front/image_raw"], [image // 2 for image in pictures])
    np.testing.assert_array_equal(found["/front/reference/image"], pictures)
    assert [np.unique(mask).tolist() for mask in found["/front/reference/mask"]] == [[0], [1]]
    assert "without --condition" in refusal(out, "--images", adverse, "--references", clean, "--condition", "jpeg")
    cv2.imwrite(str(clean / "1.png"), pictures[1][:8])
    (labels / "1.png").unlink()
    cv2.imwrite(str(labels / "1.png"), np.zeros((8, 24), np.uint8))
    assert "is 24x8, the first image 24x16" in refusal(tmp_path / "other", "--images", adverse, "--references", clean)
