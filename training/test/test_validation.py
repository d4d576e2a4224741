"""Validation while a stage is trained: on what, what is scored, and that the best is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from coop_training import validation
from coop_training.config import load_config
from coop_training.data import Degraded
from coop_training.frames import load_frames, validation_frames
from coop_training.layouts.frame import LabelledFrame
from coop_training.model import Cooperative
from coop_training.validation import validate
from random_model import CONFIG
from safetensors.torch import load_file
from smoke_run import write_frames
from torch import Tensor, nn

from coop_perception.camera import Intrinsics
from coop_perception.contracts import InputSizes
from coop_perception.image_files import DatasetError

HEIGHT, WIDTH = 96, 128
SEGMENTER = ("--stage", "segmenter", "--set=ema=0")


@pytest.mark.parametrize(
    ("override", "trained", "validated"),
    [
        ("data.validation_share=0.34", 2, ["a_2"]),
        ("data.validation_share=0", 3, []),
        ("data.validation_share=0.99", 1, ["a_1", "a_2"]),
        ("data.validation_split=val", 3, ["b_4"]),
    ],
)
def test_what_is_validated_on_is_not_trained_on(
    config_file: Path, root: Path, override: str, trained: int, validated: list[str]
) -> None:
    data = load_config(config_file, ["data.validation_split=null", override]).data
    assert len(load_frames(data, ())) == trained
    everything = load_config(config_file, ["data.validation_split=null", "data.validation_share=0"]).data
    split = "val" if data.validation_split else "train"
    images = [frame.image for frame in load_frames(everything.model_copy(update={"split": split}), ())]
    names = sorted(path.stem for path in (root / "images" / split).iterdir() if not path.stem.startswith("held"))
    found = [frame.image for frame in validation_frames(data, (), 24)]
    places = [next(i for i, other in enumerate(images) if np.array_equal(image, other)) for image in found]
    assert [names[place] for place in places] == validated


def test_without_a_data_set_other_drives_are_rendered(config_file: Path) -> None:
    data = load_config(config_file, ["data={sample_drives: 1, frames_per_drive: 3}"]).data
    own = load_frames(data, ())
    other = validation_frames(data, (), 2)
    assert len(other) == 2
    assert not any(np.array_equal(frame.image, mine.image) for frame in other for mine in own)


def test_frames_without_a_label_cannot_be_validated_on(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coop_training.frames.UnreadFrames.__getitem__", lambda *_: labelled(255))
    with pytest.raises(DatasetError, match="none of the 1 frames to validate on has a label; give another"):
        validation_frames(load_config(config_file).data, (), 24)


def test_what_cannot_be_validated_on_ends_all_processes(config_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_frames(own)
    broken = own / "images/val/b_4.png"
    broken.write_bytes(broken.read_bytes()[:99])
    command = [
        sys.executable,
        "-m",
        "coop_training.train",
        "--config",
        str(config_file),
        "--out",
        str(tmp_path / "run"),
    ]
    options = [*SEGMENTER, f"--set=data.root={own}", "--accelerator", "cpu", "--devices", "2", "--precision", "32-true"]
    ended = subprocess.run(
        [*command, *options], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.count(f"coop-train: {broken}") == 1
    assert "Traceback" not in ended.stderr


def labelled(of_right_half: int) -> LabelledFrame:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    mask = np.full((HEIGHT, WIDTH), of_right_half, np.uint8)
    mask[:, : WIDTH // 2] = 3 if of_right_half != 255 else 255
    return LabelledFrame(image, mask, np.empty((0, 0), np.float16), Intrinsics.from_fov(WIDTH, HEIGHT))


class Always(nn.Module):
    """A segmenter that finds class 3 everywhere."""

    def forward(self, image: Tensor) -> Tensor:
        logits = torch.zeros(len(image), 11, image.shape[-2] // 4, image.shape[-1] // 4)
        logits[:, 3] = 5
        return logits


def test_figures_are_those_of_what_is_trained() -> None:
    """Refinement and restoration start as identity."""
    model = Cooperative(CONFIG)
    model.segmenter = Always()
    modes = [module.training for module in model.modules()]
    frame = labelled(7)
    degraded = np.clip(frame.image.astype(int) + 10 * (frame.image < 128), 0, 255).astype(np.uint8)
    views = [Degraded(frame, degraded, np.array([0, 0.5], np.float32))] * 2
    error = 100 * (frame.image < 128).mean()
    expected = {"miou": 25.0, "miou_raw": 25.0, "psnr": 10 * np.log10(255**2 / error)}
    expected["psnr_degraded"] = expected["psnr"]
    for trained, names in {
        ("segmenter",): ["miou"],
        ("refinement",): ["miou_raw", "miou"],
        ("restoration",): ["psnr_degraded", "psnr"],
        ("refinement", "restoration"): ["miou_raw", "miou", "psnr_degraded", "psnr"],
    }.items():
        figures = validate(model, views, trained, InputSizes(96, 32, 2048, 64))
        assert figures == {name: pytest.approx(expected[name], abs=1e-3) for name in names}
    assert [module.training for module in model.modules()] == modes


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Tensor]]]:
    """Scores after each step are 10, 30, 20; these are the segmenters that had them."""
    seen: list[dict[str, Tensor]] = []

    def scripted(model: Cooperative, *_: object) -> dict[str, float]:
        seen.append({f"segmenter.{name}": value.clone() for name, value in model.segmenter.state_dict().items()})
        return {"miou": (10.0, 30.0, 20.0)[len(seen) - 1]}

    monkeypatch.setattr(validation, "EVERY", 1)
    monkeypatch.setattr(validation, "validate", scripted)
    return seen


def assert_best_is_the_result(out: Path, weights: list[dict[str, Tensor]]) -> None:
    result = load_file(out / "segmenter.safetensors")
    assert all(torch.equal(result[name], value) for name, value in weights[1].items())
    assert any(not torch.equal(value, weights[2][name]) for name, value in weights[1].items())
    record = json.loads((out / "run.json").read_text())
    assert record["stages"]["segmenter"]["validation"] == {"miou": 30.0, "steps": 2, "frames": 1}
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    found = [(line["step"], line["validation"]["miou"]) for line in lines if "validation" in line]
    assert found == [(0, 10.0), (1, 30.0), (2, 20.0)]
    assert not (out / "best.safetensors").exists()


def test_a_stages_result_is_the_best_of_its_averages(
    coop_train: Callable[..., int], tmp_path: Path, weights: list[dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert coop_train(out, *SEGMENTER, "--precision", "32-true") == 0
    assert_best_is_the_result(out, weights)
    said = capsys.readouterr()
    assert "segmenter, step 2: mIoU 30.0 %, the best so far" in said.err
    assert "segmenter, step 3: mIoU 20.0 %\n" in said.err
    ended, following = said.out.splitlines()
    assert ended.startswith(f"{out / 'segmenter.safetensors'}: mIoU 30.0 % on 1 frames, after 2 of 3 steps; run.json")
    assert f"tensorboard --logdir {out}" in ended
    assert following.startswith("next: coop-train --config ")
    assert following.endswith(f"--set ema=0 --out {out} --precision 32-true --stage refinement")


def test_the_best_outlives_an_interruption(
    coop_train: Callable[..., int], tmp_path: Path, weights: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    scripted = validation.validate

    def then_stop(*arguments: object) -> dict[str, float]:
        figures = scripted(*arguments)  # type: ignore[arg-type]
        if len(weights) == 2:
            signal.raise_signal(signal.SIGINT)
        return figures

    monkeypatch.setattr(validation, "validate", then_stop)
    assert coop_train(out, *SEGMENTER) == 130
    assert coop_train(out, *SEGMENTER, "--resume") == 0
    assert_best_is_the_result(out, weights)
