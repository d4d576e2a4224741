"""Extremes and thin lines, cell by cell: what tells fog, reflections and rain from a clear scene."""

from __future__ import annotations

import torch
from coop_training.networks.cells import CELL_STATISTICS, PARTS, QUANTILES, cell_statistics
from torch import Tensor

LINES = 6
"""Statistics of lines: bright, dark, long bright, long dark, then the ratios of the two and of the long two."""


def extremes(image: Tensor) -> Tensor:
    """[1+PARTS, QUANTILES, 3]: of the whole and each part, by quantile, of the darkest, of the brightest dark value and
    of the brightest."""
    return cell_statistics(image)[0, : (1 + PARTS) * 3 * len(QUANTILES)].reshape(1 + PARTS, len(QUANTILES), 3)


def lines(image: Tensor) -> Tensor:
    """[PARTS, 2, LINES]: of each part, means and medians."""
    return cell_statistics(image)[0, -PARTS * 2 * LINES :].reshape(PARTS, 2, LINES)


def checkered(size: int = 96) -> Tensor:
    """Black and white squares of 4 pixels. [1,3,size,size]"""
    squares = torch.arange(size) // 4
    return ((squares + squares[:, None]) % 2).float().expand(1, 3, size, size).clone()


def test_a_veil_lifts_what_is_darkest_where_it_lies() -> None:
    image = checkered()
    veiled = image.clone()
    veiled[..., :32, :] = 0.5 * veiled[..., :32, :] + 0.5
    before, after = extremes(image), extremes(veiled)
    torch.testing.assert_close(before[..., 0], torch.full_like(before[..., 0], 0.02).log())
    torch.testing.assert_close(after[1, :, 0], torch.full((len(QUANTILES),), 0.52).log())
    torch.testing.assert_close(after[2:], before[2:])
    torch.testing.assert_close(after[0, :-2], before[0, :-2])  # a third of the cells


def test_what_adds_light_to_all_and_takes_some_of_the_scenes_is_seen_at_both_ends() -> None:
    before, after = extremes(checkered()), extremes(0.8 * checkered() + 0.05)
    assert (after[..., 0] > before[..., 0]).all()  # less dark
    assert (after[..., 1:] > before[..., 1:]).all()  # less bright


def streaked(value: float, length: int, wide: int = 1) -> Tensor:
    """Grey, in each 16x24 pixels a slanting streak of `value`."""
    image = torch.full((1, 3, 192, 192), 0.5)
    for y in range(length):
        left = 6 + y // 3
        for column in range(wide):
            image[..., 2 + y :: 16, left + column :: 24] = value
    return image


def test_thin_upright_lines_are_told_by_sign() -> None:
    nothing, bright, dark = lines(torch.full((1, 3, 192, 192), 0.5)), lines(streaked(0.9, 13)), lines(streaked(0.1, 13))
    assert (bright[..., 4:] > 2).all()
    torch.testing.assert_close(dark[..., 4:], -bright[..., 4:])
    torch.testing.assert_close(nothing[..., 4:], torch.zeros_like(nothing[..., 4:]))
    torch.testing.assert_close(lines(streaked(0.9, 13, wide=6)), nothing)


def test_what_is_short_is_no_long_line() -> None:
    short = lines(streaked(0.9, 3))
    assert (short[..., 4] > 1).all()
    assert (short[..., 5] == 0).all()


def test_a_line_here_and_there_moves_the_mean_alone() -> None:
    image = torch.full((1, 3, 192, 192), 0.5)
    image[..., 70] = 0.9
    mean, median = lines(image)[:, 0, 4], lines(image)[:, 1, 4]
    assert (mean > 1).all()
    assert (median == 0).all()


def test_small_images_and_batches() -> None:
    images = torch.rand(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    told = cell_statistics(images)
    assert told.shape == (3, CELL_STATISTICS)
    assert told.isfinite().all()
    torch.testing.assert_close(told[1:2], cell_statistics(images[1:2]))
