"""G2: {I_d, S_r} → I_r, the exemplar-guided synthesis of section 3.3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import ModulatedUNet, at_quarter, conv3x3, zeroed
from coop_training.networks.linear_restoration import LinearRestoration


class Restoration(nn.Module):
    """Restores a degraded image under semantic guidance; starts as identity, but for the alignment's small gate.

    I_r = A·(1+g) + o + r, A the image with its channels aligned. Gain g and offset o are predicted at quarter
    resolution and upsampled: inverting I = t·R + (1-t)·L needs no more, as transmission is smooth, and leaves the
    image's own detail untouched. The residual r is unfolded from quarter resolution (pixel shuffle), so noise is
    removed pixel by pixel.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: restored image [N,3,H,W], not clamped; condition logits [N,K]; strength [N] in 0..1.
    """

    def __init__(
        self,
        classes: int,
        conditions: int,
        widths: Sequence[int] = (64, 80, 128),
        blocks: Sequence[int] = (1, 1, 2),
        guidance: int = 16,
    ) -> None:
        super().__init__()
        self.linear = LinearRestoration(classes, conditions)
        self.guidance = nn.Sequential(nn.Conv2d(classes, guidance, 1), nn.ReLU(inplace=True))
        self.trunk = ModulatedUNet(48, widths, blocks, guidance)
        self.affine = zeroed(conv3x3(widths[0], 6))
        self.residual = zeroed(conv3x3(widths[0], 48))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sharp, embedding, condition, strength = self.linear(image, probabilities)
        folded = F.pixel_unshuffle(sharp - 0.5, 4)
        # No rectifier behind the trunk: where clear images press for no change at all, it would die.
        x = self.trunk(folded, embedding, self.guidance(at_quarter(probabilities, folded)))
        affine = F.interpolate(self.affine(x), size=image.shape[-2:], mode="bilinear", align_corners=False)
        gain, offset = affine.chunk(2, 1)
        restored = sharp + sharp * gain + offset + F.pixel_shuffle(self.residual(x), 4)
        return restored, condition, strength
