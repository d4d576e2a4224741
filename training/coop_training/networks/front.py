"""What of a degradation a filter undoes: the front of refinement and restoration."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.alignment import ChannelAlignment
from coop_training.networks.blocks import at_quarter
from coop_training.networks.condition import ConditionEncoder
from coop_training.networks.deconvolution import Deconvolution
from coop_training.networks.impulses import ImpulseRemoval


class Front(nn.Module):
    """Tells the condition, then takes away impulses, aligns channels and sharpens as far as the condition asks for it.

    Args:
        classes: semantic classes C.
        conditions: number of conditions K, `clear` included.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: image [N,3,H,W], not clamped; embedding [N,EMBEDDING]; condition logits [N,K]; strength [N] in 0..1.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.encoder = ConditionEncoder(classes, conditions)
        self.impulses = ImpulseRemoval()
        self.alignment = ChannelAlignment()
        self.deconvolution = Deconvolution()

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        quarter = at_quarter(probabilities, F.avg_pool2d(image, 4))
        embedding, condition, strength, misalignment = self.encoder(image, quarter)
        aligned = self.alignment(self.impulses(image, embedding), embedding, misalignment)
        return self.deconvolution(aligned, embedding), embedding, condition, strength
