"""What of a scene changes from its top to its bottom: weather veils what is far away most, and that lies in the middle.

Everything is measured in bands of rows, of a scene brought to one size, whatever the camera's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.blocks import quantiles
from coop_training.networks.encoder import CHANNELS

BANDS = 8
"""Of the image."""
COARSE_BANDS = 3
"""Of the features."""
_SIZE, _COARSE_SIZE = (160, 240), (12, 16)
"""Height and width that images and features are brought to."""
_BLOCK = 4
_QUANTILES = (0.02, 0.1, 0.3, 0.5, 0.8, 0.97)
_COARSE = CHANNELS[2:]
_MAPS, _COLOURS = 4, 3
BAND_STATISTICS = BANDS * (_MAPS * len(_QUANTILES) + _COLOURS) + COARSE_BANDS * sum(_COARSE)


def band_statistics(image: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Those of an image [N,3,H,W] RGB in 0..1 and of the encoder's features of it. [N,BAND_STATISTICS]"""
    coarse = [feature_bands(x) for x in features[2:]]
    return torch.cat([veil_bands(image), *coarse], 1)


def feature_bands(x: Tensor) -> Tensor:
    """Mean of each channel in each band. [N,C,h,w] → [N,C·COARSE_BANDS]"""
    x = F.interpolate(x, size=_COARSE_SIZE, mode="bilinear", align_corners=False)
    return x.unflatten(2, (COARSE_BANDS, -1)).mean((3, 4)).flatten(1)


def veil_bands(image: Tensor) -> Tensor:
    """Quantiles over blocks of 4x4 pixels of their darkest value in any colour (in clear air some are nearly black:
    He, Sun, Tang, "Single Image Haze Removal Using Dark Channel Prior", CVPR 2009), brightest, contrast and saturation;
    and the mean colour. [N,3,H,W] → [N,BANDS·27]"""
    x = F.interpolate(image, size=_SIZE, mode="bilinear", align_corners=False)
    grey, low, high = x.mean(1, keepdim=True), x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    darkest, dimmest = -F.max_pool2d(-low, _BLOCK), -F.max_pool2d(-grey, _BLOCK)
    brightest = F.max_pool2d(grey, _BLOCK)
    contrast = (brightest - dimmest + 0.01).log()
    saturation = F.avg_pool2d(high - low, _BLOCK)
    maps = torch.cat([4 * darkest - 2, 4 * brightest - 2, 0.5 * contrast + 1, 4 * saturation - 1], 1)
    blocks = maps.unflatten(2, (BANDS, -1)).flatten(3)  # [N,4,BANDS,blocks]
    colours = 4 * F.avg_pool2d(x, _BLOCK).unflatten(2, (BANDS, -1)).mean((3, 4)) - 2
    return torch.cat([quantiles(blocks, _QUANTILES).flatten(1), colours.flatten(1)], 1)
