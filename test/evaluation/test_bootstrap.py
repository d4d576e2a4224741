"""Confidence intervals: they hold the truth as often as they say, of frames that resemble their neighbours too."""

from __future__ import annotations

import numpy as np
import pytest

from coop_perception.evaluation.bootstrap import BLOCKS, Interval, interval


def drives(cases: int, frames: int, correlation: float) -> np.ndarray:
    """[cases, frames] of first-order autoregressive processes with mean 0 and variance 1."""
    random = np.random.default_rng(1)
    values = np.empty((frames, cases))
    values[0] = random.normal(size=cases)
    for frame in range(1, frames):
        noise = random.normal(size=cases)
        values[frame] = correlation * values[frame - 1] + noise * np.sqrt(1 - correlation**2)
    return values.T


def ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


@pytest.mark.parametrize(("frames", "correlation"), [(600, 0.8), (2000, 0.9)])
def test_the_truth_is_inside_in_95_of_100_correlated_drives(frames: int, correlation: float) -> None:
    inside = 0
    for drive in drives(500, frames, correlation):
        found = interval([np.stack([30 + drive, np.ones(frames)], 1)], ratio)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 30 <= found.high
    assert 0.93 <= inside / 500 <= 0.97


def test_intervals_that_took_frames_for_independent_would_be_far_too_narrow() -> None:
    """That the test above can fail: shuffled, the same frames claim to be surer than they are."""
    random = np.random.default_rng(0)
    inside = 0
    for drive in drives(100, 600, 0.8):
        found = interval([np.stack([30 + random.permutation(drive), np.ones(600)], 1)], ratio)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 30 <= found.high
    assert inside < 70


def test_the_same_frames_give_the_same_interval_in_one_piece_or_in_several_series() -> None:
    sums = np.stack([30 + drives(1, 640, 0.5)[0], np.ones(640)], 1)
    whole = interval([sums], ratio)
    assert whole == interval([sums], ratio)
    apart = interval([sums[:320], sums[320:]], ratio)
    assert whole is not None
    assert apart is not None
    assert apart.value == pytest.approx(whole.value)
    assert apart.low == pytest.approx(whole.low, abs=0.05)


def test_too_little_for_an_interval() -> None:
    assert interval([np.zeros((50, 2))], ratio) is None
    assert interval([], ratio) is None
    few = np.stack([np.arange(BLOCKS * 1.0), np.ones(BLOCKS)], 1)
    assert interval([few], ratio) == Interval((BLOCKS - 1) / 2, None, None)
    drift = np.stack([np.arange(100.0), np.ones(100)], 1)  # one long trend: no frame is independent of another
    assert interval([drift], ratio) == Interval(49.5, None, None)


def test_frames_that_were_not_scored_do_not_count() -> None:
    sums = np.stack([30 + drives(1, 200, 0.3)[0], np.ones(200)], 1)
    with_gaps = np.zeros((400, 2))
    with_gaps[::2] = sums
    assert interval([with_gaps], ratio) == interval([sums], ratio)


def test_equal_frames_have_an_interval_of_no_width() -> None:
    found = interval([np.tile([3.0, 4.0], (64, 1))], ratio)
    assert found == Interval(0.75, 0.75, 0.75)
