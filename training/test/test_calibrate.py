"""Calibration: what it is fitted to, and that confidence is then what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from coop_training import calibrate
from coop_training.calibrate import Judged, collect, fit
from coop_training.config import StageConfig, StagesConfig, TrainConfig
from coop_training.frames import unlabelled
from coop_training.model import Cooperative
from coop_training.networks.calibration import Calibration
from rich.console import Console
from safetensors.torch import load_file
from smoke_run import run

from coop_perception.sample_scene.drive import SampleDrive

IMAGES, PIXELS = 40, 150


def judged() -> Judged:
    """Where the first condition is present, 0.9 and 0.7 are right in 0.72 and 0.6 of pixels; else they are true."""
    generator = torch.Generator().manual_seed(0)
    presence = torch.zeros(IMAGES, 2)
    presence[::2, 0] = 1
    image = torch.arange(IMAGES).repeat_interleave(PIXELS)
    confidence = torch.where(torch.rand(len(image), generator=generator) < 0.5, 0.9, 0.7)
    truth = torch.where(presence[image, 0] > 0, torch.where(confidence > 0.8, 0.72, 0.6), confidence)
    right = (torch.rand(len(image), generator=generator) < truth).float()
    return Judged(confidence, right, image, presence)


def test_temperature_rises_where_masks_are_surer_than_they_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "STEPS", 150)
    calibration = Calibration(11, 2)
    assert "temperature of clear images" in fit(calibration, judged())
    with torch.no_grad():
        adverse = calibration(torch.full((1, 1, 1), 0.9), torch.tensor([[1.0, 0.0]])).item()
        clear = calibration(torch.full((1, 1, 1), 0.9), torch.zeros(1, 2)).item()
    assert adverse < 0.8 < clear
    assert clear == pytest.approx(0.9, abs=0.04)


def test_pixels_are_judged_by_labels_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "PER_FRAME", 1)
    config = TrainConfig(name="few", mixtures=True, stages=StagesConfig(segmenter=StageConfig(steps=1)))
    torch.manual_seed(0)
    model = Cooperative(config).eval()
    drive = SampleDrive(3, 176, 144)
    frames = []
    for index in range(2):
        shown = drive.frame(30 * index)
        frame = unlabelled(shown.image)
        frame.mask[:] = shown.mask
        frames.append(frame)
    found = collect(model, [frames], config, Console(quiet=True))
    assert found.presence.shape == (4, len(config.conditions))
    assert found.image.max() == 3
    assert ((found.right == 0) | (found.right == 1)).all()
    assert ((found.confidence > 0) & (found.confidence <= 1)).all()


def test_command(
    trained: Path,
    config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By default on the drive that was held out; nothing but the calibration changes."""
    monkeypatch.setattr(calibrate, "STEPS", 20)
    out = tmp_path / "calibrated.safetensors"
    arguments = ("--checkpoint", trained / "joint.safetensors", "--config", config_file, "--out", out)
    assert run(calibrate.main, *arguments) == 0, capsys.readouterr().err
    before, after = load_file(trained / "joint.safetensors"), load_file(out)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"calibration.temperature.weight", "calibration.temperature.bias"}
    assert run(calibrate.main, *arguments, "--force", "--drives", "absent") == 1
    assert "no frame of the drives absent" in capsys.readouterr().err
    assert run(calibrate.main, *arguments, "--force", "--set", "data.exclude=[]") == 1
    assert "no drive was left out of training" in capsys.readouterr().err
