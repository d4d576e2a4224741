"""What covers the scene in flat colour, found by measure and filled from around it. Nothing here is learnt.

Pixels that were lost on the way, what is drawn or written over an image: the paper's *irregular mask*. What a sensor
sees is not quite the same from pixel to pixel. Where it is after all, in the dark, in a white sky, behind a codec, it
ends as softly as the optics see an edge, or in the next block. A cover is of one colour to the last bit, narrow, and
ends within a pixel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.precision import full_precision
from coop_training.networks.sensor import TILES, split
from coop_training.strength import COVERED

MIXED = (0.29, 0.6, 0.11)
"""Shares of red, green and blue in the value by which pixels are compared."""
SAME = 0.05 / 255
"""Values in 0..1 that differ by less are of one colour."""
HARD, WITHIN = 24 / 255, 0.8
"""An edge is hard where the two pixels beyond it differ by more than this from the last one before it, and the nearer
one by this part of what the other does."""
HARD_EDGES = 0.7
"""Share of hard edges around a cover."""
CELL, WIDE, AROUND = 4, 5, 5
"""Side of the cells, in pixels, by which places are compared: a flat one as many cells wide and high is no cover; edges
are counted in as many cells each way."""
SEEN, SURELY_SEEN = 0.008, 0.014
"""Share of a sensor view for a cover to be seen there, and surely: its tiles vary more than whole frames."""
LEAST, SURE = 0.005, 0.01
"""Share of a frame that is covered for it to be filled, and wholly."""
CERTAIN = 0.97
"""Presence of what is surely seen: nothing is certain."""
_LARGEST = 32
"""Side of the largest squares that are filled from, a power of 2."""


def covered(image: Tensor) -> Tensor:
    """Where an image is covered.

    Args:
        image: [N,3,H,W] RGB in 0..1, H and W divisible by CELL.

    Returns:
        [N,1,H,W], 0 or 1.
    """
    mixed = image.new_tensor(MIXED)[None, :, None, None]
    both = F.conv2d(image, torch.cat([mixed, -mixed]))
    value, range_of = both[:, :1], _widened(both).sum(1, keepdim=True)
    flat = _widened(range_of.lt(SAME).to(image.dtype))
    wide = -F.max_pool2d(F.max_pool2d(-flat, CELL), WIDE, 1, WIDE // 2)
    narrow = flat * (1 - _of_cells(F.max_pool2d(wide, WIDE + 2, 1, WIDE // 2 + 1)))
    edges, hard = _edges(value, flat, narrow)
    return narrow * _of_cells((hard.gt(0) & hard.ge(HARD_EDGES * edges)).to(image.dtype))


def _edges(value: Tensor, flat: Tensor, narrow: Tensor) -> tuple[Tensor, Tensor]:
    """How many edges narrow places have about each cell, and how many of them are hard, in parts of the pixels that are
    compared: maps [N,1,H,W] → [N,1,H/CELL,W/CELL] both.

    Compared are those that a cell has three of in a row, both ways. They are picked by convolutions, for slices of
    images of any size are dozens of layers each on a GPU.
    """
    here, near_by, beyond = torch.eye(CELL**2).unflatten(1, (1, CELL, CELL)).to(value)[torch.tensor(_THREES)].unbind(1)
    near, far = (F.conv2d(value, there - here, stride=CELL).abs() for there in (near_by, beyond))
    edges = F.conv2d(narrow, here, stride=CELL) * near.gt(SAME)
    outside = 1 - F.conv2d(flat, near_by, stride=CELL)
    hard = edges * outside * (near.gt(HARD) & far.gt(HARD) & near.ge(WITHIN * far))
    mean = torch.full_like(here[:, :1, :1, :1], 1 / len(here)).transpose(0, 1)
    edges, hard = (F.avg_pool2d(F.conv2d(x, mean), AROUND, 1, AROUND // 2) for x in (edges, hard))
    return edges, hard


def _threes() -> list[tuple[int, int, int]]:
    """Places of three pixels in a row within a cell, along its rows and its columns, there and back."""
    rows = [
        (CELL * line + start, CELL * line + start + 1, CELL * line + start + 2)
        for line in range(CELL)
        for start in range(CELL - 2)
    ]
    columns = [tuple(CELL * (place % CELL) + place // CELL for place in three) for three in rows]
    return [
        way for first, second, third in [*rows, *columns] for way in ((first, second, third), (third, second, first))
    ]


_THREES = _threes()


def seen(sensor: Tensor) -> tuple[Tensor, Tensor]:
    """Presence and strength, 0..1, [N] both, of what covers the frames of these sensor views [N,3,T,T] in 0..1."""
    share = covered(split(sensor)).mean((1, 2, 3)).unflatten(0, (-1, TILES**2)).mean(1)
    presence = CERTAIN * ((share - SEEN) / (SURELY_SEEN - SEEN)).clamp(0, 1)
    weak, strong = COVERED
    place = (share.clamp(min=weak) / weak).log() / math.log(strong / weak)
    return presence, (0.1 + 0.9 * place).clamp(max=1)


def uncovering(frame: Tensor) -> Tensor:
    """What is to be added to a frame for its covers to be filled: nothing, to the last bit, where there are none.

    Args:
        frame: [N,3,h,w] RGB in 0..1, of any h, w.

    Returns:
        [N,3,h,w].
    """
    height, width = frame.shape[-2:]
    rows, columns = (height + _LARGEST - 1) // _LARGEST, (width + _LARGEST - 1) // _LARGEST
    with full_precision(frame), torch.no_grad():
        ends = (0, _LARGEST * columns - width, 0, _LARGEST * rows - height)
        padded = F.pad(frame.float(), ends, mode="replicate")
        cover = covered(padded)
        sure = ((cover.mean((1, 2, 3), keepdim=True) - LEAST) / (SURE - LEAST)).clamp(0, 1)
        cover = _widened(cover)
        change = sure * cover * (filling(padded, cover) - padded)
        return change[..., :height, :width]


def filling(image: Tensor, cover: Tensor) -> Tensor:
    """What to fill a cover [N,1,H,W] of an image [N,3,H,W] with: the pixels around it, coarse to fine (Gortler et al.,
    "The Lumigraph", SIGGRAPH 1996). H and W divisible by _LARGEST. [N,3,H,W]"""
    weight = 1 - cover
    colours, finer = image * weight, []
    for _ in range(_LARGEST.bit_length() - 1):
        colours, weight = F.avg_pool2d(colours, 2), F.avg_pool2d(weight, 2)
        finer.append((colours, weight))
    result = colours / weight.clamp(min=1e-3)
    for colours, weight in reversed(finer[:-1]):
        result = colours + (1 - weight) * _doubled(result)
    return _doubled(result)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _widened(x: Tensor) -> Tensor:
    """The largest of each value and its neighbours."""
    return F.max_pool2d(x, 3, 1, 1)


def _of_cells(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=float(CELL), mode="nearest")
