"""G1: {S_d, I_d} → S_r, the semantically guided adaptation of section 3.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, ModulatedUNet, at_quarter, conv3x3, zeroed
from coop_training.networks.linear_restoration import LinearRestoration

SMALLEST_PROBABILITY = 1e-4


class Refinement(nn.Module):
    """Refines a segmentation of a degraded image; starts as identity, since it learns a correction to log S_d.

    log S_r = α·log S_d + Δ, up to normalisation: Δ [N,C,H/4,W/4] from the trunk, α [N] from the condition embedding,
    for under a strong condition the given segmentation is confidently wrong and must be heard less.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: refined logits [N,C,H/4,W/4]; condition logits [N,K]; strength [N] in 0..1; the image [N,3,H,W] as the
    trunk sees it, its linear degradations undone.
    """

    def __init__(
        self,
        classes: int,
        conditions: int,
        widths: Sequence[int] = (40, 72, 128, 192),
        blocks: Sequence[int] = (1, 1, 2, 2),
    ) -> None:
        super().__init__()
        self.linear = LinearRestoration(classes, conditions)
        self.trust = zeroed(nn.Linear(EMBEDDING, 1))
        self.trunk = ModulatedUNet(48 + classes, widths, blocks)
        self.correction = zeroed(conv3x3(widths[0], classes))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        seen, embedding, condition, strength = self.linear(image, probabilities)
        folded = F.pixel_unshuffle(2 * seen - 1, 4)
        log_probabilities = at_quarter(probabilities, folded).clamp(min=SMALLEST_PROBABILITY).log()
        # No rectifier behind the trunk: where clear images press for no change at all, it would die.
        x = self.trunk(torch.cat([folded, log_probabilities * 0.1], 1), embedding)
        alpha = 1 + self.trust(embedding)[:, :, None, None]
        return alpha * log_probabilities + self.correction(x), condition, strength, seen
