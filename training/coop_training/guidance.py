"""Segmentations and estimates of conditions that networks are conditioned on while they are trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_perception.contracts import STRIDE
from coop_training.config import TrainConfig
from coop_training.model import Cooperative
from coop_training.networks.blocks import resized
from coop_training.networks.estimate import Estimate

TRUTH_SMOOTHING = 0.1
UNIFORM_SHARE = 0.15
"""Of mixed guidance: samples whose guidance says nothing of the scene."""
WRONG_SHARE = 0.1
"""Samples whose estimate is wrong: restoration is not to trust it blindly."""
UNSURE_SHARE = 0.25
"""Of conditions that are there, how many are estimated with a probability below 1."""
STRENGTH_ERROR = 0.07
"""Standard deviation of estimated strengths from the true ones."""
SMALLEST_SCALE = 0.5
"""Of the image against the frame."""


def to_image(image: Tensor) -> Tensor:
    """uint8 [N,3,H,W] → float in 0..1, channels last (which is what CPUs convolve fastest)."""
    return (image.float() / 255).contiguous(memory_format=torch.channels_last)


def image_of(frame: Tensor) -> Tensor:
    """The image that the scene is seen in, of frames [N,3,h,w]: half of the time the frames themselves, else the frames
    scaled down as those of a camera of more pixels than the networks see. Its sides are multiples of 32."""
    if torch.rand(()) < 0.5:
        return frame
    scale = float(1 - (1 - SMALLEST_SCALE) * torch.rand(()))
    size = [max(round(side * scale / STRIDE), 1) * STRIDE for side in frame.shape[-2:]]
    return F.interpolate(frame, size=size, mode="area").contiguous(memory_format=torch.channels_last)


def degraded_segmentation(model: Cooperative, degraded: Tensor) -> Tensor:
    """S_d: probabilities [N,C,h,w] of the segmenter, which no stage of Algorithm 1 changes."""
    with torch.no_grad():
        probabilities: Tensor = model.segmenter(degraded).float().softmax(1)
    return probabilities


@torch.no_grad()
def restoration_guidance(
    config: TrainConfig, model: Cooperative, image: Tensor, mask: Tensor, shares: Tensor
) -> Tensor:
    """What guides the restoration in its own stage: S_gt, S_r, for each sample one of them or nothing, or nothing.

    Args:
        config: `guidance` and `refined_share` say which.
        model: whose S_r is taken.
        image: float [N,3,H,W] in 0..1, as the networks see the frames.
        mask: int64 [N,h,w], the frames'.
        shares: of `label_shares`.

    Returns:
        Probabilities [N,C,h/stride,w/stride].
    """
    guidance = smooth_truth(mask, shares, model.stride)
    drawn = torch.rand(len(mask))  # each step has a seed of its own
    share = {"refined": 1.0, "mixed": config.refined_share}.get(config.guidance, 0.0)
    refined = (drawn < share).nonzero().squeeze(1).to(image.device)
    if len(refined):
        seen = image[refined]
        logits = model.refinement(seen, degraded_segmentation(model, seen))[0]
        guidance[refined] = resized(logits.float().softmax(1), guidance)
    if config.guidance == "mixed":
        guidance[(drawn > 1 - UNIFORM_SHARE).to(image.device)] = 1 / model.classes
    return guidance


def rough_estimate(strengths: Tensor) -> Estimate:
    """The conditions about as well as they are estimated of frames never seen, and for a tenth of the samples wrong.

    Of crops they are estimated far worse than of whole frames, as deployed: so it is the truth that is made rough. An
    unsure one is calibrated: of the conditions that it calls present with probability p, a share of p is there. A
    wrong one calls a condition present that is not, or absent that is, or takes the strongest for another one.

    Args:
        strengths: [N,K], 0 where a condition is not there.
    """

    def drawn() -> Tensor:
        return torch.rand(strengths.shape, device=strengths.device)

    number, kinds = strengths.shape
    there = strengths > 0
    share = there.float().mean()
    # As many of p, by density p where the condition is there and 1 - p where it is not, as there are of 1 - p.
    alarms = UNSURE_SHARE * share / (1 - share).clamp(min=1 / strengths.numel())
    unsure, probability = drawn(), drawn().sqrt()
    presence = torch.where(
        there,
        probability.where(unsure < UNSURE_SHARE, torch.ones_like(probability)),
        (1 - probability) * (unsure < alarms),
    )
    near = (strengths + STRENGTH_ERROR * torch.randn(strengths.shape, device=strengths.device)).clamp(0, 1)
    strength = torch.where(there, near, drawn())  # of a condition that is not there it means nothing

    def one_condition() -> Tensor:
        return F.one_hot(torch.randint(kinds, (number,), device=strengths.device), kinds).bool()

    wrong = drawn()[:, :1] < WRONG_SHARE
    presence = torch.where(wrong & one_condition(), 1 - presence, presence)
    mistaken = wrong & (drawn()[:, :1] < 0.5) & there.any(1, keepdim=True)
    presence = presence.where(~(mistaken & F.one_hot(strengths.argmax(1), kinds).bool()), presence.new_zeros(()))
    presence = presence.where(~(mistaken & one_condition()), presence.new_ones(()))
    return Estimate(presence, strength, torch.ones_like(strength[:, 0]))


def label_shares(sets: Sequence[frozenset[int]], classes: int) -> Tensor:
    """By label in masks, the probability of each class: evenly of those that a label of `DataConfig.label_sets` stands
    for, of all where there is none. [256,C]"""
    shares = torch.full((256, classes), 1 / classes)
    for label, among in enumerate(sets):
        shares[label] = 0
        shares[label, list(among)] = 1 / len(among)
    return shares


def smooth_truth(mask: Tensor, shares: Tensor, stride: int) -> Tensor:
    """S_gt: of masks int64 [N,H,W] and `label_shares`, averaged over boxes. Probabilities [N,C,H/stride,W/stride]."""
    return F.avg_pool2d(shares[mask].permute(0, 3, 1, 2), stride)


def plausible_truth(mask: Tensor, refined: Tensor) -> Tensor:
    """S_gt as D1 receives it: the truth box-averaged to the size of S_r [N,C,h,w], with a tenth of S_r mixed in.

    One-hot truth is trivially distinguished from the output of a softmax, and so is truth smoothed by a constant. With
    S_r as what smooths it, both have the same fine structure (as in Luc et al., 2016). Pixels without the label of one
    class hold S_r itself: nothing can be learnt from them.
    """
    classes = refined.shape[1]
    valid = mask < classes
    one_hot = F.one_hot(mask.where(valid, torch.zeros_like(mask)), classes).permute(0, 3, 1, 2)
    shares = F.avg_pool2d(one_hot.float() * valid[:, None], mask.shape[-2] // refined.shape[-2])
    truth = shares + (1 - shares.sum(1, keepdim=True)) * refined
    return (1 - TRUTH_SMOOTHING) * truth + TRUTH_SMOOTHING * refined
