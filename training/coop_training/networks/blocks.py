"""Building blocks shared by the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.precision import full_precision

EMBEDDING = 64
"""Width of what modulates a network by the condition."""


class Convolution(nn.Conv2d):
    """Trained on a CPU, grouped ones compute in float32: in bfloat16 their gradients take three times as long."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.groups > 1 and x.device.type == "cpu"):
            return super().forward(x)
        with full_precision(x):
            return super().forward(x.float())


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def zeroed(layer: nn.Module) -> nn.Module:
    """Zero a layer's weights and bias, so that the branch it ends starts as no change at all."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def keep_statistics(network: nn.Module) -> None:
    """Let batch normalisations keep the statistics that they have: they are affine maps in training too, and no image
    of a batch has a say in another's. To be called after each `train`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map at the size of another one."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


def quantiles(x: Tensor, shares: Sequence[float]) -> Tensor:
    """Of the last dimension, the values of these shares' rank. [...,n] → [...,len(shares)]"""
    places = [round(share * (x.shape[-1] - 1)) for share in shares]
    return x.sort(x.dim() - 1).values[..., torch.tensor(places, device=x.device)]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip (He et al., 2016).

    [N,width,h,w] → the same.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + x)
