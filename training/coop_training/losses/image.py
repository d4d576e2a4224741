"""Losses between pixels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

LEAST_MSE = 1e-4


def l1(restored: Tensor, clear: Tensor) -> Tensor:
    """Equation 6. Images [N,3,H,W] in 0..1. Scalar."""
    return F.l1_loss(restored.float(), clear)


def log_mse(restored: Tensor, clear: Tensor) -> Tensor:
    """Mean over images of the logarithm of their mean squared error, which is PSNR's; not the paper's.

    Images [N,3,H,W] in 0..1. Scalar. L1 alone is ruled by the conditions that nobody can undo; here halving the error
    counts the same in a hardly degraded image, down to a floor of 40 dB.
    """
    return ((restored.float() - clear).square().mean((1, 2, 3)) + LEAST_MSE).log().mean()


def total_variation(restored: Tensor) -> Tensor:
    """Equation 9 as mean|∇x I_r| + mean|∇y I_r|. Image [N,3,H,W] in 0..1. Scalar.

    As printed, |∇x I_r - ∇y I_r|, it vanishes on every image that changes along one diagonal only.
    """
    image = restored.float()
    across, down = image[..., 1:] - image[..., :-1], image[..., 1:, :] - image[..., :-1, :]
    return across.abs().mean() + down.abs().mean()
