"""The networks of one model: the three that are deployed, and the discriminators that train them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coop_training.adapters import OnnxSegmenter
from coop_training.config import TrainConfig
from coop_training.networks import lite
from coop_training.networks.condition import Estimate
from coop_training.networks.discriminator import Discriminator
from coop_training.networks.nafnet import NafNet
from coop_training.networks.paper import PaperRefinement, PaperRestoration
from coop_training.networks.refinement import Refinement
from coop_training.networks.restoration import Restoration
from coop_training.networks.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Variant:
    """Networks of a variant; `stride`: of S_r, in pixels of the image; `widths`: of the discriminators."""

    segmenter: type[Segmenter | lite.Segmenter]
    refinement: type[Refinement | PaperRefinement]
    restoration: type[Restoration | PaperRestoration | NafNet]
    stride: int
    widths: tuple[int, ...]


VARIANTS: dict[str, Variant] = {
    # A quarter of the paper's widths: a fifteenth of the MACs.
    "fast": Variant(Segmenter, Refinement, Restoration, 4, (16, 32, 64, 64, 64, 64)),
    "lite": Variant(lite.Segmenter, Refinement, Restoration, 4, (16, 32, 64, 64, 64, 64)),
    "nafnet": Variant(Segmenter, Refinement, NafNet, 4, (16, 32, 64, 64, 64, 64)),
    "paper": Variant(Segmenter, PaperRefinement, PaperRestoration, 1, (64, 128, 256, 256, 256, 256)),
}
"""By name in the configuration."""


class Unguided(nn.Module):
    """A restoration whose guidance says nothing of the scene: all classes are equally likely. Called as it is."""

    def __init__(self, restoration: nn.Module) -> None:
        super().__init__()
        self.restoration = restoration

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result: tuple[Tensor, Tensor, Tensor] = self.restoration(
            image, torch.full_like(probabilities, 1 / probabilities.shape[1])
        )
        return result


class Cooperative(nn.Module):
    """Segmenter, refinement (G1) and restoration (G2), for the classes and conditions of a configuration.

    Where the configuration has an adversarial loss also their discriminators: `d1` of {S, I_d}, `d2` of I.

    Raises:
        AdapterError: the configuration's own segmenter cannot be used as it is described.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        classes, conditions = len(config.data.class_list.classes), config.all_conditions
        variant = VARIANTS[config.variant]
        self.classes, self.conditions, self.stride = classes, len(conditions), variant.stride
        self.segmenter = (
            variant.segmenter(classes)
            if config.segmenter is None
            else OnnxSegmenter(config.segmenter, config.data.class_list.classes, config.height, config.width)
        )
        self.refinement = variant.refinement(classes, conditions)
        restoration = variant.restoration(classes, conditions)
        self.restoration = Unguided(restoration) if config.guidance == "none" else restoration
        if config.losses.adversarial:
            # Made last: the others then start from the same weights with and without them.
            self.d1 = Discriminator(classes + 3, variant.widths)
            self.d2 = Discriminator(3, variant.widths)

    def refine(self, image: Tensor, given: Tensor) -> tuple[Tensor, Estimate]:
        """Refinement as deployed: S_r of an image [N,3,H,W] in 0..1 and its S_d, both probabilities, and the condition,
        estimated from S_r too where the variant can."""
        logits, condition, strength, _ = self.refinement(image, given)
        refined = logits.float().softmax(1)
        if isinstance(self.refinement, Refinement):
            return refined, self.refinement.estimate(image, refined)
        return refined, Estimate(condition.float().softmax(1), strength.float())

    def restore(
        self, image: Tensor, refined: Tensor, estimate: Estimate | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Restoration as deployed: conditioned on the refinement's estimate, which knows the classes and has been
        fitted to whole frames, or on the one given. Arguments and results as `Restoration`'s.

        Restorations that know no conditions, and one without guidance, receive no estimate.
        """
        if not isinstance(self.restoration, Restoration):
            result: tuple[Tensor, Tensor, Tensor] = self.restoration(image, refined)
            return result
        assert isinstance(self.refinement, Refinement)  # of the same variant
        estimate = estimate or self.refinement.estimate(image, refined)
        restored, condition, strength = self.restoration(image, refined, estimate)
        if estimate.familiarity is not None:
            restored = image + estimate.familiarity[:, None, None, None] * (restored - image)
        return restored, condition, strength

    def parts(self) -> dict[str, nn.Module]:
        """All networks by name, as checkpoints hold them."""
        return dict(self.named_children())

    def deployed(self) -> dict[str, nn.Module]:
        """The networks that a bundle is made of."""
        return {name: self.parts()[name] for name in ("segmenter", "refinement", "restoration")}
