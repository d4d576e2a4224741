"""One training step of each stage of Algorithm 1, and of the segmenter's own training before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_perception.classes import IGNORE_ID
from coop_training.config import TrainConfig
from coop_training.data import Sample
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
from coop_training.networks.condition import Estimate

Losses = dict[str, Tensor]
"""Named terms, each a scalar, and `total`, their weighted sum."""
Fakes = dict[str, tuple[Tensor, Tensor]]
"""By discriminator: what it is to call real and what fake, of one batch, detached."""

TRUTH_SMOOTHING = 0.1
ESTIMATED_SHARE = 0.25
"""Of mixed guidance: samples that are guided by the networks' own segmentation and estimate."""
STRENGTH_ERRORS = {"clear": 0.0, "fog": 0.08, "rain": 0.08, "reflection": 0.19}
LEAST_STRENGTH_ERROR = 0.015
"""How far off, in the mean, strengths are as estimated of unseen whole frames: by condition, and of all others."""


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


def to_image(image: Tensor) -> Tensor:
    """uint8 [N,3,H,W] → float in 0..1, channels last (which is what CPUs convolve fastest)."""
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def stages(config: TrainConfig, weights: Tensor) -> dict[str, Stage]:
    """The stages in order. weights: class weights [C] of the cross-entropy.

    Raises:
        CheckpointError: the file of VGG-19's weights cannot be used.
    """
    weight_of = {
        "cross_entropy": 1.0,
        "jaccard": config.losses.jaccard,
        "l1": config.losses.l1,
        "log_mse": config.losses.log_mse,
        "log_mse_seen": config.losses.log_mse,
        "adversarial_d1": config.losses.adversarial,
        "adversarial_d2": config.losses.adversarial,
        "perceptual": config.losses.perceptual,
        "style": config.losses.style,
        "tv": config.losses.tv,
        "condition": config.losses.condition,
    }
    adversarial = ADVERSARIAL[config.losses.adversarial_kind]
    extract = feature_extractor(config.losses)

    def weighted(terms: Mapping[str, Tensor]) -> Losses:
        return {"total": torch.stack([weight_of[name] * value for name, value in terms.items()]).sum(), **terms}

    def segmentation(logits: Tensor, batch: Sample) -> Losses:
        of_classes = weights.to(logits.device) if config.losses.class_weights else None
        terms = {"cross_entropy": cross_entropy(logits, batch.mask, of_classes)}
        if config.losses.jaccard:
            terms["jaccard"] = soft_jaccard(logits, batch.mask)
        return terms

    def refine(model: Cooperative, batch: Sample, degraded: Tensor) -> tuple[Tensor, Losses, Fakes]:
        """S_r as probabilities, and the terms of equation 1."""
        logits, condition, strength, seen = model.refinement(degraded, degraded_segmentation(model, degraded))
        refined = logits.float().softmax(1)
        terms = {
            **segmentation(logits, batch),
            "condition": condition_loss(condition, strength, batch.condition, batch.strength),
        }
        if config.losses.log_mse:
            # What makes an image clear makes it legible: the cross-entropy alone is slow to find the filters.
            terms["log_mse_seen"] = log_mse(seen, to_image(batch.clear))
        fakes: Fakes = {}
        if config.losses.adversarial:
            image = F.avg_pool2d(degraded, degraded.shape[-1] // refined.shape[-1])
            fake = torch.cat([refined, image], 1)
            real = torch.cat([plausible_truth(batch.mask, refined.detach()), image], 1)
            with frozen(model.d1):
                terms["adversarial_d1"] = adversarial.generator(model.d1(fake))
            fakes["d1"] = (real, fake.detach())
        return refined, terms, fakes

    def restore(
        model: Cooperative, batch: Sample, degraded: Tensor, guidance: Tensor, told: Estimate | None = None
    ) -> tuple[Losses, Fakes]:
        """The terms of equation 4."""
        clear = to_image(batch.clear)
        restored, condition, strength = model.restore(degraded, guidance, told)
        restored = restored.float()
        terms = {
            "l1": l1(restored, clear),
            "condition": condition_loss(condition, strength, batch.condition, batch.strength),
        }
        if config.losses.log_mse:
            terms["log_mse"] = log_mse(restored, clear)
        if config.losses.tv:
            terms["tv"] = total_variation(restored)
        if extract is not None:
            with torch.no_grad():
                real_maps = extract(model.segmenter, clear)
            maps = extract(model.segmenter, restored)
            if config.losses.perceptual:
                terms["perceptual"] = perceptual(maps.perceptual, real_maps.perceptual)
            if config.losses.style and maps.style:
                terms["style"] = style(maps.style, real_maps.style)
        fakes: Fakes = {}
        if config.losses.adversarial:
            with frozen(model.d2):
                terms["adversarial_d2"] = adversarial.generator(model.d2(restored))
            fakes["d2"] = (clear, restored.detach())
        return terms, fakes

    def segmenter(model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        logits = model.segmenter(to_image(batch.degraded))  # the clear image, in a stage that is not adverse
        return weighted(segmentation(logits, batch)), {}

    def refinement(model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        _, terms, fakes = refine(model, batch, to_image(batch.degraded))
        return weighted(terms), fakes

    def restoration(model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        degraded = to_image(batch.degraded)
        terms, fakes = restore(model, batch, degraded, *_guidance(config, model, degraded, batch))
        return weighted(terms), fakes

    def joint(model: Cooperative, batch: Sample) -> tuple[Losses, Fakes]:
        degraded = to_image(batch.degraded)
        # S_r stays differentiable: restoration's errors reach the refinement, which is the point of this stage.
        refined, terms1, fakes1 = refine(model, batch, degraded)
        terms2, fakes2 = restore(model, batch, degraded, refined)
        condition = terms1["condition"] + terms2["condition"]
        return weighted({**terms1, **terms2, "condition": condition}), {**fakes1, **fakes2}

    def critics(model: Cooperative, fakes: Fakes) -> Losses:
        terms = {}
        for name, (real, fake) in fakes.items():
            scores = model.get_submodule(name)(torch.cat([real, fake]))  # one pass: one step of the power iteration
            terms[name] = adversarial.critic(*scores.chunk(2))
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def stage(
        trained: tuple[str, ...],
        beside: tuple[str, ...],
        adverse: bool,
        losses: Callable[[Cooperative, Sample], tuple[Losses, Fakes]],
    ) -> Stage:
        return Stage(trained, beside if config.losses.adversarial else (), adverse, losses, critics)

    return {
        "segmenter": stage(("segmenter",), (), config.segmenter_sees == "adverse", segmenter),
        "refinement": stage(("refinement",), ("d1",), True, refinement),
        "restoration": stage(("restoration",), ("d2",), True, restoration),
        "joint": stage(("refinement", "restoration"), ("d1", "d2"), True, joint),
    }


def degraded_segmentation(model: Cooperative, degraded: Tensor) -> Tensor:
    """S_d: probabilities [N,C,h,w] of the segmenter, which no stage of Algorithm 1 changes."""
    with torch.no_grad():
        return model.segmenter(degraded).float().softmax(1)


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


def _guidance(config: TrainConfig, model: Cooperative, degraded: Tensor, batch: Sample) -> tuple[Tensor, Estimate]:
    """What guides the restoration in its own stage: S_gt and the true condition, S_r and the condition as it is
    estimated, or for each sample one of the two.

    Of a crop the condition is estimated far worse than of the whole frame, as deployed. So `mixed` is mostly the truth,
    its strength as far off as estimates of whole frames are.
    """
    with torch.no_grad():
        guidance = smooth_one_hot(batch.mask, model.classes, degraded.shape[-2] // model.stride)
        posterior = F.one_hot(batch.condition, model.conditions).float()
        strength = batch.strength.float().clone()
        if config.guidance == "mixed":
            names = config.all_conditions
            errors = strength.new_tensor([STRENGTH_ERRORS.get(name, LEAST_STRENGTH_ERROR) for name in names])
            off = torch.randn(len(degraded)).to(degraded.device) * errors[batch.condition]
            strength = (strength + off).clamp(0, 1)
        # Each step has a seed of its own.
        share = {"gt": 0.0, "none": 0.0, "mixed": ESTIMATED_SHARE, "refined": 1.0}[config.guidance]
        refined = (torch.rand(len(degraded)) < share).nonzero().squeeze(1).to(degraded.device)
        if len(refined):
            image = degraded[refined]
            guidance[refined], estimate = model.refine(image, degraded_segmentation(model, image))
            posterior[refined], strength[refined] = estimate.posterior.float(), estimate.strength.float()
        return guidance, Estimate(posterior, strength)


def smooth_one_hot(mask: Tensor, classes: int, height: int) -> Tensor:
    """mask int64 [N,H,W] → probabilities [N,C,height,·], box-averaged; ignored pixels spread evenly over classes."""
    shares = _class_shares(mask, classes, height)
    return shares + (1 - shares.sum(1, keepdim=True)) / classes


def plausible_truth(mask: Tensor, refined: Tensor) -> Tensor:
    """S_gt as D1 is shown it: the truth box-averaged to the size of S_r [N,C,h,w], with a tenth of S_r mixed in.

    One-hot truth is trivially told from the output of a softmax, and so is truth smoothed by a constant. With S_r as
    what smooths it, both have the same fine structure (as in Luc et al., 2016). Ignored pixels show S_r itself: they
    tell nothing.
    """
    shares = _class_shares(mask, refined.shape[1], refined.shape[-2])
    truth = shares + (1 - shares.sum(1, keepdim=True)) * refined
    return (1 - TRUTH_SMOOTHING) * truth + TRUTH_SMOOTHING * refined


def _class_shares(mask: Tensor, classes: int, height: int) -> Tensor:
    """Share of each class among the pixels of each box; less than 1 in sum where pixels are ignored. [N,C,height,·]"""
    valid = mask != IGNORE_ID
    one_hot = F.one_hot(mask.where(valid, torch.zeros_like(mask)), classes).permute(0, 3, 1, 2)
    return F.avg_pool2d(one_hot.float() * valid[:, None], mask.shape[-2] // height)
