"""The reference segmenter: the "existing" network, trained on good images only, whose failures the others mend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import ResidualBlock, upsample_to

WIDTHS = (48, 96, 160, 224)
"""Channels at 1/4, 1/8, 1/16 and 1/32."""
DECODER = 64
"""Channels of the features."""

Adapt = Callable[[int, Tensor], Tensor]
"""What becomes of a stage's features before the next one sees them: of the four scales, then of the decoder's two."""


class SegmentationFeatures(nn.Module):
    """A compact U-shaped residual network, but for what it is to tell: image → features [N,DECODER,H/4,W/4].

    Args:
        blocks: residual blocks per scale of the encoder.
        merges: of the decoder's two residual blocks, at 1/8 and at 1/4.
    """

    def __init__(self, blocks: Sequence[int] = (2, 2, 2, 2), merges: int = 2) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.quarter, self.eighth, self.sixteenth, self.thirtysecond = (
            nn.Sequential(ResidualBlock(finer, width, 2), *(ResidualBlock(width, width) for _ in range(count - 1)))
            for (finer, width), count in zip(pairwise((32, *WIDTHS)), blocks, strict=True)
        )
        self.scene = nn.Linear(WIDTHS[3], DECODER)
        self.lateral = nn.ModuleList(nn.Conv2d(width, DECODER, 1) for width in WIDTHS)
        self.merge = nn.ModuleList(ResidualBlock(DECODER, DECODER) for _ in range(merges))

    def features(self, image: Tensor, adapt: Adapt = lambda stage, x: x) -> Tensor:
        x0 = adapt(0, self.quarter(self.stem((image - self.mean) / self.std)))
        x1 = adapt(1, self.eighth(x0))
        x2 = adapt(2, self.sixteenth(x1))
        x3 = adapt(3, self.thirtysecond(x2))
        # The whole scene's mean tells a street from a car park where a pixel's neighbourhood cannot.
        y = self.lateral[3](x3) + self.scene(x3.mean((2, 3)))[:, :, None, None]
        y = upsample_to(y, x2) + self.lateral[2](x2)
        for stage, x, merge in ((4, x1, self.merge[:1]), (5, x0, self.merge[1:])):
            y = upsample_to(y, x) + self.lateral[5 - stage](x)
            for block in merge:
                y = block(y)
            y = adapt(stage, y)
        return y


class Segmenter(SegmentationFeatures):
    """Input: image [N,3,H,W] RGB in 0..1, H and W divisible by 8. Output: logits [N,C,H/4,W/4]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(DECODER, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(F.relu(self.features(image)))
