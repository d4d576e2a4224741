"""Familiarity: what it is fitted to, and that it is then low where restoration would spoil."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from coop_training import familiarity
from coop_training.config import StageConfig, StagesConfig, TrainConfig
from coop_training.estimator import LEAST_SIDE
from coop_training.familiarity import AVERSION, CHANGED_DB, Outcomes, fit, gained, outcome, sample
from coop_training.frames import unlabelled
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimator
from coop_training.unknown import KINDS, Kind, unknown
from safetensors.torch import load_file
from smoke_run import run

from coop_perception.metrics import psnr
from coop_perception.sample_scene.drive import SampleDrive

CONDITIONS, SEEN = 2, 200


def of_gains(statistics: torch.Tensor, presence: torch.Tensor, gains: torch.Tensor) -> Outcomes:
    """Of adverse frames that a whole change brings so many dB nearer."""
    error = torch.full_like(gains, 0.01)
    common = torch.where(gains > 0, error / 2, 0.0)
    change = error * 10 ** (-gains / 10) - error + 2 * common
    assert (change >= 0).all()
    return Outcomes(statistics, presence, torch.ones_like(presence), torch.ones_like(gains), error, common, change)


def test_it_is_fitted_to_outcomes() -> None:
    """Frames whose third statistic is high are spoilt where the first condition is estimated, and there alone."""
    torch.manual_seed(0)
    estimator = Estimator(SEEN, CONDITIONS).eval()
    statistics = torch.randn(1200, len(estimator.centre))
    first = torch.rand(1200) < 0.5
    presence = torch.eye(2)[torch.where(first, 0, 1)]
    spoilt = first & (statistics[:, 2] > 0.3)
    before = {name: tensor.clone() for name, tensor in estimator.state_dict().items()}
    outcomes = of_gains(statistics, presence, torch.where(spoilt, -2.0, 2.0))
    assert "held out" in fit(estimator, outcomes, 600)
    changed = {name for name, tensor in estimator.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("familiar.")}
    with torch.no_grad():
        found = estimator.outcomes(statistics, presence, torch.ones(1200, 2)).amin(1)
    clearly = (statistics[:, 2] - 0.3).abs() > 0.5
    assert found[spoilt & clearly].mean() < found[~spoilt & clearly].mean() - 4
    assert (found[spoilt & clearly] < 0).float().mean() > 0.9


def test_the_least_trusting_member_decides() -> None:
    estimator = Estimator(SEEN, CONDITIONS).eval()
    with torch.no_grad():
        for member, bias in zip(estimator.familiar, (2.0, -1.0, 1.0), strict=True):
            member[-1].bias.fill_(bias)
        found = estimator.estimate(torch.zeros(1, len(estimator.centre)))
    assert float(found.familiarity) == pytest.approx(0.25)


def test_losses_weigh_more_than_gains() -> None:
    """Where as many frames are spoilt as gain, and nothing separates them, so much of the change is made as is best
    for all of them together."""
    torch.manual_seed(0)
    estimator = Estimator(SEEN, CONDITIONS).eval()
    presence = torch.ones(400, 2)
    outcomes = of_gains(
        torch.zeros(400, len(estimator.centre)), presence, torch.where(torch.arange(400) % 2 == 0, -1.0, 1.0)
    )
    fit(estimator, outcomes, 300)
    weights = torch.linspace(0, 1, 101)
    gains = torch.stack([gained(outcomes, torch.full((400,), float(weight))) for weight in weights])
    best = weights[torch.where(gains > 0, gains, AVERSION * gains).mean(1).argmax()]
    assert 0.05 < best < 0.3
    with torch.no_grad():
        found = estimator.outcomes(outcomes.statistics[:1], presence[:1], presence[:1]).amin(1).sigmoid()
    assert float(found) == pytest.approx(float(best), abs=0.05)


def test_samples_are_frames_of_all_cameras_and_cutouts_of_the_others(tmp_path: Path) -> None:
    config = TrainConfig(name="few", mixtures=True, stages=StagesConfig(segmenter=StageConfig(steps=1)))
    own = [unlabelled(SampleDrive(3, 160, 96).frame(0).image)]
    cv2.imwrite(str(tmp_path / "other.png"), SampleDrive(4, 200, 120).frame(0).image[..., ::-1])
    drawn = [sample(own, [tmp_path / "other.png"], config, np.random.default_rng(seed)) for seed in range(24)]
    shapes = {clear.shape for clear, _ in drawn}
    assert {(96, 160, 3), (120, 200, 3)} < shapes
    assert all(height == 120 and LEAST_SIDE <= width < 200 for height, width, _ in shapes if width not in (160, 200))
    assert all(clear.shape == degraded.shape for clear, degraded in drawn)
    assert 0 < sum(np.array_equal(clear, degraded) for clear, degraded in drawn) < 12
    again = sample(own, [tmp_path / "other.png"], config, np.random.default_rng(5))
    np.testing.assert_array_equal(again[1], drawn[5][1])


def test_a_restoration_that_is_identity_gains_nothing() -> None:
    config = TrainConfig(name="few", mixtures=True, stages=StagesConfig(segmenter=StageConfig(steps=1)))
    torch.manual_seed(0)
    model = Cooperative(config).eval()
    frame = SampleDrive(3, 176, 144).frame(0).image
    degraded = unknown(frame, np.random.default_rng(1))
    found = outcome(model, frame, degraded, config.input.sizes)
    assert found.error > 0
    assert gained(found, torch.ones(1)).tolist() == [0.0]
    assert found.presence.shape == found.strength.shape == (1, len(config.conditions))
    assert found.statistics.isfinite().all()


def test_a_clear_image_is_spoilt_by_a_change() -> None:
    clear = np.random.default_rng(0).integers(0, 200, (20, 30, 3), np.uint8)
    changed = float(np.mean((9 / 255) ** 2))
    unspoilt, spoilt, mended = (
        Outcomes(*torch.zeros(4, 1), *(torch.tensor([value]) for value in values))
        for values in ((0.0, 0.0, 0.0), (0.0, 0.0, changed), (4 * changed, 2 * changed, changed))
    )
    assert gained(unspoilt, torch.ones(1)) == 0
    assert float(gained(spoilt, torch.ones(1))) == pytest.approx((psnr(clear, clear + 9) - CHANGED_DB) / 3, abs=1e-3)
    assert gained(spoilt, torch.zeros(1)) == 0
    # An image that is 18 levels off is brought half of the way, then a quarter of it.
    assert float(gained(mended, torch.ones(1))) == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert float(gained(mended, torch.full((1,), 0.5))) == pytest.approx(20 * np.log10(4 / 3), abs=1e-3)


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


def test_too_few_samples_to_hold_one_out_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(familiarity.main, "--bundle", "any", "--config", "any", "--out", "any", "--samples", 9)
    assert "--samples 9: expected 10 at least" in capsys.readouterr().err


def test_command(
    exported: Path,
    config_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the third network of the estimate changes."""
    monkeypatch.setattr(familiarity, "STEPS", 60)
    cameras = tmp_path / "cameras"
    cameras.mkdir()
    cv2.imwrite(str(cameras / "a.png"), SampleDrive(4, 200, 120).frame(0).image[..., ::-1])
    arguments = ("--bundle", exported / "bundle", "--config", config_file, "--samples", 20)
    arguments += ("--set=stages.segmenter.learning_rate=1e-2", "--out", tmp_path / "familiar.safetensors")
    assert run(familiarity.main, *arguments, "--cameras", cameras) == 0, capsys.readouterr().err
    weights = load_file(tmp_path / "familiar.safetensors")
    assert weights["refinement.estimator.familiar.0.4.weight"].any()
    trained = load_file(exported / "run" / "joint.safetensors")
    name = "segmenter.classify.weight"
    torch.testing.assert_close(weights[name], trained[name], rtol=1e-3, atol=1e-4)
    assert run(familiarity.main, *arguments, "--force", "--cameras", tmp_path / "absent") == 1
    assert "absent: no such folder" in capsys.readouterr().err
