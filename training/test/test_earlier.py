"""Results and progress of an earlier run in coop-train's output folder: kept, refused or put aside, never deleted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from coop_training.earlier import put_aside
from coop_training.log import drop_lines
from coop_training.run import STAGES

from coop_perception.replacing import alone

Train = Callable[..., int]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write_run(out: Path) -> Path:
    lines = [{"stage": stage, "step": step} for stage in STAGES[:3] for step in (0, 1)]
    (out / "tensorboard/refinement").mkdir(parents=True)
    for name, text in {
        "segmenter.safetensors": "a",
        "refinement.safetensors": "b",
        "progress.safetensors": "c",
        "nonfinite-refinement-7.safetensors": "d",
        "tensorboard/refinement/events": "e",
        "run.json": "{}",
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
    }.items():
        (out / name).write_text(text)
    return out


@pytest.mark.parametrize("name", ["segmenter.safetensors", "joint.safetensors", "progress.safetensors"])
def test_results_and_progress_are_not_begun_over_unasked(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_bytes(b"days of work")
    assert coop_train(out) == 1
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"coop-train: {out / name}: of an earlier run; go on with --resume, begin anew with --force, or take another "
        "--out"
    ]
    assert content(out) == {name: b"days of work"}


def test_nothing_is_put_aside_for_a_training_that_cannot_begin(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = write_run(tmp_path / "run")
    before = content(out)
    assert coop_train(out, "--force", "--set=data.root=/data/cmavid") == 1
    assert "/data/cmavid" in capsys.readouterr().err
    assert content(out) == before


def test_two_runs_do_not_write_the_same(coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = write_run(tmp_path / "run")
    before = content(out)
    with alone(out, "the first"):
        assert coop_train(out, "--resume") == 1
    assert (
        capsys.readouterr().err == f"coop-train: {out}: another process is writing it; wait, or choose another name\n"
    )
    assert content(out) == before


@pytest.mark.parametrize(
    ("record", "says"),
    [("{", "cannot be read as JSON"), ("[]", "is no record"), ('{"stages": {"joint": 5}}', "is no record")],
)
def test_a_record_that_cannot_be_added_to_is_said_before_the_training(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], record: str, says: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text(record)
    assert coop_train(tmp_path / "run") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"run.json: {says}" in line


def test_of_a_log_that_was_edited_the_lines_of_a_stage_go(tmp_path: Path) -> None:
    lines = [
        b'{"stage": "joint", "step": 4}',
        b"[]",
        b"\xff",
        b'{"stage": "joint"}',
        b'{"stage": "joint", "step": "x"}',
    ]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    drop_lines(tmp_path, "joint", 3)
    assert (tmp_path / "log.jsonl").read_bytes().splitlines() == [lines[1], lines[3], lines[4]]


def test_what_is_begun_anew_is_put_aside(tmp_path: Path) -> None:
    out = write_run(tmp_path / "run")
    before = content(out)
    put_aside(out, ("refinement", "restoration"), [out / f"{s}.safetensors" for s in ("refinement", "progress")])
    after = content(out)
    moved = {"refinement.safetensors", "progress.safetensors", "nonfinite-refinement-7.safetensors"}
    moved |= {"tensorboard/refinement/events"}
    copied = {"log.jsonl", "run.json"}
    assert {name: after[f"earlier-1/{name}"] for name in moved | copied} == {n: before[n] for n in moved | copied}
    assert set(after) == {f"earlier-1/{name}" for name in moved | copied} | (set(before) - moved)
    assert {json.loads(line)["stage"] for line in after["log.jsonl"].splitlines()} == {"segmenter"}

    put_aside(out, ("refinement",), [])
    assert not (out / "earlier-2").exists()
    put_aside(out, ("segmenter",), [out / "segmenter.safetensors"])
    assert content(out / "earlier-2")["segmenter.safetensors"] == b"a"
