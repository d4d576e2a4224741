"""evaluate_bag and demo on small recordings whose scores are known."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from node_harness import DOMAIN, NODE, RELIABLE, client, environment, node_process
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image
from small_recording import COUNT, SECOND, picture, write_bag, write_malformed_bag
from toy_bundle import HEIGHT, WIDTH, edit_manifest, rewrite_network, write_toy_bundle

from coop_perception.camera import Intrinsics
from coop_perception.classes import IGNORE_ID
from coop_perception.commands import demo, evaluate_bag
from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.journal import Journal
from coop_perception.evaluation.results import check
from coop_perception.evaluation.table import read_parquet
from coop_perception.exit_codes import INCOMPLETE, INTERRUPTED
from coop_perception.metrics import psnr
from coop_perception.model.bundle import load_bundle
from coop_perception.recordings.frames import frames, header_stamp, with_header_stamp
from coop_perception.recordings.making import Request
from coop_perception.recordings.messages import (
    CAMERA_INFO_TYPE,
    IMAGE_TYPE,
    camera_info_message,
    image_message,
)
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.ros.lifecycle_client import bring_up
from coop_perception_msgs.msg import ImageCondition, ModelInfo, ModelNetwork


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def run(*arguments: object) -> None:
    evaluate_bag.main([str(argument) for argument in arguments])


def check_scores(summary: dict, stages: Collection[str] = ("segmenter", "refinement", "restoration")) -> None:
    raw = np.mean([np.mean(picture(i)[..., 0] == picture(i)[..., 1]) for i in range(COUNT)])
    assert summary["mask"]["pa"] == summary["mask"]["miou"] == 1.0
    assert summary["mask_raw"]["pa"] == pytest.approx(raw)
    assert summary["image_restored"] == {"psnr": 60.0, "ssim": pytest.approx(1.0)}
    expected = np.mean([psnr(255 - picture(i), picture(i)) for i in range(COUNT)])
    assert summary["image_degraded"]["psnr"] == pytest.approx(expected)
    assert set(summary["stages_ms"]) == set(stages)
    assert summary["latency_ms"]["p50"] <= summary["latency_ms"]["p95"] <= summary["latency_ms"]["p99"]
    condition = summary["condition"]
    assert (condition["estimated"], condition["clear"], condition["restoration_ran"]) == (COUNT, 0, 1.0)
    assert {name: of["frames"] for name, of in condition["conditions"].items()} == {"rain": COUNT, "fog": 0}


def test_names_from_outside_are_neither_markup_nor_orders_to_a_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "x[/b]\x1b[2J"
    bundle = write_toy_bundle(folder / "toy")
    bag = write_bag(folder / "bag[bold]\x1b[2J")
    run(bag, "--bundle", bundle, "--out", folder / "out")
    with pytest.raises(SystemExit, match=r"x\[/b\]\\x1b\[2J/none"):
        run(folder / "none", "--bundle", bundle, "--out", folder / "out")
    said = "".join(capfd.readouterr())
    assert r"bag[bold]\x1b[2J" in said
    assert "\x1b[2J" not in said


def test_paths_that_are_no_text_do_not_cost_the_results(tmp_path: Path) -> None:
    """Alone, as one of many, gone on with, and compared; bytes that are no character are escaped in what is written."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    bundle = write_toy_bundle(folder / "toy")
    for name in (b"/\xfe", b"/\xfd"):
        write_bag(Path(os.fsdecode(os.fsencode(folder / "bags") + name)))
    for out, *options in (("one",), ("one", "--resume"), ("many",), ("many", "--resume")):
        bags = sorted((folder / "bags").iterdir())
        run(*bags[: 1 if out == "one" else 2], "--bundle", bundle, "--out", folder / out, *options)
    run("compare", folder / "one", folder / "one", "--out", folder / "compared", "--markdown", folder / "gates.md")
    summary = json.loads((folder / "many/summary.json").read_text())
    assert [bag["name"] for bag in summary["bags"]] == [r"\udcfd", r"\udcfe"]
    for page in ("one/report.html", "many/report.html", "compared/compare.html"):
        assert r"\udc" in (folder / page).read_text()


@pytest.mark.parametrize("compressed", [False, True])
def test_offline_scores(tmp_path: Path, bundle: Path, compressed: bool) -> None:
    bag, out = write_bag(tmp_path / "bag", compressed=compressed), tmp_path / "out"
    run(bag, "--bundle", bundle, "--out", out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == {"read": COUNT, "processed": COUNT, "dropped": 0, "failed": 0}
    check_scores(summary)
    assert (out / "overview.png").stat().st_size > 0
    assert (out / "report.html").stat().st_size > 0


def test_malformed_frames_are_dropped_and_counted(tmp_path: Path, bundle: Path) -> None:
    options = (write_malformed_bag(tmp_path / "bag"), "--bundle", bundle, "--out", tmp_path / "out")
    with pytest.raises(SystemExit) as stopped:
        run(*options)
    assert stopped.value.code == INCOMPLETE
    run(*options, "--force", "--allow-incomplete")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert "1 of 4 images could not be used (malformed 1)" in summary["warnings"]
    assert summary["frames"] == {"read": 4, "processed": 3, "dropped": 1, "failed": 0}
    assert summary["dropped_by_reason"] == {"malformed": 1}
    assert "mask" not in summary  # no reference, no score


def test_sensors_of_fewer_bits_than_their_encoding_are_told(tmp_path: Path, bundle: Path) -> None:
    """Twelve bits in sixteen, but for one frame: what the networks get is nearly black."""
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(3):
            samples = np.full((HEIGHT, WIDTH, 1), 4095 if index else 65535, "<u2")
            message = image_message(samples.view(np.uint8).reshape(HEIGHT, 2 * WIDTH), "mono8", "front", index * SECOND)
            message.encoding, message.width = "mono16", WIDTH
            writer.write("/front/image_raw", message, IMAGE_TYPE, index * SECOND)
    run("--bag", tmp_path / "bag", "--bundle", bundle, "--out", tmp_path / "out")
    (warning,) = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert warning.startswith("frame 1 and 1 more: /front/image_raw: 16 bits that stay below a quarter of white")
    assert "below a quarter of white" in (tmp_path / "out" / "report.html").read_text()


def test_references_that_cannot_be_used_are_missing_ones(tmp_path: Path, bundle: Path) -> None:
    """Damaged in the middle of a recording whose images are whole; and images were lost before it was written."""
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(COUNT):
            stamp = index * SECOND
            mask = image_message(np.ascontiguousarray(picture(index)[..., 1]), "mono8", "front", stamp)
            if index in (3, 4):
                mask.data = mask.data[:-3]
            image = image_message(picture(index), "rgb8", "front", stamp)
            writer.write("/front/image_raw", image, IMAGE_TYPE, stamp)
            writer.write("/front/reference/mask", mask, IMAGE_TYPE, stamp)
            for tenth in range(2):
                info = camera_info_message(Intrinsics.from_fov(WIDTH, HEIGHT), "front", stamp)
                writer.write("/front/camera_info", info, CAMERA_INFO_TYPE, stamp + tenth * SECOND // 10)
    with pytest.raises(SystemExit) as stopped:
        run("--bag", tmp_path / "bag", "--bundle", bundle, "--out", tmp_path / "out")  # as demo takes it
    assert stopped.value.code == INCOMPLETE
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert f"2 of {COUNT} reference masks of front cannot be used" in summary["warnings"]
    assert [
        w for w in summary["warnings"] if f"has {2 * COUNT} camera_info and {COUNT} images on /front/image_raw" in w
    ]
    assert summary["mask"]["pa"] == 1.0


def test_a_cut_recording_is_evaluated_up_to_the_damage(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag")
    storage = next(bag.glob("*.mcap"))
    storage.write_bytes(storage.read_bytes()[: storage.stat().st_size * 2 // 3])
    options = (bag, "--bundle", bundle, "--out", tmp_path / "out")
    with pytest.raises(SystemExit) as stopped:
        run(*options)
    assert stopped.value.code == INCOMPLETE
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    read = summary["frames"]["read"]
    assert 0 < read < COUNT
    said = " ".join(capsys.readouterr().err.split())
    assert "damaged recording" in said
    assert f"evaluate_bag: incomplete: only {read} of {COUNT} messages on /front/image_raw can be read; --allow" in said
    run(*options, "--force", "--allow-incomplete")


def no_bag(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    return tmp_path / "none", bundle


def without_images(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    with RecordingWriter(tmp_path / "bag") as writer:
        info = camera_info_message(Intrinsics.from_fov(WIDTH, HEIGHT), "front", 0)
        writer.write("/front/camera_info", info, CAMERA_INFO_TYPE, 0)
    return tmp_path / "bag", bundle


def altered_bundle(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    (bundle / "segmenter.onnx").write_bytes(b"no network")
    return write_bag(tmp_path / "bag"), bundle


def other_classes(tmp_path: Path, bundle: Path) -> tuple[Path, Path]:
    edit_manifest(bundle, classes=[{"id": 0, "name": "Road", "rgb": [1, 2, 3]}])
    return write_bag(tmp_path / "bag"), bundle


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (no_bag, "there is no such recording"),
        (without_images, "there is no image topic"),
        (altered_bundle, "segmenter.onnx: altered"),
        (other_classes, "expected .* for 1 classes"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line(
    tmp_path: Path, bundle: Path, case: Callable[[Path, Path], tuple[Path, Path]], says: str
) -> None:
    bag, bundle = case(tmp_path, bundle)
    with pytest.raises(SystemExit, match=says) as stopped:
        run(bag, "--bundle", bundle, "--out", tmp_path / "out")
    assert str(stopped.value.code).startswith("evaluate_bag: ")
    assert "\n" not in str(stopped.value.code)


def test_masks_without_a_class_are_no_references(tmp_path: Path, bundle: Path) -> None:
    """All 255: frames that nobody labelled, or labels read by another's ids. Five of eight frames have one."""
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(COUNT):
            stamp = index * SECOND
            writer.write("/front/image_raw", image_message(picture(index), "rgb8", "front", stamp), IMAGE_TYPE, stamp)
            if index < 5:
                mask = picture(index)[..., 1] if index < 3 else np.full((HEIGHT, WIDTH), IGNORE_ID, np.uint8)
                message = image_message(np.ascontiguousarray(mask), "mono8", "front", stamp)
                writer.write("/front/reference/mask", message, IMAGE_TYPE, stamp)
    with pytest.raises(SystemExit) as stopped:
        run("--bag", tmp_path / "bag", "--bundle", bundle, "--out", tmp_path / "out")
    assert stopped.value.code == INCOMPLETE
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"] == [
        "2 of 5 reference masks of front cannot be used",
        f"only 5 of {COUNT} frames of front have a reference mask",
        "frame 3 and 1 more: reference mask: no pixel is of a class, all are 255",
    ]


def test_references_that_metadata_promises_and_nothing_holds_are_told(tmp_path: Path, bundle: Path) -> None:
    whole, bag = write_bag(tmp_path / "whole" / "bag"), tmp_path / "bag"
    with Recording(whole) as recording, RecordingWriter(bag) as writer:
        for message in recording.messages(["/front/image_raw"]):
            writer.write(message.topic, message.raw, message.type, message.stamp_ns)
    shutil.copy(whole / "metadata.yaml", bag)
    with pytest.raises(SystemExit) as stopped:
        run("--bag", bag, "--bundle", bundle, "--out", tmp_path / "out")
    assert stopped.value.code == INCOMPLETE
    warnings = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert f"metadata.yaml says {COUNT} messages on /front/reference/mask, and none is there" in warnings


def test_a_start_behind_the_last_frame_is_said(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(SystemExit, match="no frame could be processed; --start and --end leave out every one"):
        run(write_bag(tmp_path / "bag"), "--bundle", bundle, "--out", tmp_path / "out", "--start", "100")


def test_frames_without_stamps_are_all_read(tmp_path: Path, bundle: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(5):
            mask = image_message(np.ascontiguousarray(picture(index)[..., 1]), "mono8", "front", 0)
            writer.write("/front/image_raw", image_message(picture(index), "rgb8", "front", 0), IMAGE_TYPE, index)
            writer.write("/front/reference/mask", mask, IMAGE_TYPE, index)
    run(tmp_path / "bag", "--bundle", bundle, "--out", tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["frames"]["processed"] == 5
    assert summary["mask"]["pa"] == 1.0


def write_references(path: Path, images: list[int], references: list[int]) -> Path:
    """Images and true masks logged in turn, with header stamps (ns) of their own."""
    with RecordingWriter(path) as writer:
        for index, (image, reference) in enumerate(zip(images, references, strict=True)):
            mask = image_message(np.ascontiguousarray(picture(index)[..., 1]), "mono8", "front", reference)
            message = image_message(picture(index), "rgb8", "front", image)
            writer.write("/front/image_raw", message, IMAGE_TYPE, index * SECOND // 10)
            writer.write("/front/reference/mask", mask, IMAGE_TYPE, index * SECOND // 10)
    return path


NONE = "none of 10 references has the stamp of an image (images 0, references 1700000000 ...): /front/reference/mask"
SOME = "only 4 of 10 references have the stamp of an image (images 1 ..., references 104.5 ...): /front/reference/mask"
MOST = "only 9 of 10 references have the stamp of an image (images 1 ..., references 109.5): /front/reference/mask"


@pytest.mark.parametrize(
    ("images", "references", "warning", "status"),
    [
        ([0] * 10, [1_700_000_000 * SECOND + i for i in range(10)], NONE, INCOMPLETE),
        (
            [(i + 1) * SECOND for i in range(10)],
            [(i + 1) * SECOND if i < 4 else (i + 100) * SECOND + SECOND // 2 for i in range(10)],
            SOME,
            INCOMPLETE,
        ),
        (
            [(i + 1) * SECOND for i in range(10)],
            [(i + 1) * SECOND if i < 9 else (i + 100) * SECOND + SECOND // 2 for i in range(10)],
            MOST,
            0,
        ),
    ],
)
def test_references_that_match_no_image_are_told(
    tmp_path: Path,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    images: list[int],
    references: list[int],
    warning: str,
    status: int,
) -> None:
    bag, out = write_references(tmp_path / "bag", images, references), tmp_path / "out"
    options = (bag, "--bundle", bundle, "--out", out)
    if status:
        with pytest.raises(SystemExit) as stopped:
            run(*options)
        assert stopped.value.code == status
    run(*options, "--force", "--allow-incomplete")
    assert f"warning: {warning}\n" in capsys.readouterr().err
    assert json.loads((out / "summary.json").read_text())["warnings"][0] == warning
    assert warning in (out / "report.html").read_text()


def test_references_without_any_image_that_can_be_read(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bag = write_references(tmp_path / "bag", [0], [5])
    messages = Recording.messages
    monkeypatch.setattr(Recording, "messages", lambda self, _: messages(self, ["/front/reference/mask"]))
    says = "no frame could be processed; only 0 of 1 messages on /front/image_raw can be read"
    with pytest.raises(SystemExit, match=says):
        run(bag, "--bundle", bundle, "--out", tmp_path / "out")


def test_results_of_another_run_are_replaced_on_demand_only(tmp_path: Path, bundle: Path) -> None:
    bag, out = write_bag(tmp_path / "bag"), tmp_path / "out"
    out.mkdir()
    (out / "overview.png").write_bytes(b"of another run")
    (out / "notes.txt").touch()
    options = (bag, "--bundle", bundle, "--out", out)
    with pytest.raises(SystemExit, match=r"evaluate_bag: .*out holds overview\.png of another run; .*\(--force\)"):
        run(*options)
    assert (out / "overview.png").read_bytes() == b"of another run"
    run(*options, "--force")
    made = {"frames.parquet", "overview.png", "report.html", "summary.json"}
    assert {path.name for path in out.iterdir()} == made | {"notes.txt"}


def test_a_folder_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_bag, "evaluate_offline", lambda *_: pytest.fail("it was worked"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"Not a directory.*file/out"):
        run(write_bag(tmp_path / "bag"), "--bundle", bundle, "--out", tmp_path / "file/out")


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_recording_is_not_played_to_where_it_lies(tmp_path: Path, bundle: Path, force: tuple[str, ...]) -> None:
    bag = write_bag(tmp_path / "out/outputs")
    before = sorted(bag.iterdir())
    for read in (bag, bag / "outputs.mcap"):
        for command, mode in ((evaluate_bag, ["--live"]), (demo, [])):
            named = [str(read)] if command is evaluate_bag else ["--bag", str(read)]
            options = [*named, "--bundle", str(bundle), "--out", str(tmp_path / "out"), *mode, *force]
            with pytest.raises(SystemExit, match=r"is read, and .*outputs written; choose another --out"):
                command.main(options)
    assert sorted(bag.iterdir()) == before


def test_demo_leaves_what_was_recorded_on_the_road(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    road, made = write_bag(tmp_path / "out/recording"), []
    before = {path: path.read_bytes() for path in road.iterdir()}

    def make(request: Request) -> None:
        made.append(request.out)
        raise RecordingError("that is enough")

    monkeypatch.setattr(demo, "make_recording", make)
    with pytest.raises(SystemExit, match="that is enough"):
        demo.main(["--bundle", str(bundle), "--out", str(tmp_path / "out"), "--force"])
    assert made == [tmp_path / "out/sample_drive"]
    assert {path: path.read_bytes() for path in road.iterdir()} == before


def test_interrupted_results_are_of_what_was_done(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append = Journal.append

    def stopped_in_the_fourth(self: Journal, *arguments: Any) -> None:
        if self.rows == 3:
            raise KeyboardInterrupt
        append(self, *arguments)

    monkeypatch.setattr(Journal, "append", stopped_in_the_fourth)
    with pytest.raises(SystemExit) as stopped:
        run(write_bag(tmp_path / "bag"), "--bundle", bundle, "--out", tmp_path / "out")
    assert stopped.value.code == INTERRUPTED
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["frames"] == {"read": 3, "processed": 3, "dropped": 0, "failed": 0}
    assert summary["warnings"] == ["interrupted after 3 of 8 frames"]
    said = capsys.readouterr().err.splitlines()[-1]
    done = f"the results in {tmp_path / 'out'} are of what was done before; --resume goes on"
    assert said == f"evaluate_bag: interrupted; {done}"


def test_a_frame_that_is_unaccounted_for_is_an_error() -> None:
    summary = {"frames": {"read": 4, "processed": 1, "dropped": 1, "failed": 1}, "incomplete": []}
    with pytest.raises(EvaluationError, match="1 of 4 frames are unaccounted for"):
        check(summary, allow_incomplete=True)


def write_recorded_outputs(
    path: Path, bundle: Path, answered: Collection[int] = range(COUNT), stamped: bool = True
) -> Path:
    """What a recorder beside the toy bundle's node writes: outputs of some frames, 25 ms after these. Header stamps are
    the times of logging, or not set."""
    types = get_typestore(Stores.ROS2_JAZZY)
    write_bag(path)
    with Recording(path) as recording:
        inputs = list(recording.messages())
    shutil.rmtree(path)
    networks = [
        ModelNetwork(name=name, sha256=network.sha256) for name, network in load_bundle(bundle).networks.items()
    ]
    info = ModelInfo(bundle_name="toy", bundle_path="/there", backend="onnxruntime", device="cpu", networks=networks)
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:

        def write(topic: str, raw: bytes, kind: str, logged: int) -> None:
            own = kind.startswith("coop_perception_msgs")
            found = [connection for connection in writer.connections if connection.topic == topic]
            definition = {"msgdef": "", "rihs01": "unknown"} if own else {"typestore": types}
            writer.write(found[0] if found else writer.add_connection(topic, kind, **definition), logged, raw)

        model = "coop_perception_msgs/msg/ModelInfo"
        write("/coop_perception/model_info", serialize_message(info), model, inputs[0].stamp_ns)
        for message in inputs:
            stamp = message.stamp_ns if stamped else 0
            write(message.topic, with_header_stamp(message.raw, stamp), message.type, message.stamp_ns)
            index = (message.stamp_ns - 100 * SECOND) // (SECOND // 10)
            if message.topic != "/front/image_raw" or index not in answered:
                continue
            image = picture(index)
            for name, pixels, encoding in (
                ("mask_raw", image[..., 0], "mono8"),
                ("mask", image[..., 1], "mono8"),
                ("image_restored", 255 - image, "rgb8"),
            ):
                output = image_message(np.ascontiguousarray(pixels), encoding, "front", stamp)
                raw = bytes(types.serialize_cdr(output, IMAGE_TYPE))
                write(f"/front/coop/{name}", raw, IMAGE_TYPE, message.stamp_ns + 25_000_000)
            rainy, strong = [0.0, 0.9], [0.0, 0.5]
            found = ImageCondition(
                conditions=["fog", "rain"],
                presence=rainy,
                strength=strong,
                presence_filtered=rainy,
                strength_filtered=strong,
                familiarity=1.0,
                familiarity_filtered=1.0,
                restoration_ran=True,
            )
            found.header.stamp.sec, found.header.stamp.nanosec = divmod(stamp, 10**9)
            condition = serialize_message(found)
            kind = "coop_perception_msgs/msg/ImageCondition"
            write("/front/coop/condition", condition, kind, message.stamp_ns + 25_000_000)
    return path


@pytest.mark.parametrize("answered", [COUNT, COUNT - 3])
def test_outputs_recorded_beside_the_node_are_scored(tmp_path: Path, bundle: Path, answered: int) -> None:
    bag = write_recorded_outputs(tmp_path / "bag", bundle, range(answered))
    options = ("--recorded", bag, "--bundle", bundle, "--out", tmp_path / "out")
    if answered < COUNT:
        with pytest.raises(SystemExit) as stopped:
            run(*options)
        assert stopped.value.code == INCOMPLETE
    run(*options, "--force", "--allow-incomplete")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["mode"] == "recorded"
    assert summary["frames"] == {"read": COUNT, "processed": answered, "dropped": COUNT - answered, "failed": 0}
    assert summary["dropped_by_reason"] == ({"unanswered": 3} if answered < COUNT else {})
    assert summary["latency_ms"]["p50"] == pytest.approx(25.0)
    assert summary["mask"]["pa"] == 1.0
    said = f"the node answered only {answered} of {COUNT} images"
    assert (said in summary["warnings"]) == (answered < COUNT)
    if answered == COUNT:
        check_scores(summary, stages=())


@pytest.mark.parametrize("answered", [range(COUNT), [0, 1, 4, 7]])
def test_outputs_of_frames_without_stamps_are_scored(tmp_path: Path, bundle: Path, answered: Collection[int]) -> None:
    bag = write_recorded_outputs(tmp_path / "bag", bundle, answered, stamped=False)
    run("--recorded", bag, "--bundle", bundle, "--out", tmp_path / "out", "--allow-incomplete")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["frames"] == {
        "read": COUNT,
        "processed": len(answered),
        "dropped": COUNT - len(answered),
        "failed": 0,
    }
    assert summary["latency_ms"]["p99"] == pytest.approx(25.0)
    assert summary["mask"]["pa"] == 1.0  # each with its own frame's


def test_recordings_without_outputs_or_of_another_bundle_are_refused(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(SystemExit, match=r"does not hold /front/coop/mask_raw, .* record:=DIR"):
        run("--recorded", write_bag(tmp_path / "inputs"), "--bundle", bundle, "--out", tmp_path / "out")
    bag = write_recorded_outputs(tmp_path / "bag", bundle)
    other = write_toy_bundle(tmp_path / "other")
    rewrite_network(other, "segmenter", onnx.load(other / "refinement.onnx"))
    with pytest.raises(SystemExit, match="/coop_perception runs bundle /there, whose networks are not those of"):
        run("--recorded", bag, "--bundle", other, "--out", tmp_path / "out")


def test_outputs_of_two_bundles_are_refused(tmp_path: Path, bundle: Path) -> None:
    """The node exchanged its bundle while it was recorded."""
    bag = write_recorded_outputs(tmp_path / "bag", bundle)
    with Recording(bag) as recording:
        messages = list(recording.messages())
    shutil.rmtree(bag)
    types = get_typestore(Stores.ROS2_JAZZY)
    with Writer(bag, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for message in messages:
            own = message.type.startswith("coop_perception_msgs")
            definition = {"msgdef": "", "rihs01": "unknown"} if own else {"typestore": types}
            if message.topic not in connections:
                connections[message.topic] = writer.add_connection(message.topic, message.type, **definition)
            writer.write(connections[message.topic], message.stamp_ns, message.raw)
        other = serialize_message(ModelInfo(bundle_path="/other", networks=[ModelNetwork(name="segmenter")]))
        writer.write(connections["/coop_perception/model_info"], messages[-1].stamp_ns, other)
    with pytest.raises(SystemExit, match="/coop_perception runs bundle /other, whose networks are not those of"):
        run("--recorded", bag, "--bundle", bundle, "--out", tmp_path / "out")


def run_demo(tmp_path: Path, bag: Path, bundle: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ["--bag", str(bag), "--bundle", str(bundle), "--out", str(tmp_path / "out"), *more]
    command = [sys.executable, "-m", "coop_perception.commands.demo", *options]
    return subprocess.run(command, env=environment(DOMAIN), capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("compressed", [False, True])
def test_demo_plays_through_a_real_node_and_accounts_for_every_frame(
    tmp_path: Path, bundle: Path, compressed: bool
) -> None:
    bag, out = write_bag(tmp_path / "bag", "left/cam", compressed), tmp_path / "out"
    bundle = bundle.rename(tmp_path / "toy: run #3")  # YAML's own signs
    done = run_demo(tmp_path, bag, bundle)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / "summary.json").read_text())
    counts = summary["frames"]
    assert counts["read"] == COUNT == counts["processed"] + counts["dropped"]
    assert counts["processed"] > 0
    assert summary["mode"] == "live"
    if counts["processed"] == COUNT:  # a machine that keeps up with 10 frames/s
        check_scores(summary)
    assert summary["mask"]["pa"] == 1.0
    with Recording(out / "outputs") as outputs:
        assert set(outputs.topics) == {f"/left/cam/coop/{name}" for name in ("mask", "mask_raw", "image_restored")}
        assert outputs.topics["/left/cam/coop/mask"].count >= counts["processed"]


def test_an_interrupted_demo_keeps_what_was_played(tmp_path: Path, bundle: Path) -> None:
    bag, out = write_bag(tmp_path / "bag", spacing_ns=SECOND), tmp_path / "out"
    command = [sys.executable, "-m", "coop_perception.commands.demo", "--bag", str(bag), "--bundle", str(bundle)]
    with client(DOMAIN) as ours:
        masks, status = ours.listen(Image, "/front/coop/mask"), ours.received[f"{NODE}/status"]
        ours.spin()
        process = subprocess.Popen(
            [*command, "--out", str(out)],
            env=environment(DOMAIN),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            ours.wait(lambda: bool(status) or process.poll() is not None, "status of the active node")
            ours.wait(lambda: bool(masks) or process.poll() is not None, "the mask of the image that connects")
            ours.wait(
                # Of the image that connects, and a second before it those that are timed.
                lambda: len({m.header.stamp.sec for m in masks}) >= 5 or process.poll() is not None,
                "three more masks",
            )
        finally:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            _, said = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, said
    assert said.splitlines()[-1] == f"demo: interrupted; the results in {out} are of what was done before"
    summary = json.loads((out / "summary.json").read_text())
    assert 3 <= summary["frames"]["read"] < COUNT
    assert summary["mask"]["pa"] == 1.0
    with Recording(out / "outputs") as outputs:
        assert outputs.topics["/front/coop/mask"].count >= 3


def test_demo_takes_a_malformed_first_frame_as_a_dropped_one(tmp_path: Path, bundle: Path) -> None:
    done = run_demo(tmp_path, write_malformed_bag(tmp_path / "bag", cut=0), bundle)
    assert done.returncode == INCOMPLETE, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["dropped_by_reason"]["malformed"] == 1
    assert "1 of 4 images could not be used (malformed 1)" in summary["warnings"]


def test_demo_names_an_encoding_that_nobody_knows(tmp_path: Path, bundle: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        message = image_message(picture(0), "rgb8", "front", 0)
        message.encoding = "rgb7"
        writer.write("/front/image_raw", message, IMAGE_TYPE, 0)
    done = run_demo(tmp_path, tmp_path / "bag", bundle)
    assert done.returncode == 1
    assert "rgb7" in done.stderr


def test_nodes_of_one_name_are_not_evaluated(tmp_path: Path, bundle: Path) -> None:
    # Slow: on a busy machine the second of two nodes is not seen at once.
    bag, alike = write_bag(tmp_path / "bag", spacing_ns=SECOND), {"bundle": str(bundle), **RELIABLE}
    says = r"\d nodes are called /coop_perception; stop one \(ros2 node list\), or set another ROS_DOMAIN_ID\n"
    command = [sys.executable, "-m", "coop_perception.commands.evaluate_bag", "--live", str(bag)]
    command += ["--bundle", str(bundle), "--out", str(tmp_path / "live")]
    with (
        client(DOMAIN) as ours,
        node_process(DOMAIN, tmp_path / "one", "--autostart", **alike),
        node_process(DOMAIN, tmp_path / "other", "--autostart", **alike),
    ):
        ours.spin()
        ours.wait(lambda: ours.node.count_publishers(f"{NODE}/status") == 2, "both nodes are active")
        live = subprocess.run(command, env=environment(DOMAIN), capture_output=True, text=True, timeout=120)
        own = run_demo(tmp_path, bag, bundle)
    for name, done in (("evaluate_bag", live), ("demo", own)):
        assert done.returncode == 1
        assert re.search(f"{name}: {says}", done.stderr), done.stderr
    assert not (tmp_path / "live/outputs").exists()


def test_a_node_in_a_namespace_agrees_with_the_networks_alone(tmp_path: Path, bundle: Path) -> None:
    bag = write_bag(tmp_path / "bag", spacing_ns=SECOND // 4)
    reliable = {
        f"qos_overrides./robot1/front/image_raw.subscription.{policy}": value
        for policy, value in (("reliability", "reliable"), ("history", "keep_all"))
    }
    alone = tmp_path / "alone"
    run(bag, "--bundle", bundle, "--out", alone)
    command = [sys.executable, "-m", "coop_perception.commands.evaluate_bag", "--live", str(bag)]
    command += ["--bundle", str(bundle), "--out", str(tmp_path / "live"), "--node", "/robot1/coop_perception"]
    command += ["--allow-incomplete"]  # a busy machine's node drops frames
    flags = ("--autostart", "--ros-args", "-r", "__ns:=/robot1", "--")
    with node_process(DOMAIN, tmp_path / "log", *flags, bundle=str(bundle), **reliable):
        live = subprocess.run(command, env=environment(DOMAIN), capture_output=True, text=True, timeout=120)
    assert live.returncode == 0, live.stderr
    ours, nodes = (read_parquet(out / "frames.parquet") for out in (alone, tmp_path / "live"))
    answered = nodes.texts["status"] == "processed"
    assert answered.sum() > 0
    for name in ("confusion", "confusion_raw"):
        assert (ours.counts[name][answered] == nodes.counts[name][answered]).all()
    for name in (
        "psnr_degraded",
        "psnr_restored",
        "ssim_restored",
        "disagreement",
        "sharpness_restored",
        "presence.rain",
        "strength.rain",
        "familiarity",
        "restoration_ran",
        # Frames that the node dropped are missing in what it knows over time.
        *(("presence_filtered.rain", "strength_filtered.rain", "familiarity_filtered") if answered.all() else ()),
    ):
        assert nodes.numbers[name][answered] == pytest.approx(ours.numbers[name][answered]), name


def test_a_node_that_goes_away_is_not_played_to_for_the_rest_of_the_recording(tmp_path: Path, bundle: Path) -> None:
    bag = write_bag(tmp_path / "bag", spacing_ns=4 * SECOND)
    command = [sys.executable, "-m", "coop_perception.commands.evaluate_bag", "--live", str(bag)]
    command += ["--bundle", str(bundle), "--out", str(tmp_path / "live")]
    with (
        client(DOMAIN) as ours,
        node_process(DOMAIN, tmp_path / "log", "--autostart", bundle=str(bundle), **RELIABLE) as node,
    ):
        masks = ours.listen(Image, "/front/coop/mask")
        ours.spin()
        live = subprocess.Popen(command, env=environment(DOMAIN), stderr=subprocess.PIPE, text=True)
        # A mask of the recording's own stamps: the image that connects has an earlier one.
        ours.wait(lambda: any(m.header.stamp.sec >= 100 for m in masks) or live.poll() is not None, "a mask")
        node.send_signal(signal.SIGINT)
        node.wait(60)
        _, said = live.communicate(timeout=120)
    assert live.returncode == 1, said
    assert "/coop_perception went away while it was played to; its log says why" in said


def test_demo_plays_as_slowly_as_the_node_can_follow(tmp_path: Path, bundle: Path) -> None:
    """Images a millisecond apart, which no node follows."""
    done = run_demo(tmp_path, write_bag(tmp_path / "bag[/b]", spacing_ns=SECOND // 1000), bundle)  # no markup
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["rate"] < 0.5
    assert summary["frames"]["processed"] > COUNT / 2
    assert "of the recording's rate" in " ".join(done.stderr.split())


def test_a_clock_that_was_set_meanwhile_is_not_waited_for(tmp_path: Path, bundle: Path) -> None:
    year = 365 * 24 * 3600 * SECOND
    with RecordingWriter(tmp_path / "bag") as writer:
        for index, logged in enumerate((SECOND, 2 * SECOND, year, year + SECOND)):
            message = image_message(picture(index), "rgb8", "front", logged)
            writer.write("/front/image_raw", message, IMAGE_TYPE, logged)
    done = run_demo(tmp_path, tmp_path / "bag", bundle)
    assert done.returncode == 0, done.stderr
    assert "gaps between images were cut to 5 s, 31535993 s in all" in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "out/summary.json").read_text())["frames"]["processed"] == 4


@pytest.mark.parametrize(
    ("logged", "stamps"),
    [
        ([SECOND] * 4, [1, 2, 3, 4]),
        ([0, 1, 2, 3, 60 * SECOND, 2**63 - 1], [1, 2, 3, 4, 5, 6]),
        ([0, SECOND, 2 * SECOND], [-(2**31), 2**31 - 1, 5]),
    ],
    ids=["at one time", "in a burst before a gap", "stamps at both ends of time"],
)
def test_times_that_no_clock_has_are_played(
    tmp_path: Path, bundle: Path, logged: Sequence[int], stamps: Sequence[int]
) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for index, (time_ns, second) in enumerate(zip(logged, stamps, strict=True)):
            message = image_message(picture(index), "rgb8", "front", 0)
            message.header.stamp.sec = second
            writer.write("/front/image_raw", message, IMAGE_TYPE, time_ns)
    done = run_demo(tmp_path, tmp_path / "bag", bundle, "--allow-incomplete")  # without a pace some are dropped
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out/summary.json").read_text())["frames"]["read"] == len(logged)


@pytest.mark.parametrize("rate", ["0", "-1", "fast", "nan", "1e9"])
def test_rates_that_cannot_be(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (demo, evaluate_bag):
        with pytest.raises(SystemExit) as ended:
            command.main([f"--rate={rate}", *(["b"] if command is evaluate_bag else [])])
        assert ended.value.code == 2
        assert "expected 0.01 to 100 times the recording's own pace" in capsys.readouterr().err


def test_a_rate_is_for_playing_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate_bag.main(["b", "--rate", "2"])
    assert ended.value.code == 2
    assert "--rate is for --live" in capsys.readouterr().err


def stamped(path: Path, *stamps: int) -> Path:
    """A recording of images with these header stamps, in seconds."""
    with RecordingWriter(path) as writer:
        for index, stamp in enumerate(stamps):
            message = image_message(picture(index), "rgb8", "front", stamp * SECOND)
            writer.write("/front/image_raw", message, IMAGE_TYPE, index * SECOND // 10)
    return path


def test_a_stamp_that_comes_again_costs_its_frame_alone(tmp_path: Path, bundle: Path) -> None:
    done = run_demo(tmp_path, stamped(tmp_path / "bag", 5, 6, 7, 7), bundle)
    assert done.returncode == 4, done.stderr
    assert "1 of 4 images have the stamp of an earlier one and were not played" in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "out/summary.json").read_text())["frames"]["processed"] == 3


@pytest.mark.parametrize("stamp", [0, 5])
def test_images_that_are_not_stamped_are_refused_before_they_are_played(
    tmp_path: Path, bundle: Path, stamp: int
) -> None:
    done = run_demo(tmp_path, stamped(tmp_path / "bag", stamp, stamp, stamp), bundle)
    assert done.returncode == 1
    assert "offline, without --live, they are scored in order" in " ".join(done.stderr.split())


def test_demo_says_why_a_node_does_not_come_up(tmp_path: Path, bundle: Path) -> None:
    bag = write_bag(tmp_path / "bag")
    edit_manifest(bundle, classes=[{"id": 0, "name": "Road", "rgb": [1, 2, 3]}])
    done = run_demo(tmp_path, bag, bundle)
    assert done.returncode == 1
    assert "configure failed" in done.stderr
    assert "for 1 classes" in " ".join(done.stderr.split())


def test_frames_group_messages_by_header_stamp_though_logged_apart(tmp_path: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for index, (topic, stamp, logged) in enumerate(
            [("/a", 1, 10), ("/a", 2, 20), ("/b", 1, 30), ("/b", 2, 40), ("/a", 3, 50)]
        ):
            writer.write(topic, image_message(picture(index), "rgb8", "f", stamp), IMAGE_TYPE, logged)
    with Recording(tmp_path / "bag") as recording:
        groups = [(stamp, sorted(group)) for stamp, group in frames(recording, ["/a", "/b"])]
    assert groups == [(1, ["/a", "/b"]), (2, ["/a", "/b"]), (3, ["/a"])]


@pytest.mark.parametrize("little", [True, False])
def test_header_stamp_in_both_byte_orders(little: bool) -> None:
    raw = bytes([0, 1 if little else 0, 0, 0]) + struct.pack("<iI" if little else ">iI", 7, 8) + b"rest"
    assert header_stamp(raw) == 7 * SECOND + 8
    assert header_stamp(with_header_stamp(raw, 9 * SECOND + 1)) == 9 * SECOND + 1
    assert with_header_stamp(raw, 9)[12:] == b"rest"


def test_a_full_disk_while_recording_is_one_clear_error_and_the_node_lives_on(tmp_path: Path, bundle: Path) -> None:
    """No file of the recording process may grow beyond 1.2 MB, which is that of three frames: an error of a full disk's
    kind."""
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(20):
            large = np.repeat(np.repeat(picture(index), 7, 0), 7, 1)
            message = image_message(large, "rgb8", "front", index * SECOND // 10)
            writer.write("/front/image_raw", message, IMAGE_TYPE, index * SECOND // 10)
    limited = (
        "import resource, sys; from coop_perception.commands import evaluate_bag; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, resource.RLIM_INFINITY)); evaluate_bag.main()"
    )
    options = ["--live", str(tmp_path / "bag"), "--bundle", str(bundle), "--out", str(tmp_path / "out")]
    reliable = {
        "qos_overrides./front/image_raw.subscription.reliability": "reliable",
        "qos_overrides./front/image_raw.subscription.history": "keep_all",
    }
    with client(DOMAIN) as ours, node_process(DOMAIN, tmp_path / "log", bundle=str(bundle), **reliable):
        bring_up(ours.node, ours.executor, NODE)
        done = subprocess.run(
            [sys.executable, "-c", limited, *options],
            env=environment(DOMAIN),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ours.state() == "active"
    assert done.returncode == 1
    assert "recording failed" in done.stderr
    assert "Traceback" not in done.stderr
    with Recording(tmp_path / "out/outputs_incomplete") as kept:
        assert kept.topics["/front/coop/mask"].count > 0
