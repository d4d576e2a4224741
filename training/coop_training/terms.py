"""The terms of equations 1 and 4, each named and weighted where it is computed, and what the discriminators learn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.config import LossesConfig
from coop_training.guidance import degraded_segmentation, plausible_truth
from coop_training.losses import (
    ADVERSARIAL,
    condition_loss,
    cross_entropy,
    feature_extractor,
    l1,
    log_mse,
    perceptual,
    soft_jaccard,
    style,
    total_variation,
)
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimate

Losses = dict[str, Tensor]
"""Named terms, each a scalar, and `total`, their weighted sum."""
Fakes = dict[str, tuple[Tensor, Tensor]]
"""By discriminator: what it is to call real and what fake, of one batch, detached."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a loss. `value`: a scalar, which counts `weight` times."""

    name: str
    weight: float
    value: Tensor


def weighted_sum(terms: Iterable[Term]) -> Losses:
    """`total` and the terms by name; values of terms of one name are added."""
    weights: dict[str, float] = {}
    values: dict[str, Tensor] = {}
    for term in terms:
        weights[term.name] = term.weight
        values[term.name] = values[term.name] + term.value if term.name in values else term.value
    return {"total": torch.stack([weights[name] * value for name, value in values.items()]).sum(), **values}


class Criteria:
    """What networks' outputs are judged by. Terms of weight 0 are not computed.

    Args:
        config: which terms there are, and their weights.
        class_weights: [L] of the labels, classes and sets of them, of the cross-entropy, where the configuration wants
            any.
        coarse: bool [L-C,C], the classes that each coarse label may be.

    Raises:
        CheckpointError: the file of VGG-19's weights cannot be used.
    """

    def __init__(self, config: LossesConfig, class_weights: Tensor, coarse: Tensor | None = None) -> None:
        self._config, self._coarse = config, coarse
        self._class_weights = class_weights if config.class_weights else None
        self._adversarial = ADVERSARIAL[config.adversarial_kind]
        self._features = feature_extractor(config)

    def segmentation(self, logits: Tensor, mask: Tensor) -> Iterator[Term]:
        """Of logits [N,C,h,w] against masks int64 [N,H,W]."""
        weights = None if self._class_weights is None else self._class_weights.to(logits.device)
        coarse = None if self._coarse is None else self._coarse.to(logits.device)
        yield Term("cross_entropy", 1.0, cross_entropy(logits, mask, weights, coarse))
        if self._config.jaccard:
            yield Term("jaccard", self._config.jaccard, soft_jaccard(logits, mask))

    def refinement(
        self, model: Cooperative, image: Tensor, mask: Tensor, strengths: Tensor
    ) -> tuple[Tensor, list[Term], Fakes]:
        """S_r of degraded images [N,3,H,W] in 0..1 as probabilities, and the terms of equation 1.

        mask int64 [N,H,W] and strengths [N,K] are the truth.
        """
        logits, presence, strength, *_ = model.refinement(image, degraded_segmentation(model, image))
        refined = logits.float().softmax(1)
        terms = [*self.segmentation(logits, mask)]
        if self._config.condition and strengths.shape[1]:
            terms.append(Term("condition", self._config.condition, condition_loss(presence, strength, strengths)))
        fakes: Fakes = {}
        if self._config.adversarial:
            small = F.avg_pool2d(image, image.shape[-1] // refined.shape[-1])
            fake = torch.cat([refined, small], 1)
            real = torch.cat([plausible_truth(mask, refined.detach()), small], 1)
            terms.append(self._generator("d1", model.d1, fake))
            fakes["d1"] = (real, fake.detach())
        return refined, terms, fakes

    def restoration(
        self, model: Cooperative, frame: Tensor, clear: Tensor, image: Tensor, guidance: Tensor, estimate: Estimate
    ) -> tuple[list[Term], Fakes]:
        """The terms of equation 4, of degraded frames [N,3,h,w] in 0..1 against clear ones.

        image [N,3,H,W], guidance [N,C,·,·] and estimate: what else the restoration receives.
        """
        restored = model.restored(frame, image, guidance, estimate).float()
        terms = [Term("l1", self._config.l1, l1(restored, clear))]
        if self._config.log_mse:
            terms.append(Term("log_mse", self._config.log_mse, log_mse(restored, clear)))
        if self._config.tv:
            terms.append(Term("tv", self._config.tv, total_variation(restored)))
        terms += self._of_features(model.segmenter, restored, clear)
        fakes: Fakes = {}
        if self._config.adversarial:
            terms.append(self._generator("d2", model.d2, restored))
            fakes["d2"] = (clear, restored.detach())
        return terms, fakes

    def critics(self, model: Cooperative, fakes: Fakes) -> Losses:
        """The discriminators' losses, by their names; no gradient reaches a generator."""
        terms = []
        for name, (real, fake) in fakes.items():
            scores = model.get_submodule(name)(torch.cat([real, fake]))  # one pass: one step of the power iteration
            terms.append(Term(name, 1.0, self._adversarial.critic(*scores.chunk(2))))
        return weighted_sum(terms)

    def _of_features(self, segmenter: nn.Module, restored: Tensor, clear: Tensor) -> Iterator[Term]:
        if self._features is None:
            return
        with torch.no_grad():
            real = self._features(segmenter, clear)
        maps = self._features(segmenter, restored)
        if self._config.perceptual:
            yield Term("perceptual", self._config.perceptual, perceptual(maps.perceptual, real.perceptual))
        if self._config.style and maps.style:
            yield Term("style", self._config.style, style(maps.style, real.style))

    def _generator(self, name: str, discriminator: nn.Module, fake: Tensor) -> Term:
        with frozen(discriminator):
            loss = self._adversarial.generator(discriminator(fake))
        return Term(f"adversarial_{name}", self._config.adversarial, loss)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within, a pass through the network lets gradients through to its input, but leaves none for its weights."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
