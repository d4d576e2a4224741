"""Equations 7 and 8: losses between the feature maps of the clear and the restored image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.precision import full_precision


def perceptual(restored: Sequence[Tensor], clear: Sequence[Tensor]) -> Tensor:
    """Equation 7: mean absolute difference of each feature map [N,C,h,w], summed over the layers. Scalar.

    Johnson et al. (2016), with features taken before activation as in ESRGAN (Wang et al., 2018).
    """
    return _summed_l1(restored, clear)


def style(restored: Sequence[Tensor], clear: Sequence[Tensor]) -> Tensor:
    """Equation 8: mean absolute difference of the maps' Gram matrices, summed over the layers. Scalar.

    The sum, where the equation writes a mean, is EdgeConnect's, whose weight of 250 goes with it.
    """
    return _summed_l1([gram(maps) for maps in restored], [gram(maps) for maps in clear])


def gram(features: Tensor) -> Tensor:
    """F·Fᵀ/(C·H·W): how channels go together, wherever in the image (Gatys et al., 2016). [N,C,H,W] → [N,C,C]."""
    channels, height, width = features.shape[1:]
    flat = features.float().flatten(2)
    with full_precision(flat):  # a sum over all pixels: bfloat16 would keep two digits of it
        return flat @ flat.transpose(1, 2) / (channels * height * width)


def _summed_l1(restored: Sequence[Tensor], clear: Sequence[Tensor]) -> Tensor:
    return torch.stack([F.l1_loss(r.float(), c.float()) for r, c in zip(restored, clear, strict=True)]).sum()
