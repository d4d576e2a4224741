"""What is told window by window."""

from __future__ import annotations

import pytest
import torch
from coop_training.networks.columns import over_columns, window_count, window_means, windows
from coop_training.networks.condition import ConditionEncoder, channel_misalignment, gradient_spectrum


@pytest.mark.parametrize(
    ("height", "width", "count"), [(90, 34, 1), (90, 20, 1), (90, 120, 11), (128, 256, 18), (48, 64, 11)]
)
def test_windows_cover_the_image_and_have_the_shape_of_what_is_learnt_on(height: int, width: int, count: int) -> None:
    x = torch.arange(width, dtype=torch.float32).expand(2, 3, height, width)
    assert window_count(x) == count
    parts = windows(x, count)
    assert parts.shape == (2, count, 3, height, width if count == 1 else round(0.375 * height))
    assert set(parts.unique().tolist()) == set(range(width))


@pytest.mark.parametrize(("height", "width", "count"), [(90, 120, 11), (23, 30, 11), (180, 240, 11), (64, 128, 18)])
def test_what_grows_evenly_is_told_as_it_is_away_from_the_sides(height: int, width: int, count: int) -> None:
    """Means over windows, whatever the scale: of fewer windows at the sides, so not there."""
    ramp = torch.linspace(-1, 1, width).expand(2, 5, height, width)
    told = over_columns(window_means(ramp, count), ramp)
    assert told.shape == (2, 5, 1, width)
    margin = round(0.375 * height)
    inner = (..., slice(margin, width - margin))
    torch.testing.assert_close(told[inner], ramp[:, :, :1][inner], atol=0.01, rtol=0)
    assert told[..., 0].max() < told[..., -1].min()


def test_one_window_is_the_whole_image() -> None:
    x = torch.rand(2, 5, 9, 4)
    torch.testing.assert_close(window_means(x, 1), x.mean((2, 3))[:, None])
    torch.testing.assert_close(over_columns(window_means(x, 1), x), x.mean((2, 3), keepdim=True))


def test_the_encoder_hears_each_window_apart() -> None:
    torch.manual_seed(0)
    encoder, image = ConditionEncoder(3, windowed=True), torch.rand(1, 3, 48, 96)
    other = image.clone()
    other[..., :16] = 0.5
    global_ones = channel_misalignment(image), gradient_spectrum(image)
    # The means and deviations of 9 maps and 64 features: what comes before is of the whole image.
    before, after = (encoder.statistics(x, *global_ones)[..., -2 * (9 + 64) :] for x in (image, other))
    assert before.shape[1] == after.shape[1] > 4
    assert (before - after)[:, 0].abs().max() > 0.1
    torch.testing.assert_close(before[:, -1], after[:, -1])
    embedding, condition, strength = encoder(encoder.statistics(image, *global_ones))
    assert (embedding.shape[:2], condition.shape, strength.shape) == (before.shape[:2], (1, 3), (1,))


def test_what_is_told_of_one_window_leaves_no_edge() -> None:
    """As it fades, it is bent nowhere: slope changes by little from column to column."""
    told = torch.zeros(1, 11, 1)
    told[0, 5] = 1.0
    weights = over_columns(told, torch.zeros(1, 1, 360, 480))[0, 0, 0]
    assert weights.argmax() in (239, 240)
    slope = weights.diff().abs().max()
    assert weights.diff().diff().abs().max() < 0.1 * slope
