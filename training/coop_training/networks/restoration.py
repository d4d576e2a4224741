"""G2: {I_d, S_r} → I_r, the exemplar-guided synthesis of section 3.3."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import ConditionEncoder, ModulatedUNet, conv3x3, zeroed


class Restoration(nn.Module):
    """Restores a degraded image under semantic guidance; starts as identity.

    I_r = I_d·(1+g) + o + r. Gain g and offset o are predicted at quarter resolution and upsampled: inverting
    I = t·R + (1-t)·L needs no more, as transmission is smooth, and leaves the image's own detail untouched. The
    residual r is unfolded from quarter resolution (pixel shuffle), so noise is removed pixel by pixel.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: restored image [N,3,H,W], not clamped; condition logits [N,K]; strength [N] in 0..1.
    """

    def __init__(
        self,
        classes: int,
        conditions: int,
        widths: tuple[int, int, int] = (32, 64, 96),
        blocks: tuple[int, int, int] = (2, 1, 2),
        guidance: int = 16,
    ) -> None:
        super().__init__()
        self.encoder = ConditionEncoder(conditions)
        self.guidance = nn.Sequential(nn.Conv2d(classes, guidance, 1), nn.ReLU(inplace=True))
        self.trunk = ModulatedUNet(48, widths, blocks, guidance)
        self.affine = zeroed(conv3x3(widths[0], 6))
        self.residual = zeroed(conv3x3(widths[0], 48))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        folded = F.pixel_unshuffle(image - 0.5, 4)
        embedding, condition, strength = self.encoder(image)
        if probabilities.shape[-2:] != folded.shape[-2:]:
            probabilities = F.interpolate(probabilities, size=folded.shape[-2:], mode="bilinear", align_corners=False)
        x = F.relu(self.trunk(folded, embedding, self.guidance(probabilities)))
        affine = F.interpolate(self.affine(x), size=image.shape[-2:], mode="bilinear", align_corners=False)
        gain, offset = affine.chunk(2, 1)
        restored = image + image * gain + offset + F.pixel_shuffle(self.residual(x), 4)
        return restored, condition, strength
