"""G2: {I_d, S_r} → I_r, the exemplar-guided synthesis of section 3.3."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.alignment import ChannelAlignment
from coop_training.networks.blocks import ModulatedUNet, at_quarter, conv3x3, zeroed
from coop_training.networks.condition import ConditionEncoder


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
        widths: tuple[int, int, int] = (64, 80, 128),
        blocks: tuple[int, int, int] = (1, 1, 2),
        guidance: int = 16,
    ) -> None:
        super().__init__()
        self.encoder = ConditionEncoder(classes, conditions)
        self.alignment = ChannelAlignment()
        self.guidance = nn.Sequential(nn.Conv2d(classes, guidance, 1), nn.ReLU(inplace=True))
        self.trunk = ModulatedUNet(48, widths, blocks, guidance)
        self.affine = zeroed(conv3x3(widths[0], 6))
        self.residual = zeroed(conv3x3(widths[0], 48))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        probabilities = at_quarter(probabilities, F.avg_pool2d(image, 4))
        embedding, condition, strength, misalignment = self.encoder(image, probabilities)
        aligned = self.alignment(image, embedding, misalignment)
        x = F.relu(self.trunk(F.pixel_unshuffle(aligned - 0.5, 4), embedding, self.guidance(probabilities)))
        affine = F.interpolate(self.affine(x), size=image.shape[-2:], mode="bilinear", align_corners=False)
        gain, offset = affine.chunk(2, 1)
        restored = aligned + aligned * gain + offset + F.pixel_shuffle(self.residual(x), 4)
        return restored, condition, strength
