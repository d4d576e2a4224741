"""What the refinement is trained for: the classes of the scene (equation 2), and beside them its condition."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from coop_perception.classes import IGNORE_ID


def cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """Equation 2. logits [N,C,h,w], upsampled to mask int64 [N,H,W]; ignored pixels carry no loss. Scalar."""
    logits = F.interpolate(logits.float(), size=mask.shape[-2:], mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, mask, weight=weight, ignore_index=IGNORE_ID)


def condition_loss(logits: Tensor, strength: Tensor, condition: Tensor, true_strength: Tensor) -> Tensor:
    """Cross-entropy of the condition plus L1 of its strength; not the paper's. logits [N,K]; the others [N]. Scalar."""
    return F.cross_entropy(logits.float(), condition) + F.l1_loss(strength.float(), true_strength)
