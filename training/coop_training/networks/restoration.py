"""G2: {I_d, S_r} → I_r, the exemplar-guided synthesis of section 3.3."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import (
    EMBEDDING,
    Adapter,
    Context,
    GatedBlock,
    ModulatedUNet,
    Pointwise,
    at_quarter,
    conv3x3,
    zeroed,
)
from coop_training.networks.condition import Estimate
from coop_training.networks.front import Front

LEFT_TO_FILTERS = ("impulse_noise", "chromatic_aberration")
"""Conditions that the front undoes to 48 dB and better: what is learnt to correct others by would only spoil it."""


class Restoration(nn.Module):
    """Restores a degraded image under semantic guidance; starts as identity, but for the alignment's small gate.

    I_r = A + s·(A·g + o + r + d), A the image as filters have left it. Gain g and offset o are predicted at quarter
    resolution and upsampled: inverting I = t·R + (1-t)·L needs no more, as transmission is smooth, and leaves the
    image's own detail untouched. The residual r is unfolded from quarter resolution (pixel shuffle), so noise is
    removed pixel by pixel; but a filter learnt there is another one for each of a fold's 16 pixels. So the detail d
    comes from half resolution, of few channels, which hear what the trunk has seen. The share s of the correction that
    is made is one number per condition, 0 for those `LEFT_TO_FILTERS`.

    How far away things are, fog and rain depend on: so beside the classes the guidance has the row, for a road's
    distance follows from it.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w; the condition, as whoever knows it better
    tells it, or None: restoration is on its own.
    Outputs: restored image [N,3,H,W], not clamped; condition logits [N,K] and strength [N] in 0..1, its own estimate.
    """

    def __init__(
        self,
        classes: int,
        conditions: Sequence[str],
        widths: Sequence[int] = (64, 80, 128),
        hidden: Sequence[int] = (32, 80, 128),
        blocks: Sequence[int] = (1, 1, 2),
        guidance: int = 16,
        detail: tuple[int, int] = (24, 5),
    ) -> None:
        super().__init__()
        # Of statistics class by class it would learn the training drives' airlight and rain by heart.
        self.front = Front(conditions, windowed=True, constant_hue=True)
        number = len(conditions)
        self.told = zeroed(nn.Linear(2 * number, EMBEDDING))
        self.guidance = nn.Sequential(nn.Conv2d(classes + 1, guidance, 1), nn.ReLU(inplace=True))
        self.trunk = ModulatedUNet(48, widths, hidden, blocks, number, guidance)
        self.adapter = Adapter(widths[0], number)
        self.affine = zeroed(conv3x3(widths[0], 6))
        self.residual = zeroed(conv3x3(widths[0], 48))
        self.detail = Detail(widths[0], *detail, number)
        self.share = nn.Parameter(torch.ones(number))
        corrected = [float(name not in LEFT_TO_FILTERS) for name in conditions]
        self.corrected: Tensor
        self.register_buffer("corrected", torch.tensor(corrected), persistent=False)

    def forward(
        self, image: Tensor, probabilities: Tensor, told: Estimate | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        sharp, embedding, condition, strength, known = self.front(image, told=told)
        posterior = known.posterior
        embedding = embedding + self.told(torch.cat([posterior, known.strengths], 1))[:, None]
        folded = F.pixel_unshuffle(sharp - 0.5, 4)
        guidance = self.guidance(torch.cat([at_quarter(probabilities, folded), rows(folded)], 1))
        context = Context(embedding, posterior, guidance)
        # No rectifier behind the trunk: where clear images press for no change at all, it would die.
        x = self.adapter(self.trunk(folded, context), posterior)
        affine = F.interpolate(self.affine(x), size=image.shape[-2:], mode="bilinear", align_corners=False)
        gain, offset = affine.chunk(2, 1)
        residual = F.pixel_shuffle(self.residual(x), 4) + self.detail(sharp, x, context)
        share = ((posterior * self.corrected) @ self.share)[:, None, None, None]
        return sharp + share * (sharp * gain + offset + residual), condition, strength


def rows(like: Tensor) -> Tensor:
    """Where in the image each row of a map [N,C,h,w] lies: -1 at the upper edge to 1 at the lower. [N,1,h,w]"""
    height = like.shape[-2]
    centres = (2 * torch.arange(height, device=like.device, dtype=like.dtype) + 1) / height - 1
    # Not expanded to the batch: a graph would ask the image's bytes for its size, which TensorRT lets be cast only.
    return 0 * like[:, :1] + centres[:, None]


class Detail(nn.Module):
    """A thin end at half resolution: what the image itself tells, and the trunk of its surroundings; starts at zero.

    Args:
        trunk: channels of the trunk's output.
        width, blocks: channels and number of the blocks.
        conditions: number of conditions K, `clear` included.

    Inputs: image [N,3,H,W]; the trunk's output [N,trunk,H/4,W/4]; context, whose guidance is not heard.
    Output: [N,3,H,W].
    """

    def __init__(self, trunk: int, width: int, blocks: int, conditions: int) -> None:
        super().__init__()
        self.fold = conv3x3(12, width)
        self.hear = Pointwise(trunk, 4 * width, conditions)
        self.blocks = nn.ModuleList(GatedBlock(width, conditions) for _ in range(blocks))
        self.unfold = zeroed(conv3x3(width, 12))

    def forward(self, image: Tensor, seen: Tensor, context: Context) -> Tensor:
        x = self.fold(F.pixel_unshuffle(image - 0.5, 2)) + F.pixel_shuffle(self.hear(seen, context.posterior), 2)
        for block in self.blocks:
            x = block(x, context)
        return F.pixel_shuffle(self.unfold(x), 2)
