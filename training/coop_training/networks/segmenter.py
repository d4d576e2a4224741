"""The reference segmenter: the "existing" network, trained on good images only, whose failures the others mend."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import ResidualBlock, upsample_to


class Segmenter(nn.Module):
    """A compact U-shaped residual network.

    Input: image [N,3,H,W] RGB in 0..1, H and W divisible by 8. Output: logits [N,C,H/4,W/4].
    """

    def __init__(self, classes: int, widths: tuple[int, int, int, int] = (48, 96, 160, 224), decoder: int = 64) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.quarter = nn.Sequential(ResidualBlock(32, w0, 2), ResidualBlock(w0, w0))
        self.eighth = nn.Sequential(ResidualBlock(w0, w1, 2), ResidualBlock(w1, w1))
        self.sixteenth = nn.Sequential(ResidualBlock(w1, w2, 2), ResidualBlock(w2, w2))
        self.thirtysecond = nn.Sequential(ResidualBlock(w2, w3, 2), ResidualBlock(w3, w3))
        self.scene = nn.Linear(w3, decoder)
        self.lateral = nn.ModuleList(nn.Conv2d(w, decoder, 1) for w in widths)
        self.merge = nn.ModuleList(ResidualBlock(decoder, decoder) for _ in range(2))
        self.classify = nn.Conv2d(decoder, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x0 = self.quarter(self.stem((image - self.mean) / self.std))
        x1 = self.eighth(x0)
        x2 = self.sixteenth(x1)
        x3 = self.thirtysecond(x2)
        # The whole scene's mean tells a street from a car park where a pixel's neighbourhood cannot.
        y = self.lateral[3](x3) + self.scene(x3.mean((2, 3)))[:, :, None, None]
        y = upsample_to(y, x2) + self.lateral[2](x2)
        y = self.merge[0](upsample_to(y, x1) + self.lateral[1](x1))
        y = self.merge[1](upsample_to(y, x0) + self.lateral[0](x0))
        return self.classify(F.relu(y))
