"""NAFNet, the peer that restoration is measured against: no semantics, no idea of the condition.

Source: Chen, Chu, Zhang, Sun, "Simple Baselines for Image Restoration", ECCV 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.estimate import Estimate

WIDTH = 16
"""Channels at full resolution."""
ENCODER, MIDDLE, DECODER = (1, 1, 1, 12), 1, (1, 1, 1, 1)
"""Blocks at each scale; 19.5 GMACs at 512x1024, about what refinement and restoration cost together."""


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with learned gain and offset. [N,C,h,w] → same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def simple_gate(x: Tensor) -> Tensor:
    """The product of the channels' two halves, which stands in for an activation."""
    first, second = x.chunk(2, 1)
    return first * second


class NafBlock(nn.Module):
    """Spatial mixing with channel attention, then channel mixing; each a residual branch that starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            ChannelNorm(width), nn.Conv2d(width, 2 * width, 1), nn.Conv2d(2 * width, 2 * width, 3, 1, 1, 1, 2 * width)
        )
        self.attention = nn.Conv2d(width, width, 1)
        self.project = nn.Conv2d(width, width, 1)
        self.expand = nn.Sequential(ChannelNorm(width), nn.Conv2d(width, 2 * width, 1))
        self.contract = nn.Conv2d(width, width, 1)
        self.spatial_scale = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.channel_scale = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = simple_gate(self.spatial(x))
        y = self.project(y * self.attention(y.mean((2, 3), keepdim=True)))
        x = x + y * self.spatial_scale
        return x + self.contract(simple_gate(self.expand(x))) * self.channel_scale


class NafNet(nn.Module):
    """A U-shaped network at full resolution, halving the size and doubling the width at each of its scales.

    Args:
        classes, conditions: how many there are; it makes nothing of them.

    Inputs: frame [N,3,h,w] RGB in 0..1; all others are ignored.
    Output: restored frame [N,3,h,w], not clamped.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        widths = [WIDTH << scale for scale in range(len(ENCODER) + 1)]
        self.intro = nn.Conv2d(3, WIDTH, 3, 1, 1)
        self.encoders = nn.ModuleList(blocks(w, n) for w, n in zip(widths, ENCODER, strict=False))
        self.downs = nn.ModuleList(nn.Conv2d(w, 2 * w, 2, 2) for w in widths[:-1])
        self.middle = blocks(widths[-1], MIDDLE)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2)) for w in reversed(widths[:-1])
        )
        self.decoders = nn.ModuleList(blocks(w, n) for w, n in zip(reversed(widths[:-1]), DECODER, strict=True))
        self.ending = nn.Conv2d(WIDTH, 3, 3, 1, 1)

    def forward(self, frame: Tensor, image: Tensor, probabilities: Tensor, estimate: Estimate) -> Tensor:
        height, width = frame.shape[-2:]
        multiple = 1 << len(self.downs)
        rows, columns = (height + multiple - 1) // multiple, (width + multiple - 1) // multiple  # at the coarsest scale
        padded = F.pad(frame, (0, multiple * columns - width, 0, multiple * rows - height))
        x, skips = self.intro(padded), []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            x = encoder(x)
            skips.append(x)
            x = down(x)
        x = self.middle(x)
        for up, decoder, skip in zip(self.ups, self.decoders, reversed(skips), strict=True):
            x = decoder(up(x) + skip)
        return (padded + self.ending(x))[..., :height, :width]


def blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NafBlock(width) for _ in range(count)))
