"""Losses between pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def l1(restored: Tensor, clear: Tensor) -> Tensor:
    """Equation 6. Images [N,3,H,W] in 0..1. Scalar."""
    return F.l1_loss(restored.float(), clear)


def total_variation(restored: Tensor) -> Tensor:
    """Equation 9 as mean|∇x I_r| + mean|∇y I_r|. Image [N,3,H,W] in 0..1. Scalar.

    As printed, |∇x I_r - ∇y I_r|, it vanishes on every image that changes along one diagonal only.
    """
    image = restored.float()
    across, down = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
    return across.abs().mean() + down.abs().mean()
