"""The conditions' estimate: what it is fitted to, what it learns, and its fitting after a stage."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coop_training import estimator as fitting
from coop_training.config import StageConfig, StagesConfig, TrainConfig
from coop_training.data import Conditions, DegradedFrames
from coop_training.estimator import ABSENT, LEAST_CUTOUT, LEAST_SIDE, SURE, FrameViews, cutout, false_alarms, fit
from coop_training.layouts.frame import LabelledFrame
from coop_training.networks.estimate import Estimator
from safetensors.torch import load_file

from coop_perception.contracts import InputSizes
from coop_perception.sample_scene.drive import SampleDrive

CONDITIONS, SEEN = 2, 600
EVEN = torch.ones(CONDITIONS)


def images(estimator: Estimator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics that say everything: thirty of each condition whether it is there, for none may be relied on alone,
    others how strong it is; the rest nothing, the last being the same in all images. And the strengths."""
    generator = torch.Generator().manual_seed(count)
    strengths = torch.rand(count, CONDITIONS, generator=generator)
    strengths *= torch.rand(count, CONDITIONS, generator=generator) > 0.5
    statistics = torch.randn(count, len(estimator.centre), generator=generator)
    for condition in range(CONDITIONS):
        there = (strengths[:, condition, None] > 0).float()
        statistics[:, 200 * condition : 200 * condition + 30] = 30 * there + 100
        statistics[:, 200 * condition + 30 : 200 * condition + 200] = 0.01 * strengths[:, condition, None]
    statistics[:, -1] = 7
    return statistics, strengths


@pytest.fixture(scope="module")
def fitted() -> Estimator:
    torch.manual_seed(0)
    estimator = Estimator(SEEN, CONDITIONS)
    fit(estimator, *images(estimator, 600), EVEN, steps=150)
    return estimator


def test_it_learns_what_the_statistics_tell(fitted: Estimator) -> None:
    statistics, strengths = images(fitted, 90)
    with torch.no_grad():
        found = fitted.estimate(statistics)
    there = strengths > 0
    assert torch.equal(found.presence > 0.5, there)
    assert (found.strength - strengths).abs()[there].mean() < 0.1


def test_it_is_never_certain(fitted: Estimator) -> None:
    with torch.no_grad():
        presence = fitted.estimate(images(fitted, 90)[0]).presence
    assert presence[presence > 0.5].median() < (1 + SURE) / 2
    assert presence[presence < 0.5].median() > ABSENT / 2
    assert presence.max() < 0.995


def test_an_image_unlike_all_others_is_not_estimated_the_more_surely(fitted: Estimator) -> None:
    far = fitted.centre + 1e3 * fitted.spread
    with torch.no_grad():
        torch.testing.assert_close(fitted(far[None])[0], fitted(far[None] + 1e6 * fitted.spread)[0])


def test_what_costs_more_is_called_present_less_often() -> None:
    """Where an image is as often under a condition as not, and nothing says which."""
    torch.manual_seed(0)
    estimator = Estimator(SEEN, CONDITIONS)
    strengths = (torch.arange(200) % 2).float()[:, None].expand(-1, 2)
    fit(estimator, torch.zeros(200, len(estimator.centre)), strengths, torch.tensor([1.0, 3.0]), steps=300)
    with torch.no_grad():
        found = estimator.estimate(torch.zeros(1, len(estimator.centre))).presence[0]
    assert float(found[0]) == pytest.approx(0.5, abs=0.05)
    assert float(found[1]) == pytest.approx(0.25, abs=0.05)


def test_every_condition_has_its_cost() -> None:
    config = TrainConfig(name="few", mixtures=True, stages=StagesConfig(segmenter=StageConfig(steps=1)))
    found = dict(zip(config.conditions, false_alarms(config).tolist(), strict=True))
    assert found["low_light"] > found["rain"] == 1
    assert false_alarms(config.model_copy(update={"mixtures": False, "conditions": ("fog",)})).tolist() == [1]


def test_fitting_leaves_familiarity_alone() -> None:
    estimator = Estimator(SEEN, CONDITIONS)
    before = {name: tensor.clone() for name, tensor in estimator.familiar.state_dict().items()}
    fit(estimator, *images(estimator, 90), EVEN, steps=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in estimator.familiar.state_dict().items())


def views(length: int = 30) -> FrameViews:
    drive = SampleDrive(4, 320, 240)
    shown = drive.frame(0)
    frame = LabelledFrame(shown.image, shown.mask, shown.depth.astype(np.float16), drive.intrinsics)
    frames = DegradedFrames([frame], Conditions(("fog", "jpeg"), 1 / 3), (0.6, 1.7))
    return FrameViews(frames, length, InputSizes(96, 64, 256, 64), seed=3)


def test_views_are_of_whole_frames_of_many_sizes() -> None:
    items = views()
    found = [items[index] for index in range(30)]
    assert len({item.scene.shape for item in found}) > 1  # of several aspect ratios
    assert {item.scene.shape[1] for item in found} == {96}
    assert {item.scene.shape[2] % 32 for item in found} == {0}
    assert {tuple(item.sensor.shape) for item in found} == {(3, 64, 64)}
    assert 4 < sum(not item.strengths.any() for item in found) < 16
    again = items[17]
    assert torch.equal(again.scene, found[17].scene)
    assert torch.equal(again.sensor, found[17].sensor)


def test_cutouts_keep_most_of_a_frame() -> None:
    for height, width in ((300, 1000), (100, 240)):
        image = np.zeros((height, width, 3), np.uint8)
        shapes = [cutout(image, np.random.default_rng(seed)).shape for seed in range(50)]
        assert min(shape[0] for shape in shapes) >= min(LEAST_SIDE, height)
        assert min(shape[1] for shape in shapes) >= max(LEAST_CUTOUT * width, min(LEAST_SIDE, width))
        assert max(shape[1] for shape in shapes) <= width
        assert len({shape[0] / shape[1] for shape in shapes}) > 20


def test_it_is_fitted_when_refinement_has_been_trained(trained: Path) -> None:
    fitted = {
        name: {key: value for key, value in load_file(trained / f"{name}.safetensors").items() if "estimator" in key}
        for name in ("segmenter", "refinement", "restoration", "joint")
    }
    weight = "refinement.estimator.presence.1.weight"
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
