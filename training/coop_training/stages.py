"""The stages of Algorithm 1, and the segmenter's own training before them: what each trains, by which losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from coop_training.config import TrainConfig
from coop_training.data import Sample
from coop_training.guidance import image_of, label_shares, restoration_guidance, rough_estimate, to_image
from coop_training.model import Cooperative
from coop_training.terms import Criteria, Fakes, Losses, weighted_sum


@dataclass(frozen=True, slots=True)
class Stage:
    """What a stage trains, and on what.

    trained: networks whose weights `losses` changes; the others stay, in evaluation mode.
    critics: discriminators trained beside them, in training mode; `losses` leaves them no gradient.
    adverse: whether samples are degraded.
    losses: the generators' losses on a batch, and what the critics are to judge afterwards.
    critic_losses: the critics' losses on that; no gradient reaches a generator.
    """

    trained: tuple[str, ...]
    critics: tuple[str, ...]
    adverse: bool
    losses: Callable[[Cooperative, Sample], tuple[Losses, Fakes]]
    critic_losses: Callable[[Cooperative, Fakes], Losses]


def stages(config: TrainConfig, weights: Tensor) -> dict[str, Stage]:
    """The stages in order. weights: those of the labels [L] in the cross-entropy.

    Raises:
        CheckpointError: the file of VGG-19's weights cannot be used.
    """
    classes, sets = len(config.data.class_list.classes), config.data.label_sets
    coarse = torch.tensor([[c in among for c in range(classes)] for among in sets[classes:]], dtype=torch.bool)
    step = StageLosses(config, Criteria(config.losses, weights, coarse), label_shares(sets, classes).to(weights.device))
    critics = step.criteria.critics
    d1, d2 = (("d1",), ("d2",)) if config.losses.adversarial else ((), ())
    return {
        "segmenter": Stage(("segmenter",), (), config.segmenter_sees == "adverse", step.segmenter, critics),
        "refinement": Stage(("refinement",), d1, True, step.refinement, critics),
        "restoration": Stage(("restoration",), d2, True, step.restoration, critics),
        "joint": Stage(("refinement", "restoration"), d1 + d2, True, step.joint, critics),
    }


class StageLosses:
    """The generators' losses of each stage on a batch, and what the discriminators are to judge of it.

    shares: [256,C] by label, the classes that it stands for.
    """

    def __init__(self, config: TrainConfig, criteria: Criteria, shares: Tensor) -> None:
        self.config, self.criteria, self.shares = config, criteria, shares

    def segmenter(self, model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        """Of `batch.degraded`, which is the clear image in a stage that is not adverse."""
        logits = model.segmenter(to_image(batch.degraded))
        return weighted_sum(self.criteria.segmentation(logits, batch.mask)), {}

    def refinement(self, model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        _, terms, fakes = self.criteria.refinement(model, to_image(batch.degraded), batch.mask, batch.strengths)
        return weighted_sum(terms), fakes

    def restoration(self, model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        frame, clear = to_image(batch.degraded), to_image(batch.clear)
        image, estimate = image_of(frame), rough_estimate(batch.strengths)
        guidance = restoration_guidance(self.config, model, image, batch.mask, self.shares)
        terms, fakes = self.criteria.restoration(model, frame, clear, image, guidance, estimate)
        return weighted_sum(terms), fakes

    def joint(self, model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        """S_r stays differentiable: restoration's errors reach the refinement, which is the point of this stage."""
        frame, clear = to_image(batch.degraded), to_image(batch.clear)
        refined, terms, fakes = self.criteria.refinement(model, frame, batch.mask, batch.strengths)
        estimate = rough_estimate(batch.strengths)
        of_restoration, also = self.criteria.restoration(model, frame, clear, frame, refined, estimate)
        return weighted_sum([*terms, *of_restoration]), {**fakes, **also}
