"""What the condition estimate is trained for; not the paper's, which estimates none."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def condition_loss(presence: Tensor, strength: Tensor, strengths: Tensor) -> Tensor:
    """Binary cross-entropy of each condition's presence, and L1 of its strength where it is there.

    Args:
        presence: logits [N,K].
        strength: [N,K].
        strengths: the truth [N,K], 0 where a condition is not there.

    Returns:
        Scalar.
    """
    there = (strengths > 0).float()
    of_presence = F.binary_cross_entropy_with_logits(presence.float(), there)
    return of_presence + strength_loss(strength, strengths)


def strength_loss(strength: Tensor, strengths: Tensor) -> Tensor:
    """Mean absolute error [N,K] over the conditions that are there; 0 where none is. Scalar."""
    there = (strengths > 0).float()
    return ((strength.float() - strengths).abs() * there).sum() / there.sum().clamp(min=1)
