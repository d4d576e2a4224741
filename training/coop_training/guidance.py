"""Segmentations and condition estimates that networks are conditioned on while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.config import TrainConfig
from coop_training.data import Sample
from coop_training.model import Cooperative
from coop_training.networks.condition import Estimate

TRUTH_SMOOTHING = 0.1
ESTIMATED_SHARE = 0.25
"""Of mixed guidance: samples that are guided by the networks' own segmentation and estimate."""
STRENGTH_ERRORS = {"clear": 0.0, "fog": 0.08, "rain": 0.08, "reflection": 0.19}
LEAST_STRENGTH_ERROR = 0.015
"""How far off, in the mean, strengths are as estimated of unseen whole frames: by condition, and of all others."""


def to_image(image: Tensor) -> Tensor:
    """uint8 [N,3,H,W] → float in 0..1, channels last (which is what CPUs convolve fastest)."""
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def degraded_segmentation(model: Cooperative, degraded: Tensor) -> Tensor:
    """S_d: probabilities [N,C,h,w] of the segmenter, which no stage of Algorithm 1 changes."""
    with torch.no_grad():
        return model.segmenter(degraded).float().softmax(1)


@torch.no_grad()
def restoration_guidance(
    config: TrainConfig, model: Cooperative, degraded: Tensor, batch: Sample
) -> tuple[Tensor, Estimate]:
    """What the restoration is conditioned on in its own stage: S_gt and the true condition, S_r and the condition as it
    is estimated, or for each sample one of the two.

    Of a crop the condition is estimated far worse than of the whole frame, as deployed. So `mixed` is mostly the truth,
    its strength as far off as estimates of whole frames are.

    Args:
        config: `guidance` says which.
        model: whose S_r and estimate are taken.
        degraded: float [N,3,H,W] in 0..1.
        batch: the same samples.

    Returns:
        Probabilities [N,C,H/stride,W/stride], and the estimate.
    """
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
    """S_gt as D1 receives it: the truth box-averaged to the size of S_r [N,C,h,w], with a tenth of S_r mixed in.

    One-hot truth is trivially distinguished from the output of a softmax, and so is truth smoothed by a constant. With
    S_r as what smooths it, both have the same fine structure (as in Luc et al., 2016). Ignored pixels hold S_r itself:
    nothing can be learnt from them.
    """
    shares = _class_shares(mask, refined.shape[1], refined.shape[-2])
    truth = shares + (1 - shares.sum(1, keepdim=True)) * refined
    return (1 - TRUTH_SMOOTHING) * truth + TRUTH_SMOOTHING * refined


def _class_shares(mask: Tensor, classes: int, height: int) -> Tensor:
    """Share of each class among the pixels of each box; less than 1 in sum where pixels have no label, or one that
    stands for several classes. [N,C,height,·]"""
    valid = mask < classes
    one_hot = F.one_hot(mask.where(valid, torch.zeros_like(mask)), classes).permute(0, 3, 1, 2)
    return F.avg_pool2d(one_hot.float() * valid[:, None], mask.shape[-2] // height)
