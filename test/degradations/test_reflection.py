"""Reflections: light adds up, the glass dims, the reflected scene is out of focus."""

from __future__ import annotations

import numpy as np
import pytest
from degradation_scenes import blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.degradations import degrade
from coop_perception.degradations.interior import vehicle_interior
from coop_perception.degradations.reflection import reflection
from coop_perception.metrics import psnr

BLACK = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture
def image() -> np.ndarray:
    return blocks()


def test_no_reflectance_is_no_change(image: np.ndarray) -> None:
    assert np.array_equal(reflection(image, 0, np.random.default_rng(0)), image)


@pytest.mark.parametrize("reflectance", [0.1, 0.4, 1.0])
def test_before_darkness_glass_only_dims(image: np.ndarray, reflectance: float) -> None:
    dimmed = reflection(image, reflectance, np.random.default_rng(0), BLACK)
    expected = 255 * ((1 - reflectance) * (image / 255) ** 2.2) ** (1 / 2.2)
    assert np.abs(dimmed - expected).max() <= 0.51


def test_light_adds_up_in_linear_intensities() -> None:
    """A flat scene in a flat scene: the share that the glass adds at a place is one for all colours."""
    background, second = (np.full((90, 120, 3), colour, np.uint8) for colour in ((40, 60, 90), (250, 200, 160)))
    result = reflection(background, 0.3, np.random.default_rng(1), second)
    dimmed, added = 0.7 * (background / 255) ** 2.2, 0.3 * (second / 255) ** 2.2
    share = ((result[..., :1] / 255) ** 2.2 - dimmed[..., :1]) / added[..., :1]
    assert np.abs(255 * (dimmed + share * added) ** (1 / 2.2) - result).max() < 1.1
    assert share.min() > 0
    assert share.max() < 1.02


def test_strongest_somewhere_and_weaker_elsewhere() -> None:
    white = np.full((30, 40, 3), 255, np.uint8)
    light = (reflection(np.zeros((90, 120, 3), np.uint8), 0.5, np.random.default_rng(3), white) / 255.0) ** 2.2
    assert light.max() == pytest.approx(0.5, rel=0.1)
    assert light.min() < 0.9 * light.max()


def test_the_reflected_scene_is_out_of_focus() -> None:
    """An edge in it spreads over 2 to 5 pixels of a 224 pixel crop, whatever the image's size."""
    for height, width in ((224, 300), (448, 600)):
        second = np.zeros((height, width, 3), np.uint8)
        second[:, width // 2 :] = 255
        for seed in range(4):
            result = reflection(np.zeros((height, width, 3), np.uint8), 1.0, np.random.default_rng(seed), second)
            edge = (result[height // 2, :, 1] / 255.0) ** 2.2
            edge /= edge[width // 2 + height // 6]
            rise = np.interp([0.16, 0.84], edge[: width // 2 + height // 6], np.arange(width // 2 + height // 6))
            sigma = np.diff(rise)[0] / 2 * 224 / height
            assert 1.7 < sigma < 5.7


@settings(max_examples=25, deadline=None)
@given(reflectance=st.floats(0, 1), value=st.integers(0, 255), second=st.integers(0, 255), seed=st.integers(0))
def test_never_brighter_than_the_brighter_scene(reflectance: float, value: int, second: int, seed: int) -> None:
    result = reflection(
        np.full((30, 40, 3), value, np.uint8),
        reflectance,
        np.random.default_rng(seed),
        np.full((20, 20, 3), second, np.uint8),
    )
    assert result.max() <= max(value, second)


def test_a_given_scene_is_what_is_reflected(image: np.ndarray) -> None:
    white = np.full((7, 5, 3), 255, np.uint8)
    bright, dark = (degrade(image, "reflection", 3, seed=0, reflected=scene) for scene in (white, BLACK))
    assert (bright > dark).all()
    assert np.array_equal(bright, degrade(image, "reflection", 3, seed=0, reflected=white))


def test_the_stronger_the_worse(image: np.ndarray) -> None:
    for seed in range(5):
        scores = [psnr(image, reflection(image, r, np.random.default_rng(seed))) for r in (0.01, 0.1, 0.2, 0.4)]
        assert (np.diff(scores) < 0).all()


@pytest.mark.parametrize("reflectance", [-0.1, 1.1, float("nan")])
def test_bad_reflectance(image: np.ndarray, reflectance: float) -> None:
    with pytest.raises(ValueError, match=f"reflectance is {reflectance}, expected 0..1"):
        reflection(image, reflectance, np.random.default_rng(0))


def test_interiors_are_invented_anew_from_each_seed() -> None:
    interiors = [vehicle_interior(np.random.default_rng(seed)).astype(float) for seed in range(8)]
    assert np.array_equal(interiors[0], vehicle_interior(np.random.default_rng(0)))
    for index, interior in enumerate(interiors):
        # Something dark and something bright in each, and none like another.
        assert interior.min() < 60
        assert interior.max() > 120
        assert all(np.abs(interior - other).mean() > 10 for other in interiors[:index])
