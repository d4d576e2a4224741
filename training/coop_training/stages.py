"""One training step of each stage of Algorithm 1, and of the segmenter's own training before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_perception.classes import IGNORE_ID
from coop_training.config import TrainConfig
from coop_training.data import Sample
from coop_training.losses import condition_loss, cross_entropy, l1
from coop_training.model import Cooperative

Losses = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Stage:
    """`trained`: the networks whose weights change; `losses(model, batch)`: named terms, `total` their weighted sum."""

    trained: tuple[str, ...]
    adverse: bool
    losses: Callable[[Cooperative, Sample], Losses]


def to_image(image: Tensor) -> Tensor:
    """uint8 [N,3,H,W] → float in 0..1, channels last (which is what CPUs convolve fastest)."""
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def stages(config: TrainConfig, weights: Tensor) -> dict[str, Stage]:
    """The stages in order. weights: class weights [C] of the cross-entropy."""

    def degraded_segmentation(model: Cooperative, degraded: Tensor) -> Tensor:
        with torch.no_grad():
            return model.segmenter(degraded).float().softmax(1)

    def segmenter(model: Cooperative, batch: Sample) -> Losses:
        loss = cross_entropy(model.segmenter(to_image(batch.clear)), batch.mask, weights)
        return {"total": loss, "segmentation": loss}

    def refinement(model: Cooperative, batch: Sample) -> Losses:
        degraded = to_image(batch.degraded)
        logits, condition, strength = model.refinement(degraded, degraded_segmentation(model, degraded))
        loss = cross_entropy(logits, batch.mask, weights)
        head = condition_loss(condition, strength, batch.condition, batch.strength)
        return {"total": loss + config.condition_weight * head, "refinement": loss, "condition": head}

    def restoration(model: Cooperative, batch: Sample) -> Losses:
        degraded = to_image(batch.degraded)
        guidance = _guidance(config.guidance, model, degraded, batch, degraded_segmentation)
        restored, condition, strength = model.restoration(degraded, guidance)
        loss = l1(restored, to_image(batch.clear))
        head = condition_loss(condition, strength, batch.condition, batch.strength)
        return {
            "total": config.image_weight * loss + config.condition_weight * head,
            "restoration": loss,
            "condition": head,
        }

    def joint(model: Cooperative, batch: Sample) -> Losses:
        degraded = to_image(batch.degraded)
        logits, condition1, strength1 = model.refinement(degraded, degraded_segmentation(model, degraded))
        # S_r stays differentiable: restoration's errors reach the refinement, which is the point of this stage.
        restored, condition2, strength2 = model.restoration(degraded, logits.float().softmax(1))
        segmentation = cross_entropy(logits, batch.mask, weights)
        image = l1(restored, to_image(batch.clear))
        head = condition_loss(condition1, strength1, batch.condition, batch.strength) + condition_loss(
            condition2, strength2, batch.condition, batch.strength
        )
        return {
            "total": segmentation + config.image_weight * image + config.condition_weight * head,
            "refinement": segmentation,
            "restoration": image,
            "condition": head,
        }

    return {
        "segmenter": Stage(("segmenter",), False, segmenter),
        "refinement": Stage(("refinement",), True, refinement),
        "restoration": Stage(("restoration",), True, restoration),
        "joint": Stage(("refinement", "restoration"), True, joint),
    }


def _guidance(
    kind: str,
    model: Cooperative,
    degraded: Tensor,
    batch: Sample,
    segment: Callable[[Cooperative, Tensor], Tensor],
) -> Tensor:
    """Guidance [N,C,H/4,W/4] of the restoration's own stage: S_gt, S_r, or for each sample one of the two."""
    with torch.no_grad():
        true = smooth_one_hot(batch.mask, model.segmenter.classify.out_channels, degraded.shape[-2] // 4)
        if kind == "gt":
            return true
        refined = model.refinement(degraded, segment(model, degraded))[0].float().softmax(1)
        if kind == "refined":
            return refined
        # Even samples see the truth: as random as the samples' own order, and the same after a resume.
        take_true = torch.arange(len(refined)) % 2 == 0
        return torch.where(take_true[:, None, None, None], true, refined)


def smooth_one_hot(mask: Tensor, classes: int, height: int) -> Tensor:
    """mask int64 [N,H,W] → probabilities [N,C,height,·], box-averaged; ignored pixels spread evenly over classes."""
    valid = mask != IGNORE_ID
    one_hot = F.one_hot(mask.where(valid, torch.zeros_like(mask)), classes).permute(0, 3, 1, 2).float()
    one_hot = torch.where(valid[:, None], one_hot, torch.full_like(one_hot, 1 / classes))
    return F.avg_pool2d(one_hot, mask.shape[-2] // height)


def parameters(model: Cooperative, names: Sequence[str]) -> list[torch.nn.Parameter]:
    return [parameter for name in names for parameter in model.parts()[name].parameters()]
