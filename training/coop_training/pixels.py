"""Between bytes and floats, as the deployed graphs do it: casts, clamping and rounding, the mask of probabilities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def to_float(image: Tensor) -> Tensor:
    """uint8 [N,H,W,3] RGB → float [N,3,H,W] in 0..1."""
    return image.float().permute(0, 3, 1, 2) / 255  # cast first: TensorRT takes bytes into nothing but a cast


def to_bytes(image: Tensor) -> Tensor:
    """float [N,3,H,W] in about 0..1 → uint8 [N,H,W,3]; clamped and rounded before the cast, which would wrap."""
    return level(image.permute(0, 2, 3, 1) * 255)


def level(values: Tensor) -> Tensor:
    """Numbers of about 0..255 → uint8."""
    return values.clamp(0, 255).round().to(torch.uint8)


def to_mask(probabilities: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """float [N,C,h,w] → mask uint8 [N,h·stride,w·stride], and how probable its class is at each pixel, in 0..1."""
    if stride > 1:
        probabilities = F.interpolate(probabilities, scale_factor=stride, mode="bilinear", align_corners=False)
    probability, mask = largest(probabilities)
    return mask.to(torch.uint8), probability


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """float [N,C,H,W] → the largest over C and its index, of equal ones the first; both float [N,H,W].

    By two maxima, which runtimes compute faster than an index of the largest over a strided axis.
    """
    classes = scores.shape[1]
    best = scores.amax(1, keepdim=True)
    rank = torch.arange(classes, 0, -1, dtype=scores.dtype, device=scores.device).view(1, -1, 1, 1)
    return best[:, 0], classes - ((scores >= best).to(scores.dtype) * rank).amax(1)
