"""The condition estimate: what is read from statistics, and its fitting after a stage."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from coop_training import estimator as fitting
from coop_training.estimator import fit
from coop_training.networks.condition import Estimator
from safetensors.torch import load_file

SIZE, CONDITIONS = 8, ("clear", "gaussian_blur", "fog")


def images(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Statistics that tell everything: the first four which condition, for none may be relied on alone, the fifth how
    strong; the others nothing, the last being the same in all images."""
    generator = torch.Generator().manual_seed(count)
    condition = torch.arange(count) % len(CONDITIONS)
    strength = torch.rand(count, generator=generator) * (condition > 0)
    statistics = torch.randn(count, SIZE, generator=generator)
    statistics[:, :4] = 30.0 * (condition.float()[:, None] - 1) + 100
    statistics[:, 4] = 0.01 * strength
    statistics[:, -1] = 7
    return statistics, condition, strength


def test_it_learns_what_the_statistics_tell() -> None:
    torch.manual_seed(0)
    estimator = Estimator(SIZE, CONDITIONS)
    fit(estimator, *images(600), steps=600)
    statistics, condition, strength = images(90)
    found = estimator.estimate(statistics)
    assert torch.equal(found.posterior.argmax(1), condition)
    assert (found.strength - strength).abs().mean() < 0.05
    assert found.posterior.max(1).values.min() > 0.9


def test_strength_is_the_expected_one() -> None:
    torch.manual_seed(0)
    estimator, statistics = Estimator(SIZE, CONDITIONS).eval(), torch.randn(4, SIZE)
    logits, strengths = estimator(statistics)
    found = estimator.estimate(statistics)
    torch.testing.assert_close(found.strength, (logits.softmax(1)[:, 1:] * strengths.clamp(0, 1)).sum(1))


def test_an_image_unlike_all_others_is_not_told_the_more_surely() -> None:
    torch.manual_seed(0)
    estimator = Estimator(SIZE, CONDITIONS)
    fit(estimator, *images(90), steps=1)
    far = estimator.centre + 1e3 * estimator.spread
    torch.testing.assert_close(estimator(far[None])[0], estimator(far[None] + 1e6 * estimator.spread)[0])


def test_it_is_fitted_when_refinement_has_been_trained(trained: Path) -> None:
    fitted = {
        name: {key: value for key, value in load_file(trained / f"{name}.safetensors").items() if "estimator" in key}
        for name in ("segmenter", "refinement", "restoration", "joint")
    }
    weight = "refinement.estimator.condition.1.weight"
    assert not fitted["segmenter"]["refinement.estimator.centre"].any()
    assert fitted["refinement"]["refinement.estimator.centre"].any()
    assert not torch.equal(fitted["segmenter"][weight], fitted["refinement"][weight])
    assert torch.equal(fitted["refinement"][weight], fitted["restoration"][weight])
    assert not torch.equal(fitted["restoration"][weight], fitted["joint"][weight])


def test_fitting_can_be_interrupted_and_ends_the_same(
    coop_train: Callable[..., int], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only = ("--set=stages.restoration=null", "--set=stages.joint=null")
    collect = fitting.collect

    def interrupted(*arguments: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return collect(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(fitting, "collect", interrupted)
        assert coop_train(tmp_path / "parts", *only) == 130
    assert not (tmp_path / "parts" / "refinement.safetensors").exists()
    assert coop_train(tmp_path / "parts", *only, "--resume") == 0
    parts, whole = (load_file(out / "refinement.safetensors") for out in (tmp_path / "parts", trained))
    assert all(torch.equal(parts[key], whole[key]) for key in whole)
