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
    return (image.permute(0, 2, 3, 1) * 255).clamp(0, 255).round().to(torch.uint8)


def to_mask(probabilities: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """float [N,C,h,w] → mask and confidence uint8 [N,H,W] (255 = certain), from bilinearly upsampled probabilities."""
    full = F.interpolate(probabilities, size=(height, width), mode="bilinear", align_corners=False)
    confidence, mask = largest(full)
    return mask.to(torch.uint8), (confidence * 255).clamp(0, 255).round().to(torch.uint8)


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """float [N,C,H,W] → the largest over C and its index, of equal ones the first; both float [N,H,W].

    By two maxima, which runtimes compute faster than an index of the largest over a strided axis.
    """
    classes = scores.shape[1]
    best = scores.amax(1, keepdim=True)
    rank = torch.arange(classes, 0, -1, dtype=scores.dtype, device=scores.device).view(1, -1, 1, 1)
    return best[:, 0], classes - ((scores >= best).to(scores.dtype) * rank).amax(1)
