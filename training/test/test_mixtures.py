"""Several conditions at once, in many forms."""

from __future__ import annotations

import numpy as np
import pytest
from coop_training import mixtures
from coop_training.layouts.frame import NO_DEPTH, LabelledFrame
from coop_training.mixtures import KINDS, NUMBERS, Scene, mixture, other_camera, shaded
from numpy.typing import NDArray

from coop_perception.sample_scene.drive import SampleDrive


@pytest.fixture(scope="module")
def scene() -> Scene:
    drive = SampleDrive(3)
    shown = drive.frame(40)
    frame = LabelledFrame(shown.image, shown.mask, shown.depth.astype(np.float16), drive.intrinsics)
    return Scene(frame, shown.depth, drive.frame(200).image)


def only(*names: str) -> NDArray[np.float64]:
    return np.array([float(kind.name in names) for kind in KINDS])


def rms(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("index", range(len(KINDS)), ids=[kind.name for kind in KINDS])
def test_each_form_of_each_kind_changes_a_frame_and_says_how_strongly(scene: Scene, index: int) -> None:
    image = scene.frame.image
    for form in KINDS[index].forms:
        degraded, strength = form(image, scene, np.random.default_rng(5))
        assert degraded.shape == image.shape
        assert degraded.dtype == np.uint8
        assert 0 <= strength <= 1
        assert rms(degraded, image) > 0.5


def test_equal_seeds_give_equal_mixtures(scene: Scene) -> None:
    first, again, other = (mixture(scene, np.ones(len(KINDS)), np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])


def test_one_to_three_conditions_are_there_as_often_as_is_said(scene: Scene) -> None:
    cheap = only("compression", "noise", "blur", "glare", "chromatic_aberration", "reflection")
    drawn = [mixture(scene, cheap, np.random.default_rng(seed))[1] for seed in range(60)]
    counts = np.array([np.count_nonzero(strengths) for strengths in drawn])
    assert set(counts) <= {0, 1, 2, 3}  # a shift too small to see is none
    assert abs(np.mean(counts <= 1) - NUMBERS[0]) < 0.2
    assert not np.any(np.array(drawn)[:, cheap == 0])


def test_frames_without_depth_are_under_no_condition_that_needs_it(scene: Scene) -> None:
    frame = scene.frame
    flat = Scene(LabelledFrame(frame.image, frame.mask, NO_DEPTH, frame.intrinsics), None, scene.reflected)
    for seed in range(8):
        strengths = mixture(flat, only("fog", "rain"), np.random.default_rng(seed))[1]
        assert strengths[0] == 0 < strengths[1]


def test_strength_rises_with_what_is_done(scene: Scene) -> None:
    kinds = {kind.name: kind.forms for kind in KINDS}
    for name in ("fog", "blur", "noise", "compression"):
        results = [kinds[name][0](scene.frame.image, scene, np.random.default_rng(seed)) for seed in range(12)]
        changes = [rms(image, scene.frame.image) for image, _ in results]
        strengths = [strength for _, strength in results]
        assert np.corrcoef(np.argsort(np.argsort(changes)), np.argsort(np.argsort(strengths)))[0, 1] > 0.95


def test_another_cameras_image_shows_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "SHADED", 0.0)
    image = scene.frame.image
    images = [other_camera(image, np.random.default_rng(seed)) for seed in range(6)]
    assert len({view.tobytes() for view in images}) > 3
    assert all(np.corrcoef(view.ravel(), image.ravel())[0, 1] > 0.9 for view in images)


def test_shade_has_an_opening(scene: Scene) -> None:
    """What is in the shade is darker against what is not: by more than a stop somewhere."""
    image = scene.frame.image
    for seed in range(8):
        view = shaded(image, np.random.default_rng(seed))
        assert view.shape == image.shape
        assert view.dtype == image.dtype
        lit = (image.min(2) > 40) & (view.max(2) < 255)
        ratio = (view[lit].mean(1) / image[lit].mean(1)) ** 2.2
        assert ratio.max() > 2 * ratio.min()
