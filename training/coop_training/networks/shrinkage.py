"""Noise, taken out where it differs most from an image: in the cosine transforms of overlapping blocks.

An image's blocks have few coefficients that are not small, noise has all of them alike: small ones are set to nothing,
and what all blocks that overlap a pixel make of it is averaged (Yu and Sapiro, "DCT Image Denoising: a Simple and
Effective Image Denoising Algorithm", Image Processing On Line, 2011). What is small is the noise's level, which is
measured, times what is estimated at each place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import quantiles, zeroed
from coop_training.networks.precision import full_precision

SIDE, STEP = 8, 4
"""Of a block, and from one to the next, in pixels: half a block, so that cells of STEP pixels lie in four blocks."""
COLOURS = 3
GROUPS = ((1, 2), (3, 5), (6, 9), (10, 14))
"""Coefficients that share a threshold: the first and the last of their diagonals."""
SAMPLED = (24, 32)
"""Blocks, evenly spread, from which the noise's level is measured."""
_MARGIN = STEP // 2
_RANK = 0.4
"""Of their magnitudes by size: most blocks of a street are flat but for noise."""
_COARSE = 1.5
"""How much more noise low frequencies can have than high ones; what is more is the image."""
_TIMES, _FLOOR, _LEAST = 3.5, 0.01, 1e-3
"""Where nothing is estimated yet, the threshold's part of the level, and what is added; and the lowest there is."""


class Shrinkage(nn.Module):
    """What to add to a frame to take its noise out, [N,3,h,w], h and w divisible by 8.

    Of a coefficient c is lost c·(3/2 - (c/t)²), the bracket within 0..1. Its threshold is t = 3.5·level·a + b/100: the
    level is its group's in the whole frame, a and b are estimated at each place from the features.

    Inputs: frame [N,3,h,w], of values within a range of 1; features [N,width,h/2,w/2].
    """

    opponents: Tensor
    forwards: Tensor
    backwards: Tensor
    members: Tensor
    group: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.thresholds = zeroed(nn.Conv2d(width, 2 * COLOURS * len(GROUPS), 1))
        blocks = _blocks()
        diagonals = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)).flatten()
        members = torch.stack([((first <= diagonals) & (diagonals <= last)).float() for first, last in GROUPS])
        self.register_buffer("opponents", _opponents()[:, :, None, None], persistent=False)
        self.register_buffer("forwards", _of_cells(blocks).repeat(COLOURS, 1, 1, 1), persistent=False)
        # Each pixel lies in four blocks, and is their mean; at the frame's ends half of them have nothing to take.
        backwards = _of_cells(blocks).flip(2, 3).transpose(0, 1) / 4
        self.register_buffer("backwards", backwards.repeat(COLOURS, 1, 1, 1), persistent=False)
        self.register_buffer("members", members / members.sum(1, keepdim=True), persistent=False)
        groups = [colour * len(GROUPS) + members.argmax(0) for colour in range(COLOURS)]
        self.register_buffer("group", torch.cat(groups), persistent=False)

    def forward(self, frame: Tensor, features: Tensor) -> Tensor:
        estimated = self.thresholds(F.avg_pool2d(features, STEP // 2)).clamp(-6, 3)
        with full_precision(frame):  # what stays is not to be rounded to what is taken
            factor, floor = estimated.float().exp().chunk(2, 1)
            padded = F.pad(frame.float(), (_MARGIN, _MARGIN, _MARGIN, _MARGIN), mode="reflect")
            cells = F.pixel_unshuffle(F.conv2d(padded, self.opponents), STEP)
            coefficients = F.conv2d(cells, self.forwards, groups=COLOURS)  # [N,3·64,h/4,w/4]
            threshold = _TIMES * self._level(coefficients)[:, :, None, None] * factor + _FLOOR * floor + _LEAST
            scale = (1 / threshold).index_select(1, self.group)
            share = (1.5 - (coefficients * scale).square()).clamp(0, 1)
            cells = F.conv2d(coefficients * share, self.backwards, padding=1, groups=COLOURS)
            lost = F.pixel_shuffle(cells, STEP)[:, :, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
            return -F.conv2d(lost, self.opponents.transpose(0, 1))

    def _level(self, coefficients: Tensor) -> Tensor:
        """How large the coefficients of each colour's groups are in flat places, [N,3·GROUPS]."""
        sampled = F.interpolate(coefficients, size=SAMPLED, mode="nearest").abs().flatten(2).unflatten(1, (COLOURS, -1))
        found = quantiles(self.members @ sampled, [_RANK])[..., 0]
        highest = _COARSE * found[:, :, len(GROUPS) // 2 :].mean(2, keepdim=True)
        return torch.minimum(found, highest).flatten(1)


def _blocks() -> Tensor:
    """The orthonormal cosine transform of blocks, but for their means, which are nothing, [64,SIDE,SIDE]."""
    places = (torch.arange(SIDE) + 0.5) * math.pi / SIDE
    cosines = (torch.arange(SIDE)[:, None] * places).cos() * math.sqrt(2 / SIDE)
    cosines[0] /= math.sqrt(2)
    blocks = torch.einsum("uy,vx->uvyx", cosines, cosines).flatten(0, 1)
    blocks[0] = 0
    return blocks


def _of_cells(blocks: Tensor) -> Tensor:
    """Blocks as kernels over what `pixel_unshuffle` makes of an image: [64,SIDE,SIDE] → [64,STEP²,2,2]."""
    return F.pixel_unshuffle(blocks[:, None], STEP)


def _opponents() -> Tensor:
    """Brightness and two differences of colour out of red, green and blue, orthonormal, [3,3]."""
    rows = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    return rows / rows.norm(dim=1, keepdim=True)
