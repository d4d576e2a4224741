"""What tells fog, rain and reflections from a clear scene, whatever it shows: extremes and thin lines, cell by cell."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 12
"""Rows and columns of cells."""
PARTS = 3
"""Upper, middle and lower part of the image, which are told of apart."""
QUANTILES = (0.0, 0.03, 0.08, 0.15, 0.3, 0.5)
THICKNESS, LENGTH = 5, 9
"""Pixels: lines are thinner than the one and at least as long as the other."""
STEP = 2
"""Rows from one on which lines are looked for to the next: with every row the statistics take 2.6 instead of 1.5 ms."""
_LEAST_VALUE, _LEAST_LINE = 0.02, 0.0005
"""Added before logarithms are taken, which black and flat cells have none of."""
CELL_STATISTICS = (1 + PARTS) * 3 * len(QUANTILES) + PARTS * 2 * 6


def cell_statistics(image: Tensor) -> Tensor:
    """Of each cell's extremes the lowest quantiles, over the whole image and its parts; of thin upright lines, by part,
    how bright those are that are brighter than what is about them, how dark the others, and the ratios of these.

    Something is black in nearly every cell of a clear image, and in few of one through fog, the farther the fewer (the
    dark channel, He, Sun, Tang, "Single image haze removal using dark channel prior", CVPR 2009), or through a
    reflection, which adds light everywhere and takes the brightest of the scene's. A scene has dark lines as well as
    bright ones, and here and there; rain draws bright ones alone, and all over it: hence the medians over cells.

    [N,3,H,W] RGB in 0..1, H and W even → [N,CELL_STATISTICS], about -8..3.
    """
    # Channel by channel, and below by shifts instead of pooling: OpenVINO fuses that, and takes 1.4 instead of 3.6 ms.
    red, green, blue = F.avg_pool2d(image, 2).split(1, 1)
    darkest = torch.minimum(torch.minimum(red, green), blue)
    brightest = torch.maximum(torch.maximum(red, green), blue)
    least = -_cells(-darkest, F.max_pool2d)
    largest = torch.cat([_cells(darkest, F.max_pool2d), _cells(brightest, F.max_pool2d)], 1)
    extremes = torch.cat([(least + _LEAST_VALUE).log(), 2 - 4 * largest], 1)
    told = [_lowest(part, QUANTILES) for part in (extremes, *_parts(extremes))]
    luminance = image[..., ::STEP, :].mean(1, keepdim=True)
    thin = _thin(torch.cat([luminance, -luminance], 1))
    lines = torch.cat([_cells(thin, F.avg_pool2d), _cells(_upright(thin), F.avg_pool2d)], 1)
    for part in _parts(lines + _LEAST_LINE):
        for logarithms in (part.mean((2, 3)).log(), _lowest(part, (0.5,)).log()):
            bright, dark = logarithms[:, ::2], logarithms[:, 1::2]
            told += [logarithms, bright - dark]
    return torch.cat(told, 1)


def _cells(x: Tensor, pool: Callable[..., Tensor]) -> Tensor:
    """What `pool` makes of each of GRID x GRID cells, fewer of a small image; what is left over is not heard."""
    size = (max(x.shape[-2] // GRID, 1), max(x.shape[-1] // GRID, 1))
    return pool(x, size)[..., :GRID, :GRID]


def _parts(cells: Tensor) -> list[Tensor]:
    height = cells.shape[-2] // PARTS
    return [cells[..., part * height : (part + 1) * height, :] for part in range(PARTS)]


def _lowest(cells: Tensor, quantiles: tuple[float, ...]) -> Tensor:
    """[N,C,h,w] → [N,C·quantiles], quantile by quantile."""
    rising = cells.flatten(2).sort(2).values
    return torch.cat([rising[..., int(quantile * (rising.shape[2] - 1))] for quantile in quantiles], 1)


def _thin(x: Tensor) -> Tensor:
    """How far pixels are above what is left when everything thinner is taken away: the white top-hat along rows."""
    return x - _highest(-_highest(-x, THICKNESS, 3), THICKNESS, 3)


def _upright(x: Tensor) -> Tensor:
    """What of lines is LENGTH pixels long, from row to row sideways by no more than a pixel."""
    for _ in range(LENGTH // (2 * STEP)):
        x = torch.minimum(x, -_highest(-_highest(x, 3, 3), 3, 2))
    return x


def _highest(x: Tensor, size: int, axis: int) -> Tensor:
    """The highest of `size` neighbours along an axis, of values in -1..1."""
    reach, length = size // 2, x.shape[axis]
    padded = F.pad(x, (reach, reach) if axis == 3 else (0, 0, reach, reach), value=-1.0)
    highest = padded.narrow(axis, 0, length)
    for shift in range(1, size):
        highest = torch.maximum(highest, padded.narrow(axis, shift, length))
    return highest
