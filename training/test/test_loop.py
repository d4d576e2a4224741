"""coop-train as a command: stopping and going on, several processes, and what it leaves behind."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from coop_training import loop, monitor, training
from coop_training.checkpoint import read_facts
from coop_training.config import StageConfig, load_config
from coop_training.data import Sample
from coop_training.export import export
from coop_training.frames import load_frames
from coop_training.loop import learning_rate
from coop_training.model import Cooperative
from coop_training.run import STAGES, Run, TrainingError
from coop_training.stages import Stage, stages
from coop_training.terms import Fakes, Losses
from safetensors.torch import load_file
from smoke_run import HEIGHT, WIDTH
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_bundle import open_pipeline

from coop_perception.model.bundle import load_bundle

Train = Callable[..., int]


class KilledError(Exception):
    """As if the process had been killed."""


@pytest.fixture(autouse=True)
def _log_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "LOG_EVERY", 1)


def before_steps(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Have `act` called in each step with the number of steps this process has begun."""
    change_losses(monkeypatch, lambda count, losses: act(count))


def change_losses(monkeypatch: pytest.MonkeyPatch, change: Callable[[int, Losses], None]) -> None:
    count = 0

    def watched(stage: Stage) -> Stage:
        def losses(model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
            nonlocal count
            count += 1
            result, fakes = stage.losses(model, batch)
            change(count, result)
            return result, fakes

        return replace(stage, losses=losses)

    def table(*arguments: Any) -> dict[str, Stage]:
        return {name: watched(stage) for name, stage in stages(*arguments).items()}

    monkeypatch.setattr(training, "stages", table)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def curve(out: Path) -> list[dict[str, Any]]:
    """The log without times."""
    return [{key: value for key, value in line.items() if key not in ("data_wait", "seconds")} for line in log(out)]


def assert_same_results(one: Path, other: Path) -> None:
    for stage in STAGES:
        first, second = (load_file(out / f"{stage}.safetensors") for out in (one, other))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), (stage, name)
    assert curve(one) == curve(other)


def test_a_run_stopped_again_and_again_ends_where_an_uninterrupted_one_does(
    coop_train: Train,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = tmp_path / "cut"
    assert not (trained / "progress.safetensors").exists()

    signals = [signal.SIGTERM, signal.SIGINT] * 3
    statuses, said = [], []
    for number in signals:
        with monkeypatch.context() as patch:
            before_steps(patch, lambda count, number=number: signal.raise_signal(number) if count == 2 else None)
            statuses.append(coop_train(cut, "--resume"))
        said.append(re.sub(r"\s+", " ", capsys.readouterr().err.strip().splitlines()[-1]))
    # Two steps each: the third stop falls on a stage's last step, the last one on the last step of all.
    assert statuses == [130] * 6
    assert "stopped in stage segmenter after step 2 of 3; go on with: coop-train --config " in said[0]
    assert said[0].endswith("--resume")
    assert "stopped in stage refinement after step 1 of 3" in said[1]
    assert "stopped while the conditions' estimate was fitted" in said[2]
    assert coop_train(cut, "--resume") == 0  # no step, the estimate alone
    assert_same_results(trained, cut)
    assert coop_train(cut, "--resume") == 0  # and now there is nothing left to do


def test_a_run_stopped_in_a_stages_last_step_stops_after_the_stage(
    coop_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before_steps(monkeypatch, lambda count: signal.raise_signal(signal.SIGINT) if count == 3 else None)
    assert coop_train(tmp_path) == 130
    assert "stopped after stage segmenter" in capsys.readouterr().err
    assert (tmp_path / "segmenter.safetensors").exists()


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    coop_train: Train, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(count: int) -> None:
        if count == 6:
            raise KilledError

    save = loop.save_progress

    def save_one(*arguments: Any) -> None:
        if arguments[-1]["steps"] == "1":
            save(*arguments)

    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0)
        patch.setattr(loop, "save_progress", save_one)
        before_steps(patch, kill)
        with pytest.raises(KilledError):
            coop_train(cut)
    # It is known to have done more than the checkpoint holds; that much is done again.
    assert (log(cut)[-1]["stage"], log(cut)[-1]["step"]) == ("refinement", 1)
    assert read_facts(cut / "progress.safetensors")["steps"] == "1"
    assert coop_train(cut, "--resume") == 0
    assert_same_results(trained, cut)


def test_resuming_another_configuration_is_refused(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert coop_train(out, "--stage", "segmenter") == 0
    assert coop_train(out, "--resume", "--set", "seed=5", "--set", "stages.joint.steps=4") == 1
    assert (
        "segmenter.safetensors: was made with another configuration: seed is 5, was 0; stages.joint.steps is 4, was 3; "
        "give that one" in capsys.readouterr().err
    )


def test_a_stage_needs_the_one_before(coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coop_train(tmp_path / "run", "--stage", "joint") == 1
    assert "restoration.safetensors: missing; run stage restoration first" in capsys.readouterr().err


def test_what_cannot_be_learnt_from_is_kept(
    coop_train: Train,
    config_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def spoil(count: int, losses: Losses) -> None:
        if count == 2:
            losses["total"] = losses["total"] * float("nan")

    change_losses(monkeypatch, spoil)
    assert coop_train(tmp_path / "run", "--stage", "segmenter") == 1
    path = tmp_path / "run" / "nonfinite-segmenter-1.safetensors"
    message = capsys.readouterr().err
    assert "stage segmenter, step 1: trained: loss nan" in message
    assert str(path) in message
    assert "--set stages.segmenter.learning_rate=0.0005" in message

    facts, batch = read_facts(path), load_file(path)
    assert (facts["stage"], facts["step"], facts["indices"]) == ("segmenter", "1", "[2, 3]")
    config = load_config(config_file)
    frames = load_frames(config.data, ())
    again = Run(None, "", config, None, frames, [], None, path, None)  # type: ignore[arg-type]
    samples = again.samples("segmenter", Stage(("segmenter",), (), False, None, None))  # type: ignore[arg-type]
    for row, index in enumerate((2, 3)):
        assert torch.equal(batch["clear"][row], samples[index].clear)
        assert torch.equal(batch["mask"][row], samples[index].mask)


def test_what_a_run_leaves_behind(coop_train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert coop_train(out, "--stage", "segmenter", "--precision", "32-true") == 0
    assert coop_train(out, "--stage", "refinement", "--set", "clear=0.5") == 0
    steps = [line for line in log(out) if "losses" in line]
    for line in steps:
        assert set(line) == {"stage", "step", "lr", "losses", "data_wait", "seconds"}
        assert 0 <= line["data_wait"] <= 1
    assert [(line["stage"], line["step"]) for line in steps] == [
        (stage, step) for stage in STAGES[:2] for step in range(3)
    ]
    validations = [line for line in log(out) if "validation" in line]
    assert [(line["stage"], line["step"]) for line in validations] == [(stage, 2) for stage in STAGES[:2]]
    assert [list(line["validation"]) for line in validations] == [["miou"], ["miou_raw", "miou"]]

    record = json.loads((out / "run.json").read_text())
    assert record["config"]["clear"] == 0.5
    segmenter, refinement = (record["stages"][name] for name in STAGES[:2])
    assert segmenter["config"]["clear"] == 0.2  # trained with another configuration than the run's latest
    assert "config" not in refinement
    assert (segmenter["precision"], refinement["precision"]) == ("32-true", "bf16-mixed")
    assert refinement["losses"] == steps[-1]["losses"]
    assert refinement["validation"] == {**validations[-1]["validation"], "steps": 3, "frames": 1}
    assert refinement["versions"]["torch"] == torch.__version__
    assert record["networks"]["segmenter"]["macs"] > 1e9
    assert json.loads(read_facts(out / "refinement.safetensors")["record"]) == record

    events = EventAccumulator(str(out / "tensorboard" / "refinement"))
    events.Reload()
    assert {"loss/total", "learning_rate", "data_wait", "validation/miou"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/total")] == [0, 1, 2]
    (panels,) = events.Images("panels")
    assert panels.step == 3
    assert panels.width > 5 * 96
    assert panels.height > 3 * 64  # clear, fog and noise

    (out / "refinement.safetensors").unlink()
    assert coop_train(out, "--stage", "segmenter", "--force") == 0
    assert list(json.loads((out / "run.json").read_text())["stages"]) == ["segmenter"]


def test_two_processes_learn_what_one_does(config_file: Path, coop_train: Train, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    overrides = [
        "ema=0",
        "variant=nafnet",  # whose restoration depends neither on the stages before nor on what each process draws
        "guidance=none",
        "stages.segmenter.batch=8",  # batch normalisation sees a process's own share: not too small a one
        "stages.refinement.learning_rate=1e-4",  # the cross-entropy's mean is over a process's own pixels
        "stages.joint.learning_rate=1e-4",
    ]
    arguments = ["--precision=32-true", *(f"--set={override}" for override in overrides)]
    assert coop_train(one, *arguments) == 0
    command = [sys.executable, "-m", "coop_training.train", "--config", str(config_file), "--out", str(two)]
    processes = ["--accelerator", "cpu", "--devices", "2"]
    subprocess.run([*command, *processes, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    alone = {(line["stage"], line["step"]): line["losses"] for line in curve(one) if "losses" in line}
    shared = {(line["stage"], line["step"]): line["losses"] for line in curve(two) if "losses" in line}
    assert list(shared) == [(stage, step) for stage in STAGES for step in (0, 2)]  # it logs the first and the last
    for place, losses in shared.items():
        assert losses["total"] == pytest.approx(alone[place]["total"], rel=0.1), place

    config = load_config(config_file, overrides)
    torch.manual_seed(config.seed)
    begun = Cooperative(config).parts()
    first, second = (load_file(out / "restoration.safetensors") for out in (one, two))
    for name in ("restoration", "d2"):
        weights = {key: f"{name}.{key}" for key, _ in begun[name].named_parameters()}
        moved = math.hypot(
            *((first[full] - begun[name].get_parameter(key).detach()).norm() for key, full in weights.items())
        )
        apart = math.hypot(*((first[full] - second[full]).norm() for full in weights.values()))
        assert apart < 1e-3 * moved, name


def test_a_file_that_breaks_while_training_ends_it_with_its_name(
    coop_train: Train, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames are read as they are needed, by processes of their own; what was learnt till then is kept."""
    own = shutil.copytree(root, tmp_path / "data")  # the others' tests read it, too
    loader = loop.batch_loader

    def then_broken(*arguments: Any) -> Any:
        for file in (own / "images/train").iterdir():
            file.write_bytes(b"cut off")
        return loader(*arguments)

    monkeypatch.setattr(loop, "batch_loader", then_broken)
    out = tmp_path / "run"
    assert coop_train(out, "--stage", "segmenter", "--set=data.memory_gb=0", f"--set=data.root={own}") == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("coop-train: ")
    assert "/images/train/" in line
    assert (out / "progress.safetensors").exists()


def test_a_file_that_breaks_in_one_process_of_two_is_named_too(config_file: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "second_breaks.py", tmp_path / "run"
    script.write_text(
        """
import os, sys
from coop_perception.image_files import DatasetError
from coop_training import loop, train
from torch.utils.data import Dataset

class Broken(Dataset):
    def __getitem__(self, index):
        raise DatasetError("images/train/cut_off.png: broken")

def batch_loader(samples, *arguments):
    return loader(Broken() if os.environ.get("LOCAL_RANK") == "1" else samples, *arguments)

loader, loop.batch_loader = loop.batch_loader, batch_loader
sys.exit(train.main())
"""
    )
    command = [sys.executable, str(script), "--config", str(config_file), "--out", str(out), "--stage", "segmenter"]
    ended = subprocess.run(
        [*command, "--accelerator", "cpu", "--devices", "2", "--precision", "32-true"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count("coop-train: images/train/cut_off.png: broken") == 1
    assert (out / "progress.safetensors").exists()


def test_a_stage_is_not_trained_anew_beneath_what_was_built_on_it(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert coop_train(out, "--stage", "segmenter") == 0
    later = out / "refinement.safetensors"
    shutil.copy(out / "segmenter.safetensors", later)
    before = (out / "segmenter.safetensors").read_bytes()
    assert coop_train(out, "--stage", "segmenter") == 1
    assert "refinement.safetensors: came of another run of stage segmenter" in capsys.readouterr().err
    assert (out / "segmenter.safetensors").read_bytes() == before
    later.unlink()
    assert coop_train(out, "--stage", "segmenter", "--force") == 0
    assert (out / "earlier-1/segmenter.safetensors").read_bytes() == before


def test_an_output_folder_that_cannot_be_is_named(
    coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert coop_train(tmp_path / "file" / "run", "--stage", "segmenter") == 1
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_peer_takes_a_segmenter_and_leaves_stages_out(coop_train: Train, tmp_path: Path) -> None:
    assert coop_train(tmp_path / "run", "--stage", "segmenter") == 0
    source = tmp_path / "run" / "segmenter.safetensors"
    peer = tmp_path / "peer"
    fields = {f"stages.{stage}": "null" for stage in ("segmenter", "refinement", "joint")}
    fields |= {"segmenter_from": str(source), "guidance": "none", "variant": "nafnet"}
    overrides = [f"--set={field}={value}" for field, value in fields.items()]
    assert coop_train(peer, *overrides) == 0
    assert {line["stage"] for line in log(peer)} == {"restoration"}
    theirs, ours = load_file(source), load_file(peer / "restoration.safetensors")
    segmenter = [name for name in theirs if name.startswith("segmenter.")]
    assert segmenter
    assert all(torch.equal(theirs[name], ours[name]) for name in segmenter)
    assert ours["refinement.correction.weight"].abs().max() == 0  # identity
    assert coop_train(peer, "--stage", "joint", *overrides) == 1


def test_refinement_is_trained_for_a_segmenter_that_exists(coop_train: Train, tmp_path: Path) -> None:
    """Its scores are the image's channels; the bundle has it, unless another is asked for."""
    network = "<ir_version: 8, opset_import: ['': 17]> own (float[N,3,h,w] x) => (float[N,3,h,w] y) {y = Identity(x)}"
    onnx.save(onnx.parser.parse_model(network.replace("'", '"')), tmp_path / "own.onnx")
    description = {"onnx": "own.onnx", "output": {"kind": "logits"}, "classes": {0: "Sky", 1: "Road", 2: "Car"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(description))
    overrides = ["--set=stages.segmenter=null", f"--set=segmenter={tmp_path / 'own.yaml'}"]
    out = tmp_path / "run"
    paper = ["--set=variant=paper"]  # whose graphs are exported in a third of the time
    assert coop_train(out, *overrides, *paper, "--set=stages.joint=null", "--set=stages.restoration.steps=1") == 0
    assert list(dict.fromkeys(line["stage"] for line in log(out))) == ["refinement", "restoration"]
    assert not [name for name in load_file(out / "restoration.safetensors") if name.startswith("segmenter")]

    export(out / "restoration.safetensors", tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 255
    sky = next(c.id for c in bundle.classes if c.name == "Sky")
    mask = open_pipeline(bundle.directory).run([red], ["mask_raw"])[0].mask_raw
    assert mask is not None
    assert (mask == sky).all()

    assert coop_train(tmp_path / "both", f"--set=segmenter={tmp_path / 'own.yaml'}") == 1

    assert coop_train(tmp_path / "reference", "--stage", "segmenter") == 0
    reference = tmp_path / "reference" / "segmenter.safetensors"
    only = ["--set=stages.restoration=null", "--set=stages.joint=null", "--set=stages.refinement.learning_rate=1e-9"]
    assert coop_train(tmp_path / "warm", *overrides, *only, f"--set=segmenter_from={reference}") == 0
    warm, theirs = load_file(tmp_path / "warm" / "refinement.safetensors"), load_file(reference)
    name = "decoder.merge.0.body.0.weight"
    torch.testing.assert_close(warm[f"refinement.{name}"], theirs[f"segmenter.{name}"])


def test_batches_must_divide_evenly(config_file: Path) -> None:
    config = load_config(config_file, ["stages.segmenter.batch=3"])
    with pytest.raises(TrainingError, match=r"stages\.segmenter\.batch is 3, which 2 processes cannot share evenly"):
        training.check_can_begin(STAGES, {}, config, 2)


def test_missing_devices_are_named(coop_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coop_train(tmp_path, "--accelerator", "gpu", "--devices", "99") == 1
    assert "coop-train: --accelerator gpu --devices 99: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        coop_train(tmp_path, "--devices", "-1")
    assert "--devices: '-1': expected a whole number above 0" in capsys.readouterr().err


def test_learning_rate() -> None:
    settings = StageConfig(steps=1000, learning_rate=0.01)
    rates = [learning_rate(step, settings) for step in range(1000)]
    peak = max(range(1000), key=rates.__getitem__)
    assert peak == 99
    assert rates[peak] == pytest.approx(0.01, rel=0.05)
    assert rates[:100] == sorted(rates[:100])
    assert rates[99:] == sorted(rates[99:], reverse=True)
    assert rates[-1] < 1e-7
    short = StageConfig(steps=20, learning_rate=0.01)
    assert learning_rate(1, short) == pytest.approx(0.01, rel=0.01)  # warm-up leaves time at the peak
