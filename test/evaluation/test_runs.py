"""Runs that are interrupted and gone on with, of many recordings, compared and gated."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from set_up_packages import set_up_package
from small_recording import COUNT, SECOND, picture, write_bag, write_malformed_bag
from toy_bundle import HEIGHT, WIDTH, write_toy_bundle

from coop_perception.commands import evaluate_bag
from coop_perception.engines.loading import EngineSettings
from coop_perception.evaluation import fleet, results
from coop_perception.evaluation.ahead import ahead
from coop_perception.evaluation.compare import read_run
from coop_perception.evaluation.conditions import conditions_of
from coop_perception.evaluation.evaluation import EvaluationError, Selection
from coop_perception.evaluation.folders import frame_of
from coop_perception.evaluation.journal import NAME as JOURNAL
from coop_perception.evaluation.measures import SHARES, TIMES
from coop_perception.evaluation.table import Table, read_parquet
from coop_perception.evaluation.task import find_bags
from coop_perception.exit_codes import GATE, INCOMPLETE
from coop_perception.images import decode_compressed
from coop_perception.model.over_time import DEFAULT, CameraConditions
from coop_perception.recordings.messages import APPLIED_TYPE, IMAGE_TYPE, applied_message, image_message
from coop_perception.recordings.recording import Recording
from coop_perception.recordings.writer import RecordingWriter

LONG = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("bag") / "bag")


@pytest.fixture(scope="module")
def long_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of two cameras, without references for some, one of them malformed; it rains for a while, as is said."""
    path = tmp_path_factory.mktemp("bag") / "long"
    with RecordingWriter(path) as writer:
        for index in range(LONG):
            stamp = index * SECOND // 10
            for camera in ("front", "rear"):
                rains = 20 <= index < 45
                message = image_message(picture(index, rains), "rgb8", camera, stamp)
                if index == 17:
                    message.data = message.data[:-3]
                writer.write(f"/{camera}/image_raw", message, IMAGE_TYPE, stamp)
                if index % 5:
                    mask = image_message(np.ascontiguousarray(picture(index)[..., 1]), "mono8", camera, stamp)
                    writer.write(f"/{camera}/reference/mask", mask, IMAGE_TYPE, stamp)
                applied = applied_message({"rain": 2.0 * rains}, camera, stamp)
                writer.write(f"/{camera}/reference/condition", applied, APPLIED_TYPE, stamp)
    return path


def run(*arguments: object) -> None:
    evaluate_bag.main([str(argument) for argument in arguments])


def options(bundle: Path, out: Path) -> tuple[object, ...]:
    return "--bundle", bundle, "--out", out, "--backend", "onnxruntime", "--threads", 1


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def without_times(value: Any) -> Any:
    """What must be the same however often a run was interrupted."""
    if isinstance(value, dict):
        timed = ("fps", "latency", "stages_ms")
        return {key: without_times(entry) for key, entry in value.items() if not key.startswith(timed)}
    return value


def same(one: Table, other: Table) -> None:
    for mine, others in zip(one._parts, other._parts, strict=True):
        assert mine.keys() == others.keys()
        for name in mine:
            if not name.startswith(("latency", "stages_ms")):
                assert np.array_equal(mine[name], others[name], equal_nan=mine[name].dtype.kind == "f"), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, bundle: Path, long_bag: Path) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    run(long_bag, *options(bundle, out))
    return out


def test_every_camera_is_evaluated_and_every_frame_accounted_for(uninterrupted: Path) -> None:
    summary = summary_of(uninterrupted)
    assert summary["frames"] == {"read": 2 * LONG, "processed": 2 * LONG - 2, "dropped": 2, "failed": 0}
    assert summary["dropped_by_reason"] == {"malformed": 2}
    assert set(summary["measures"]["camera"]) == {"front", "rear"}
    assert summary["measures"]["camera"]["front"]["miou"] == summary["measures"]["camera"]["rear"]["miou"]
    assert summary["mask"]["miou"] == 1.0
    assert summary["measures"]["all"]["miou_raw"]["low"] <= summary["mask_raw"]["miou"]
    table = read_parquet(uninterrupted / "frames.parquet")
    assert len(table) == 2 * LONG
    assert np.isnan(table.numbers["miou"][::5]).all()  # no reference
    assert not (uninterrupted / JOURNAL).exists()


def test_restoration_follows_the_weather_and_the_estimate_is_held_against_it(uninterrupted: Path, bundle: Path) -> None:
    table, summary = read_parquet(uninterrupted / "frames.parquet"), summary_of(uninterrupted)
    processed = table.texts["status"][:LONG] == "processed"
    presence, filtered, ran = (
        table.numbers[name][:LONG][processed] for name in ("presence.rain", "presence_filtered.rain", "restoration_ran")
    )
    course = CameraConditions()
    for index, frame in enumerate(np.flatnonzero(processed)):
        own = conditions_of(
            ("fog", "rain"),
            {name: table.numbers[f"presence.{name}"][frame] for name in ("fog", "rain")},
            {name: table.numbers[f"strength.{name}"][frame] for name in ("fog", "rain")},
            float(table.numbers["familiarity"][frame]),
        )
        now, restore = course.take(own, int(frame) * SECOND // 10, (HEIGHT, WIDTH))
        assert filtered[index] == now.presence[1]
        assert ran[index] == restore
    assert presence[:19].max() < 0.1
    assert presence[20:44].min() > 0.8
    assert 0 < ran.mean() < 1
    rain = summary["condition"]["conditions"]["rain"]
    assert (rain["frames"], rain["applied"]) == (50, 50)
    assert rain["not_applied"] == 2 * LONG - 2 - 50
    assert (rain["recognised"], rain["false_alarms"]) == (1.0, 0.0)
    assert summary["measures"]["condition"]["rain"]["frames"] == 50
    restored, clear = summary["condition"]["restoration_ran"], summary["condition"]["clear"]
    assert restored == pytest.approx(2 * ran.sum() / (2 * LONG - 2))
    assert clear == 2 * LONG - 2 - 50


def test_restored_frames_are_the_cameras_own_where_nothing_is_present(tmp_path: Path, bundle: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(3):
            image = image_message(picture(index, rainy=False), "rgb8", "front", index * SECOND)
            writer.write("/front/image_raw", image, IMAGE_TYPE, index * SECOND)
            writer.write("/front/reference/image", image, IMAGE_TYPE, index * SECOND)
    run(tmp_path / "bag", *options(bundle, tmp_path / "skipped"))
    skipped = summary_of(tmp_path / "skipped")
    assert skipped["image_restored"] == skipped["image_degraded"]
    assert set(skipped["stages_ms"]) == {"segmenter", "refinement"}
    assert (skipped["condition"]["clear"], skipped["condition"]["restoration_ran"]) == (3, 0.0)
    given = ("--no-skip-when-clear", "--condition-time-constant", "0", "--network-height", "64")
    run(tmp_path / "bag", *options(bundle, tmp_path / "all"), *given)
    everything = summary_of(tmp_path / "all")
    assert everything["condition"]["restoration_ran"] == 1.0
    assert set(everything["stages_ms"]) == {"segmenter", "refinement", "restoration"}
    asked = ("network_height", "condition_time_constant", "skip_when_clear")
    assert [everything[name] for name in asked] == [64, 0.0, False]
    assert [skipped[name] for name in asked] == [HEIGHT, DEFAULT.time_constant_s, DEFAULT.skip_when_clear]


KILLER = """
import os, random, signal, sys, time
from pathlib import Path
from coop_perception.commands.evaluate_bag import main
from coop_perception.evaluation.journal import Journal

journal, arguments = Path(sys.argv[1]), sys.argv[2:]
append, moments, killed = Journal.append, random.Random(4), 0

def slow(self, row):  # enough to be met in the middle
    time.sleep(0.02)
    append(self, row)

def lines():
    return journal.read_bytes().count(b"\\n") if journal.exists() else 0

for number in range(10):
    wanted = lines() + moments.randint(2, 11)
    child = os.fork()  # which has read its modules already; no network is loaded here
    if not child:
        Journal.append = slow
        main(arguments)
        os._exit(0)
    while lines() < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    killed += os.waitpid(child, 0)[1] == signal.SIGKILL
    if number % 2:  # in the middle of a line
        with journal.open("ab") as file:
            file.write(b'{"camera":"fro')
print(f"killed:{killed}")
"""
"""Kills a run ten times, as a power cut would, and has it gone on with each time."""


def test_killed_at_random_moments_and_gone_on_with_it_is_the_same_result(
    tmp_path: Path, bundle: Path, long_bag: Path, uninterrupted: Path
) -> None:
    out, journal = tmp_path / "out", tmp_path / "out" / JOURNAL
    arguments = [str(long_bag), *map(str, options(bundle, out)), "--resume"]
    command = [sys.executable, "-c", KILLER, str(journal), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.stdout.split()[-1] == "killed:10", done.stderr
    assert 20 < journal.read_bytes().count(b"\n") < 2 * LONG + 1
    run(*arguments)
    same(read_parquet(out / "frames.parquet"), read_parquet(uninterrupted / "frames.parquet"))
    assert without_times(summary_of(out)) == without_times(summary_of(uninterrupted))
    assert not journal.exists()
    run(*arguments)  # nothing is left to do, which is no error
    with pytest.raises(SystemExit, match=r"summary\.json is of a run with skip_when_clear True, not False"):
        run(*arguments, "--no-skip-when-clear")


def test_a_full_disk_keeps_the_rows_before_it(
    tmp_path: Path, bundle: Path, long_bag: Path, uninterrupted: Path
) -> None:
    """No file may grow beyond 40 kB, which is that of some rows: an error of a full disk's kind."""
    out = tmp_path / "out"
    arguments = [str(long_bag), *map(str, options(bundle, out))]
    limited = (
        "import resource, sys; from coop_perception.commands import evaluate_bag; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY)); evaluate_bag.main()"
    )
    done = subprocess.run([sys.executable, "-c", limited, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert (out / JOURNAL).stat().st_size == 40_000
    with pytest.raises(SystemExit, match=r"holds journal\.jsonl of another run"):
        run(*arguments)
    run(*arguments, "--resume")
    same(read_parquet(out / "frames.parquet"), read_parquet(uninterrupted / "frames.parquet"))


def test_another_run_is_not_gone_on_with(tmp_path: Path, bundle: Path, bag: Path, long_bag: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / JOURNAL).write_text('{"format": 2, "bag": "/another"}\n')
    with pytest.raises(SystemExit, match=r"is of a run with bag '/another', not .*start anew"):
        run(bag, *options(bundle, out), "--resume")
    (out / JOURNAL).write_text("no journal\n")
    with pytest.raises(SystemExit, match="is no journal of a run"):
        run(bag, *options(bundle, out), "--resume")


@pytest.mark.parametrize(
    "edited",
    [
        b"[" * 100_000,
        {"camera": 3},
        {"stamp_ns": "x"},
        {"stamp_ns": 10**30},
        {"status": "lost"},
        {"latency_ms": [1]},
        {"stages_ms": {"segmenter": "fast"}},
        {"warnings": [1]},
        {"confusion": [1, 2]},
        {"confusion": [10**30]},
        {"familiar": 1},
    ],
)
def test_a_journal_that_was_edited_is_one_line(
    tmp_path: Path, bundle: Path, bag: Path, edited: bytes | dict[str, object]
) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:  # the journal goes last
        patch.setattr(results, "write_whole", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            run(bag, *options(bundle, out))
    lines = (out / JOURNAL).read_bytes().splitlines()
    assert len(lines) == 1 + COUNT
    lines[2] = edited if isinstance(edited, bytes) else json.dumps(json.loads(lines[2]) | edited).encode()
    (out / JOURNAL).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(SystemExit, match=r"journal\.jsonl: line 3 is no row of this version; start anew"):
        run(bag, *options(bundle, out), "--resume")


def test_a_line_that_another_process_is_writing_is_not_cut_off(tmp_path: Path, bundle: Path, bag: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "write_whole", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit, match="killed"):
            run(bag, *options(bundle, out))
    with (out / JOURNAL).open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(b'{"camera": "/fro')
        with pytest.raises(SystemExit, match="another process writes it"):
            run(bag, *options(bundle, out), "--resume")
    assert (out / JOURNAL).read_bytes().endswith(b'{"camera": "/fro')


@pytest.mark.parametrize("kept", [("png", "frames"), ("mcap", "results")])
def test_a_folder_that_is_in_the_way_of_outputs_stays(
    tmp_path: Path, bundle: Path, bag: Path, kept: tuple[str, str]
) -> None:
    kind, name = kept
    photo = tmp_path / "out" / name / "photo.png"
    photo.parent.mkdir(parents=True)
    photo.write_text("mine")
    arguments = [bag, *options(bundle, tmp_path / "out"), "--outputs", kind]
    with pytest.raises(SystemExit, match=f"out holds {name} of another run"):
        run(*arguments)
    with pytest.raises(SystemExit, match=f"{name} .*not replaced"):
        run(*arguments, "--force")
    assert photo.read_text() == "mine"


@pytest.mark.parametrize(
    ("selection", "frames"),
    [
        (("--start", "0.25"), [3, 4, 5, 6, 7]),
        (("--end", "0.3"), [0, 1, 2, 3]),
        (("--start", "0.1", "--end", "0.5"), [1, 2, 3, 4, 5]),
        (("--every", "3"), [0, 3, 6]),
        (("--start", "0.1", "--every", "2"), [2, 4, 6]),
    ],
)
def test_a_part_of_a_recording(
    tmp_path: Path, bundle: Path, bag: Path, selection: tuple[str, ...], frames: list[int]
) -> None:
    run(bag, *options(bundle, tmp_path / "out"), *selection)
    table = read_parquet(tmp_path / "out/frames.parquet")
    assert table.whole["frame"].tolist() == frames
    summary = summary_of(tmp_path / "out")
    assert summary["warnings"] == []
    assert summary["frames"]["read"] == len(frames) == summary["frames"]["processed"]


@pytest.mark.parametrize(("frames", "named"), [(range(COUNT), "stamp"), (range(COUNT), "number"), ([1, 4], "stamp")])
def test_references_in_folders(tmp_path: Path, bundle: Path, frames: list[int], named: str) -> None:
    bag = tmp_path / "bag"
    with RecordingWriter(bag) as writer:
        for index in range(COUNT):
            stamp = 1_700_000_000 * SECOND + index * SECOND // 10
            writer.write("/front/image_raw", image_message(picture(index), "rgb8", "front", stamp), IMAGE_TYPE, stamp)
    import cv2

    for folder in ("labels", "clean"):
        (tmp_path / folder).mkdir()
    for index in frames:
        stamp = 1_700_000_000 * SECOND + index * SECOND // 10
        name = f"front_{stamp // SECOND}.{stamp % SECOND:09}" if named == "stamp" else f"frame_{index:05}"
        cv2.imwrite(str(tmp_path / f"labels/{name}.png"), picture(index)[..., 1])
        cv2.imwrite(str(tmp_path / f"clean/{name}.png"), (255 - picture(index))[..., ::-1])
    folders = ("--labels", tmp_path / "labels", "--references", tmp_path / "clean")
    run(bag, *options(bundle, tmp_path / "out"), *folders)
    summary = summary_of(tmp_path / "out")
    assert summary["mask"]["miou"] == 1.0
    assert summary["image_restored"] == {"psnr": 60.0, "ssim": pytest.approx(1.0)}
    scored = ~np.isnan(read_parquet(tmp_path / "out/frames.parquet").numbers["miou"])
    assert np.flatnonzero(scored).tolist() == list(frames)
    few = f"only {len(frames)} of {COUNT} frames of front have a reference"
    assert summary["warnings"] == [f"{few} {what}" for what in ("mask", "image") if len(frames) < COUNT]


def test_folders_of_which_nothing_fits_are_said(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "labels/99999.png"), np.zeros((4, 4), np.uint8))
    with pytest.raises(SystemExit) as stopped:
        run(bag, *options(bundle, tmp_path / "out"), "--labels", tmp_path / "labels")
    assert stopped.value.code == INCOMPLETE
    assert "1 of 1 files of references belong to no frame" in capsys.readouterr().err


@pytest.mark.parametrize(("first", "says"), [(0, "holds label ids [99]"), (1, "numbered from 1, frames from 0")])
def test_labels_of_others_are_said(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], first: int, says: str
) -> None:
    """Every file of ids that are no class; or each taken for the frame behind its own."""
    import cv2

    bag, label = write_malformed_bag(tmp_path / "bag", cut=9), np.full((HEIGHT, WIDTH), 3 if first else 99, np.uint8)
    (tmp_path / "labels").mkdir()
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"labels/{index + first}.png"), label)
    with pytest.raises(SystemExit) as stopped:
        run(bag, *options(bundle, tmp_path / "out"), "--labels", tmp_path / "labels")
    assert stopped.value.code == INCOMPLETE
    assert says in capsys.readouterr().err


def test_labels_beside_those_of_the_recording_are_said(
    tmp_path: Path, bundle: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import cv2

    (tmp_path / "labels").mkdir()
    for index in range(COUNT):
        cv2.imwrite(str(tmp_path / f"labels/{index}.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    run(bag, *options(bundle, tmp_path / "out"), "--labels", tmp_path / "labels")
    assert "has /front/reference/mask, which comes before files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stem", "frame"),
    [
        ("1700000000123456789", ("stamp", 1700000000123456789)),
        ("front_1700000000.5", ("stamp", 1700000000500000000)),
        ("cam0_1700000000_000000001", ("stamp", 1700000000000000001)),
        ("frame_00037", ("number", 37)),
        ("v1.2_7", ("number", 7)),
        ("clear", None),
        ("7_left", None),
    ],
)
def test_what_file_names_say(stem: str, frame: tuple[str, int] | None) -> None:
    assert frame_of(stem) == frame


def many(tmp_path: Path, count: int = 3) -> Path:
    folder = tmp_path / "bags"
    for index in range(count):
        write_bag(folder / ("deep" if index else ".") / f"bag{index}")
    (folder / "notes.txt").parent.mkdir(exist_ok=True)
    (folder / "notes.txt").touch()
    return folder


@pytest.mark.parametrize("how", [("--workers", 1), ("--workers", 2), ("--workers", 2, "--ray", "local")], ids=str)
def test_a_folder_of_recordings(tmp_path: Path, bundle: Path, how: tuple[object, ...]) -> None:
    if "--ray" in how:
        set_up_package("ray")
    out = tmp_path / "out"
    broken = many(tmp_path) / "broken"
    broken.mkdir()
    (broken / "broken_0.mcap").write_bytes(b"not one")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "bags", *options(bundle, out), *how)
    assert stopped.value.code == INCOMPLETE
    summary = summary_of(out)
    assert summary["frames"] == {"read": 3 * COUNT, "processed": 3 * COUNT, "dropped": 0, "failed": 0}
    assert [bag["name"] for bag in summary["bags"]] == ["bag0", "bag1", "bag2"]
    ((lost, why),) = [(bag["name"], bag["error"]) for bag in summary["failed_bags"]]
    assert lost == "broken"
    assert "neither an mcap nor a sqlite3 file" in why
    single = summary_of(out / "bags/bag1")
    matrices = [np.array(part["mask_raw"]["confusion"]) for part in (summary, single)]
    assert (matrices[0] == 3 * matrices[1]).all()
    page = (out / "report.html").read_text()
    assert 'href="bags/bag1/report.html"' in page
    assert "Recordings that could not be evaluated" in page
    unsorted = re.findall(r'data-value="">([^<]*)</td>', page)
    assert set(unsorted) <= {"–", ""}  # whatever else a heading sorts its column by
    run(tmp_path / "bags", *options(bundle, out), "--resume", "--allow-incomplete")
    with pytest.raises(SystemExit, match=r"bag0/summary\.json is of a run with network_height 0, not 64"):
        run(tmp_path / "bags", *options(bundle, out), "--resume", "--network-height", 64)


def test_what_was_incomplete_is_so_when_nothing_is_left_to_do(tmp_path: Path, bundle: Path) -> None:
    bag = write_malformed_bag(tmp_path / "bag")
    for _ in range(2):
        with pytest.raises(SystemExit) as stopped:
            run(bag, *options(bundle, tmp_path / "out"), "--resume")
        assert stopped.value.code == INCOMPLETE


def test_workers_share_the_cores_that_a_container_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "usable_cores", lambda: 4)
    assert [fleet.threads_of(workers, 0) for workers in (1, 2, 3, 9)] == [0, 2, 1, 1]
    assert fleet.threads_of(2, 3) == 3
    assert [fleet.threads_of(2, asked, "local") for asked in (0, 3)] == [2, 3]
    assert [fleet.threads_of(1, asked, "10.0.0.1:6379") for asked in (0, 3)] == [1, 3]


def test_recordings_have_names_of_their_own(tmp_path: Path) -> None:
    one, other = write_bag(tmp_path / "a/drive"), write_bag(tmp_path / "b/drive")
    assert find_bags([tmp_path]) == {"drive": one, "drive-2": other}
    assert find_bags([one / "drive.mcap", one]) == {"drive.mcap": one / "drive.mcap", "drive": one}
    write_bag(tmp_path / "$RECYCLE.BIN/S-1-5/$RX0")  # of what somebody deleted
    assert find_bags([tmp_path]) == {"drive": one, "drive-2": other}
    (tmp_path / "empty").mkdir()
    for path, says in ((tmp_path / "empty", "holds no recording"), (tmp_path / "none", "there is no such recording")):
        with pytest.raises(Exception, match=says):
            find_bags([path])


def test_a_folder_that_may_not_be_read_is_left_to_be_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, closed = write_bag(tmp_path / "one"), tmp_path / "closed"
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, _: path != closed)  # root may read everything
    assert find_bags([tmp_path]) == {"closed": closed, "one": one}


@pytest.mark.parametrize(
    ("selection", "share"),
    [
        (Selection(), 1.0),
        (Selection(every=4), 0.25),
        (Selection(end_s=10.0), 0.1),
        (Selection(start_s=50.0, end_s=500.0), 0.5),
        (Selection(start_s=90.0, every=2), 0.05),
    ],
)
def test_how_much_there_is_to_do_is_told_by_the_pace_of_the_images(selection: Selection, share: float) -> None:
    """Of 1000 frames, ten a second."""
    assert selection.share(600, 60.0, 1000) == pytest.approx(share)
    assert selection.share(0, 0.0, 1000) <= 1


def test_what_fails_once_is_tried_once_more(tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fails_first(task: Any) -> None:
        tries.append(task)
        if len(tries) == 1:
            raise OSError("a network drive was away")

    monkeypatch.setattr(fleet, "evaluate_task", fails_first)
    tasks = {"one": fleet.Task(bag, tmp_path / "out", tmp_path)}
    assert fleet.evaluate_all(tasks, 1, None, False, lambda _: None) == [fleet.Outcome("one", "")]
    assert len(tries) == 2


def test_a_fault_of_the_program_costs_no_other_recording(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(task: Any) -> None:
        if task.bag.name == "odd":
            raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(fleet, "evaluate_task", evaluate)
    tasks = {name: fleet.Task(tmp_path / name, tmp_path / "out", tmp_path) for name in ("odd", "even")}
    odd, even = fleet.evaluate_all(tasks, 1, None, False, lambda _: None)
    assert re.fullmatch(r"ZeroDivisionError in test_runs\.py, line \d+: division by zero", odd.error)
    assert even == fleet.Outcome("even")


def test_workers_that_are_killed_are_replaced(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process that takes a task kills itself; another one does the work."""
    flag = tmp_path / "killed"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, signal, sys\nflag = {str(flag)!r}\n"
        "if any('spawn_main' in word for word in sys.orig_argv):\n"
        "    try:\n        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))\n"
        "    except FileExistsError:\n        pass\n"
        "    else:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    run(many(tmp_path, 2), *options(bundle, tmp_path / "out"), "--workers", 2)
    assert flag.exists()
    assert summary_of(tmp_path / "out")["frames"]["processed"] == 2 * COUNT


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_recording_that_kills_its_process_costs_no_other_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(task: Any) -> None:
        if task.bag.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)

    forking = multiprocessing.get_context("fork")  # whose processes have the module as it is here
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: forking)
    monkeypatch.setattr(fleet, "evaluate_task", evaluate)
    names = ["one", "deadly", *(f"other{i}" for i in range(5))]
    tasks = {name: fleet.Task(Path(name), tmp_path, tmp_path) for name in names}
    outcomes = fleet.evaluate_all(tasks, 2, None, False, lambda _: None)
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    assert failed == {"deadly": "the process that evaluated it was killed (out of memory?)"}
    assert sorted(outcome.name for outcome in outcomes) == sorted(names)


def test_without_ray_it_is_said(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit, match="--ray needs Ray, which is not installed; pip install ray"):
        run(many(tmp_path, 2), *options(bundle, tmp_path / "out"), "--ray", "local")


def test_ray_tells_nobody_what_runs_here(tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []

    def init(**_: Any) -> None:
        said.append(os.environ["RAY_USAGE_STATS_ENABLED"])
        raise ConnectionError("nobody is there")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    tasks = {"one": fleet.Task(bag, tmp_path / "out", tmp_path)}
    for wanted in (None, "1"):
        if wanted:
            monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", wanted)
        with pytest.raises(EvaluationError, match="no Ray cluster answers at somewhere: nobody is there"):
            fleet.evaluate_all(tasks, 1, "somewhere", False, lambda _: None)
    assert said == ["0", "1"]


@pytest.mark.parametrize(
    ("address", "gpus", "wanted"),
    [
        ("local", 0, {"num_gpus": 0, "num_cpus": 1}),
        ("local", 1, {"num_gpus": 0.5, "num_cpus": 1}),
        ("somewhere", 0, {"num_gpus": 0, "num_cpus": 3}),
        ("somewhere", 8, {"num_gpus": 1, "num_cpus": 3}),
    ],
)
def test_a_cluster_is_told_what_a_recording_needs(
    tmp_path: Path, bag: Path, monkeypatch: pytest.MonkeyPatch, address: str, gpus: int, wanted: dict[str, float]
) -> None:
    """Ray hides the GPUs from what does not ask for one, and counts the cores that were asked for."""
    asked: dict[str, float] = {}

    class Remote:
        def __init__(self, max_retries: int, num_gpus: float) -> None:
            asked["num_gpus"] = num_gpus

        def __call__(self, _: Any) -> Remote:
            return self

        def options(self, num_cpus: int) -> Remote:
            asked["num_cpus"] = num_cpus
            return self

        def remote(self, _: Any) -> str:
            return "future"

    cluster = SimpleNamespace(
        init=lambda **_: None,
        cluster_resources=lambda: {"CPU": 8.0, "GPU": float(gpus)},
        remote=Remote,
        wait=lambda running: (running, []),
        get=lambda _: "",
        exceptions=SimpleNamespace(RayError=RuntimeError),
        shutdown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "ray", cluster)
    tasks = {"one": fleet.Task(bag, tmp_path / "out", tmp_path, settings=EngineSettings(threads=3))}
    assert fleet.evaluate_all(tasks, 2, address, False, lambda _: None) == [fleet.Outcome("one")]
    assert asked == wanted


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory, bundle: Path, long_bag: Path) -> Path:
    """A run whose refined masks are those of a network that is wrong in a tenth of the pixels."""
    out = tmp_path_factory.mktemp("worse") / "out"
    import onnx
    from onnx import helper
    from toy_bundle import rewrite_network

    other = write_toy_bundle(tmp_path_factory.mktemp("other") / "toy")
    proto = onnx.load(other / "refinement.onnx")
    for node in proto.graph.node:
        if "mask" in node.output:
            node.input[0] = "capped"
    nines = helper.make_tensor("nine", onnx.TensorProto.FLOAT, [], [9.0])
    proto.graph.initializer.append(nines)
    at = next(i for i, node in enumerate(proto.graph.node) if "mask" in node.output)
    proto.graph.node.insert(at, helper.make_node("Min", ["plane1", "nine"], ["capped"]))
    rewrite_network(other, "refinement", proto)
    run(long_bag, *options(other, out))
    return out


def compare(*arguments: object) -> None:
    run("compare", *arguments)


def test_comparing_a_run_with_itself_finds_nothing(tmp_path: Path, uninterrupted: Path) -> None:
    compare(uninterrupted, uninterrupted, "--out", tmp_path, "--fail-if", "miou.drop > 0", "--fail-if", "ece.rise > 0")
    compared = json.loads((tmp_path / "compare.json").read_text())
    assert list(compared["measures"]["all"])[-5:] == [*TIMES, *SHARES]
    assert compared["frames"] == {"both": 2 * LONG, "only_first": 0, "only_second": 0}
    assert {one["value"] for one in compared["measures"]["all"].values() if isinstance(one, dict)} == {0.0}
    assert compared["changed"] == []


def test_a_worse_run_is_found_and_fails(
    tmp_path: Path, uninterrupted: Path, worse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit, markdown = tmp_path / "ci/junit.xml", tmp_path / "summary.md"
    gates = ("--fail-if", "miou.drop > 0.01 significant", "--fail-if", "miou_raw.drop > 0")
    with pytest.raises(SystemExit) as stopped:
        compare(uninterrupted, worse, "--out", tmp_path / "out", *gates, "--junit", junit, "--markdown", markdown)
    assert stopped.value.code == GATE
    compared = json.loads((tmp_path / "out/compare.json").read_text())
    miou = compared["measures"]["all"]["miou"]
    before, after = (read_run(path).summary["mask"]["miou"] for path in (uninterrupted, worse))
    assert miou["value"] == pytest.approx(after - before)
    assert miou["low"] <= miou["value"] <= miou["high"] < -0.01
    assert compared["measures"]["all"]["miou_raw"]["value"] == 0
    assert compared["measures"]["class"]["Bicyclist"]["iou"]["value"] == pytest.approx(-1)
    changes = [abs(frame["change"]) for frame in compared["changed"]]
    assert changes == sorted(changes, reverse=True)
    assert len(changes) == 20
    (suite,) = ElementTree.parse(junit).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "1")
    assert "**failed**" in markdown.read_text()
    said = capsys.readouterr()
    assert "1 of 2 gates failed: miou.drop > 0.01 significant: miou.drop is" in said.err
    assert "passed: miou_raw.drop > 0" in said.out
    assert "frames that changed most: 5 of 20" in said.out
    assert "<table" in (tmp_path / "out/compare.html").read_text()
    assert set(compared["measures"]["estimate"]["rain"]) == {
        "presence",
        "present",
        "strength",
        "recognised",
        "false_alarms",
    }


def test_a_comparison_of_few_frames_is_incomplete(
    tmp_path: Path, uninterrupted: Path, bundle: Path, long_bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(long_bag, *options(bundle, tmp_path / "half"), "--every", 2)
    gates = ("--fail-if", "miou.drop > 0")
    with pytest.raises(SystemExit) as stopped:
        compare(uninterrupted, tmp_path / "half", "--out", tmp_path / "out", *gates)
    assert stopped.value.code == INCOMPLETE
    says = f"only {LONG} of {2 * LONG} frames are in both runs"
    assert f"{says}; --allow-incomplete" in capsys.readouterr().err
    assert f"Warning: {says}" in (tmp_path / "out/compare.html").read_text()
    compare(uninterrupted, tmp_path / "half", "--out", tmp_path / "out", *gates, "--force", "--allow-incomplete")


def test_a_gate_on_one_run(tmp_path: Path, bundle: Path, bag: Path) -> None:
    out = tmp_path / "out"
    run(bag, *options(bundle, out), "--fail-if", "miou < 0.9", "--fail-if", "dropped > 0")
    with pytest.raises(SystemExit) as stopped:
        run(bag, *options(bundle, out), "--force", "--fail-if", "psnr_gain.fog < 5")
    assert stopped.value.code == GATE  # no frame is foggy
    with pytest.raises(SystemExit) as stopped:
        run(bag, *options(bundle, out), "--force", "--fail-if", "miou is bad")
    assert stopped.value.code == 2


def test_runs_that_cannot_be_compared(tmp_path: Path, uninterrupted: Path, bundle: Path, bag: Path) -> None:
    with pytest.raises(SystemExit, match="is no run to compare"):
        compare(uninterrupted, tmp_path / "none", "--out", tmp_path / "out")
    run(bag, *options(bundle, tmp_path / "other"), "--image-topic", "/front/image_raw")
    with pytest.raises(SystemExit, match="have no frame in common"):
        compare(uninterrupted, tmp_path / "other", "--out", tmp_path / "out")
    (tmp_path / "other/frames.parquet").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match="cannot be read as a run's frames"):
        compare(uninterrupted, tmp_path / "other", "--out", tmp_path / "out", "--force")


@pytest.mark.parametrize("kind", ["png", "mcap"])
def test_masks_and_restored_frames_of_every_frame_are_kept(tmp_path: Path, bundle: Path, bag: Path, kind: str) -> None:
    import cv2

    out = tmp_path / "out"
    run(bag, *options(bundle, out), "--outputs", kind)
    if kind == "png":
        files = sorted((out / "frames/front").iterdir())
        assert len(files) == 4 * COUNT
        mask = next(file for file in files if file.name.startswith("000003_") and ".mask." in file.name)
        assert (cv2.imread(str(mask), cv2.IMREAD_UNCHANGED) == picture(3)[..., 1]).all()
        return
    with Recording(out / "results") as recording:
        names = {
            f"/front/coop/{name}/compressed" for name in ("mask", "mask_raw", "confidence", "image_restored", "overlay")
        }
        assert {name: info.count for name, info in recording.topics.items()} == dict.fromkeys(names, COUNT)
        messages = list(recording.messages(["/front/coop/mask/compressed"]))
        decoded = [decode_compressed(recording.deserialize(message)) for message in messages]
    assert [message.stamp_ns for message in messages] == [100 * SECOND + i * SECOND // 10 for i in range(COUNT)]
    assert all((mask[..., 0] == picture(index)[..., 1]).all() for index, mask in enumerate(decoded))
    assert not (out / ".results").exists()


def test_a_run_that_ends_behind_its_last_frame_still_keeps_every_output(
    tmp_path: Path, bundle: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    arguments = (bag, *options(bundle, tmp_path / "out"), "--outputs", "mcap")
    with monkeypatch.context() as disk:
        disk.setattr(results, "write_report", full)
        with pytest.raises(SystemExit, match="No space left"):
            run(*arguments)
    run(*arguments, "--resume")
    with Recording(tmp_path / "out/results") as recording:
        assert {info.count for info in recording.topics.values()} == {COUNT}
    assert not (tmp_path / "out/.results").exists()


def test_work_ahead_is_closed_where_it_is_not_wanted_any_more() -> None:
    seen: list[int] = []
    closed = []

    def items() -> Any:
        try:
            for index in range(1000):
                seen.append(index)
                yield index
        finally:
            closed.append(True)

    wanted = ahead(items(), 4)
    assert [next(wanted) for _ in range(3)] == [0, 1, 2]
    wanted.close()
    assert closed == [True]
    assert len(seen) < 10


def test_work_ahead_fails_where_it_would_have_failed() -> None:
    def items() -> Any:
        yield 1
        raise ValueError("broken")

    found = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(ahead(items(), 4))
    assert found == [1]


def test_options_that_do_not_go_together(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, says in (
        (["--live", "--workers", "2"], "--workers: only offline"),
        (["--recorded", "--resume"], "--resume: only offline"),
        (["--node", "/x"], "--node is for --live"),
        (["--start", "5", "--end", "2"], "--start 5 lies behind --end 2"),
        (["--every", "0"], "expected a whole number above 0"),
        (["--start", "nan"], "expected seconds"),
        (["--live", "--node", "a b"], "expected a node's full name"),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(bag, *given)
        assert stopped.value.code == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_networks_that_fail_on_a_frame_cost_that_frame(
    tmp_path: Path, bundle: Path, bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coop_perception.engines import EngineError
    from coop_perception.model.pipeline import Pipeline

    original = Pipeline.run

    def fails(self: Pipeline, frames: Any, wanted: Any, **rest: Any) -> Any:
        if np.array_equal(frames[0], picture(2)):
            raise EngineError("out of memory")
        return original(self, frames, wanted, **rest)

    monkeypatch.setattr(Pipeline, "run", fails)
    with pytest.raises(SystemExit) as stopped:
        run(bag, *options(bundle, tmp_path / "out"))
    assert stopped.value.code == INCOMPLETE
    summary = summary_of(tmp_path / "out")
    assert summary["frames"] == {"read": COUNT, "processed": COUNT - 1, "dropped": 0, "failed": 1}
    assert "frame 2: out of memory" in summary["warnings"]
    shutil.rmtree(tmp_path / "out")
