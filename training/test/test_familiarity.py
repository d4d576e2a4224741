"""Familiarity: what it is fitted to, and that it then tells what restoration would spoil."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from coop_training import familiarity
from coop_training.familiarity import CHANGED_DB, Outcomes, fit, gained
from coop_training.networks.condition import TRUSTING, Estimate, Estimator, trust
from coop_training.unknown import KINDS, Kind, unknown
from safetensors.torch import load_file
from smoke_run import run

from coop_perception.metrics import psnr
from coop_perception.sample_scene.drive import SampleDrive

SIZE, CONDITIONS = 12, ("clear", "fog", "gaussian_noise")


def test_it_is_fitted_to_outcomes() -> None:
    """Images whose third statistic is high are spoilt where fog is estimated, and there alone."""
    torch.manual_seed(0)
    statistics = torch.randn(1200, SIZE)
    fog = torch.rand(1200) < 0.5
    posterior = torch.eye(3)[torch.where(fog, 1, 2)]
    spoilt = fog & (statistics[:, 2] > 0.3)
    estimator = Estimator(SIZE, CONDITIONS).eval()
    before = estimator.condition[1].weight.clone()
    outcomes = Outcomes(statistics, Estimate(posterior, torch.ones(1200)), torch.where(spoilt, -2.0, 2.0))
    assert "held out" in fit(estimator, outcomes)
    assert torch.equal(estimator.condition[1].weight, before)
    with torch.no_grad():
        found = trust(estimator.outcome(statistics, outcomes.estimate))
    clearly = (statistics[:, 2] - 0.3).abs() > 0.5
    assert found[spoilt & clearly].mean() < 0.1
    assert found[~spoilt & clearly].mean() > 0.9


def test_before_it_is_fitted_everything_is_trusted() -> None:
    estimator = Estimator(SIZE, CONDITIONS).eval()
    assert estimator.estimate(torch.randn(5, SIZE)).familiarity.tolist() == [1.0] * 5  # type: ignore[union-attr]


def test_trust_has_both_ends() -> None:
    logits = torch.tensor([-9.0, -TRUSTING, 0.0, TRUSTING, 9.0])
    assert trust(logits).tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]


def test_a_clear_image_is_spoilt_by_a_change() -> None:
    clear = np.random.default_rng(0).integers(0, 200, (20, 30, 3), np.uint8)
    assert gained(clear, clear, clear) > 0
    assert gained(clear, clear, clear + 9) == pytest.approx((psnr(clear, clear + 9) - CHANGED_DB) / 3)
    assert gained(clear, clear + 18, clear + 9) == pytest.approx(20 * np.log10(2))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_change_of_each_kind_is_one_and_the_same_each_time(kind: Kind) -> None:
    image = SampleDrive(3, 128, 96).frame(4).image
    before = image.copy()
    changed = [kind(image, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(changed[0], changed[1])
    assert changed[0].shape == image.shape
    assert changed[0].dtype == np.uint8
    assert 8 < psnr(image, changed[0]) < 60
    assert not np.array_equal(changed[0], changed[2])


def test_changes_are_drawn_from_all_kinds() -> None:
    image = SampleDrive(3, 64, 48).frame(4).image
    seen = {unknown(image, np.random.default_rng(seed)).tobytes() for seed in range(30)}
    assert len(seen) == 30


def test_command(exported: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the third network of the estimate changes."""
    cameras = tmp_path / "cameras"
    cameras.mkdir()
    cv2.imwrite(str(cameras / "a.png"), SampleDrive(4, 200, 120).frame(0).image[..., ::-1])
    arguments = ("--bundle", exported / "bundle", "--config", config_file, "--samples", 20)
    arguments += ("--set=stages.segmenter.learning_rate=1e-2", "--out", tmp_path / "familiar.safetensors")
    assert run(familiarity.main, *arguments, "--cameras", cameras) == 0, capsys.readouterr().err
    weights = load_file(tmp_path / "familiar.safetensors")
    assert weights["refinement.estimator.familiar.4.weight"].any()
    trained = load_file(exported / "run" / "joint.safetensors")
    name = "segmenter.classify.weight"
    torch.testing.assert_close(weights[name], trained[name], rtol=1e-3, atol=1e-4)
    assert run(familiarity.main, *arguments, "--force", "--cameras", tmp_path / "absent") == 1
    assert "absent: no such folder" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(familiarity, "STEPS", 600)
