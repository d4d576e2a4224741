"""What of a degradation a filter undoes: the front of refinement and restoration."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from coop_training.networks.alignment import ChannelAlignment
from coop_training.networks.condition import ConditionEncoder, Estimate, channel_misalignment, gradient_spectrum
from coop_training.networks.deconvolution import Deconvolution
from coop_training.networks.impulses import ImpulseRemoval


class Front(nn.Module):
    """Tells the condition, then takes away impulses, aligns channels and sharpens as far as the condition asks for it.

    Args:
        conditions: names of the conditions, `clear` first.
        classes: semantic classes C whose statistics help to tell the condition; 0: none do.
        windowed: whether there is an embedding of each window (`columns.windows`), or one of the whole image.
        constant_hue: whether impulses are replaced by what the other channels tell, or by the median.
        gentle: whether wide blurs are undone less far, as is better for masks.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,H/4,W/4], unless no class is heard; the condition, as
    whoever knows it better tells it.
    Outputs: image [N,3,H,W], not clamped; embedding [N,S,EMBEDDING] of S windows; condition logits [N,K] and strength
    [N] in 0..1, its own estimate; what the condition is taken to be, by whoever knows it better or itself.
    """

    def __init__(
        self,
        conditions: Sequence[str],
        classes: int = 0,
        windowed: bool = False,
        constant_hue: bool = False,
        gentle: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = ConditionEncoder(len(conditions), classes, windowed)
        self.impulses = ImpulseRemoval(constant_hue)
        self.alignment = ChannelAlignment(conditions)
        self.deconvolution = Deconvolution(conditions, gentle)

    def forward(
        self, image: Tensor, probabilities: Tensor | None = None, told: Estimate | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Estimate]:
        misalignment, spectrum = channel_misalignment(image), gradient_spectrum(image)
        statistics = self.encoder.statistics(image, misalignment, spectrum, probabilities)
        embedding, condition, strength = self.encoder(statistics)
        # Detached: what the estimate is taught is the truth, not what suits those who hear it.
        known = told or Estimate(condition.detach().softmax(1), strength.detach())
        whole = embedding.mean(1)
        aligned = self.alignment(self.impulses(image, whole), whole, misalignment, known)
        sharp = self.deconvolution(aligned, known, image)
        return sharp, embedding, condition, strength, known

    def statistics(self, image: Tensor, probabilities: Tensor | None = None) -> Tensor:
        """What the encoder takes of the same inputs. [N,S,`encoder.size`]"""
        return self.encoder.statistics(image, channel_misalignment(image), gradient_spectrum(image), probabilities)
