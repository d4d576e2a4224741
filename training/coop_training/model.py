"""The networks of one model: the three that are deployed, and the discriminators that train them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coop_training.adapters import OnnxSegmenter
from coop_training.config import TrainConfig
from coop_training.mixtures import KINDS
from coop_training.networks.calibration import Calibration
from coop_training.networks.discriminator import Discriminator
from coop_training.networks.estimate import Estimate
from coop_training.networks.nafnet import NafNet
from coop_training.networks.paper import PaperRefinement, PaperRestoration
from coop_training.networks.refinement import Refinement
from coop_training.networks.restoration import Restoration
from coop_training.networks.segmenter import Segmenter

ABERRATION = "chromatic_aberration"
"""The condition, where there is it."""
COSTLY = 10.0
"""How much worse a condition's false alarm is than missing it, from which on restoration has to be surer of it."""
FIELD = 0.75
"""Of the field of gain and offset, what is made as deployed: towards the whole of it it gains less and less, and where
the estimate is wrong it spoils the whole image. What pixels show is made wholly."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Networks of a variant; `stride`: of S_r, in pixels of the image; `widths`: of the discriminators."""

    refinement: type[Refinement | PaperRefinement]
    restoration: type[Restoration | PaperRestoration | NafNet]
    stride: int
    widths: tuple[int, ...]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within, the model is in evaluation mode, without gradients; each module comes back in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


VARIANTS: dict[str, Variant] = {
    # A quarter of the paper's widths: a fifteenth of the MACs.
    "fast": Variant(Refinement, Restoration, 4, (16, 32, 64, 64, 64, 64)),
    "nafnet": Variant(Refinement, NafNet, 4, (16, 32, 64, 64, 64, 64)),
    "paper": Variant(PaperRefinement, PaperRestoration, 1, (64, 128, 256, 256, 256, 256)),
}
"""By name in the configuration."""


class Cooperative(nn.Module):
    """Segmenter, refinement (G1) and restoration (G2), for the classes and conditions of a configuration, and the
    calibration of what refinement says of its own certainty.

    Where the configuration has an adversarial loss also their discriminators: `d1` of {S, I_d}, `d2` of I.

    Raises:
        AdapterError: the configuration's own segmenter cannot be used as it is described.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        classes, conditions = len(config.data.class_list.classes), len(config.conditions)
        variant = VARIANTS[config.variant]
        self.classes, self.conditions, self.stride = classes, conditions, variant.stride
        self.segmenter = (
            Segmenter(classes)
            if config.segmenter is None
            else OnnxSegmenter(config.segmenter, config.data.class_list.classes, *config.input.image)
        )
        self.refinement = variant.refinement(classes, conditions)
        self.calibration = Calibration(classes, conditions)
        self.restoration = variant.restoration(classes, conditions)
        if isinstance(self.restoration, Restoration):
            if ABERRATION in config.conditions:
                self.restoration.aberration = config.conditions.index(ABERRATION)
            if config.mixtures:
                self.restoration.costly = tuple(index for index, kind in enumerate(KINDS) if kind.false_alarm >= COSTLY)
        self.guidance = config.guidance
        if config.losses.adversarial:
            # Made last: the others then start from the same weights with and without them.
            self.d1 = Discriminator(classes + 3, variant.widths)
            self.d2 = Discriminator(3, variant.widths)

    def refine(self, image: Tensor, given: Tensor, sensor: Tensor) -> tuple[Tensor, Estimate]:
        """Refinement as deployed.

        Args:
            image: [N,3,H,W] in 0..1, H and W divisible by 32.
            given: S_d, probabilities [N,C,h,w].
            sensor: views [N,3,T,T] in 0..1 at the camera's own resolution.

        Returns:
            S_r, probabilities [N,C,H/stride,W/stride], and the conditions.
        """
        if isinstance(self.refinement, Refinement):
            logits, _, _, statistics = self.refinement(image, given)
            return logits.float().softmax(1), self.refinement.estimate(statistics, sensor)
        logits, presence, strength = self.refinement(image, given)
        known = Estimate(presence.float().sigmoid(), strength.float(), torch.ones_like(presence[:, 0].float()))
        return logits.float().softmax(1), known

    def restore(self, frame: Tensor, image: Tensor, refined: Tensor, estimate: Estimate) -> Tensor:
        """Restoration as deployed: [N,3,h,w], the frame itself to the last bit where the estimate has no condition.

        Args:
            frame: [N,3,h,w] in 0..1, of any h, w.
            image: the same [N,3,H,W], scaled so that H and W are divisible by 32.
            refined: S_r, probabilities [N,C,·,·].
            estimate: what it is conditioned on.
        """
        return frame + self.change(frame, image, refined, estimate)

    def change(self, frame: Tensor, image: Tensor, refined: Tensor, estimate: Estimate) -> Tensor:
        """What `restore` adds to the frame."""
        alignment, change = self.proposed(frame, image, refined, estimate)
        return alignment + estimate.weight[:, None, None, None] * change

    def proposed(self, frame: Tensor, image: Tensor, refined: Tensor, estimate: Estimate) -> tuple[Tensor, Tensor]:
        """What `restore` adds to the frame to lay its colours onto each other, and the most that it adds to that, were
        the estimate sure and familiar; [N,3,h,w] both."""
        if not isinstance(self.restoration, Restoration):
            return torch.zeros_like(frame), self.restored(frame, image, refined, estimate) - frame
        received = self._received(refined, estimate)
        alignment = self.restoration.alignment(frame, estimate)
        return alignment, self.restoration.change(frame + alignment, image, *received, FIELD)

    def restored(self, frame: Tensor, image: Tensor, refined: Tensor, estimate: Estimate) -> Tensor:
        """Restoration as it is trained: peers that know of no condition change clear frames too. Arguments as
        `restore`'s."""
        result: Tensor = self.restoration(frame, image, *self._received(refined, estimate))
        return result

    def _received(self, refined: Tensor, estimate: Estimate) -> tuple[Tensor, Estimate]:
        """What restoration receives of S_r and estimate: as much as the configuration's `guidance` lets it."""
        if self.guidance in ("uniform", "none"):
            refined = torch.full_like(refined, 1 / self.classes)
        if self.guidance == "none":
            ones = torch.ones_like(estimate.presence)
            estimate = Estimate(ones, ones / 2, torch.ones_like(estimate.familiarity))
        return refined, estimate

    def parts(self) -> dict[str, nn.Module]:
        """All networks by name, as checkpoints hold them."""
        return dict(self.named_children())

    def deployed(self) -> dict[str, nn.Module]:
        """The networks that a bundle is made of."""
        return {name: self.parts()[name] for name in ("segmenter", "refinement", "calibration", "restoration")}
