"""Whole frames, degraded as training degrades them, and what the networks make of each as on a vehicle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coop_perception.contracts import InputSizes, network_size
from coop_perception.views import scene_view, sensor_view
from coop_training.data import degrade_randomly, planes
from coop_training.guidance import degraded_segmentation, to_image
from coop_training.layouts.frame import LabelledFrame
from coop_training.mixtures import KINDS, Scene, mixture
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimate
from coop_training.networks.refinement import Refinement

Pixels = NDArray[np.uint8]


class NoEstimateError(ValueError):
    """A model whose refinement estimates no conditions by statistics, so that there is nothing to fit."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A frame [1,3,h,w] and its image [1,3,H,W], in 0..1; S_r [1,C,H/4,W/4]; statistics [1,S] of the estimate."""

    frame: Tensor
    image: Tensor
    refined: Tensor
    statistics: Tensor


def refinement_of(model: Cooperative) -> Refinement:
    """Raises NoEstimateError where the model has another one than ours."""
    if not isinstance(model.refinement, Refinement):
        raise NoEstimateError(f"the refinement is a {type(model.refinement).__name__}, which has no estimator to fit")
    return model.refinement


@torch.no_grad()
def observe(model: Cooperative, frame: Pixels, sizes: InputSizes) -> Observation:
    """A frame uint8 [h,w,3] RGB through segmenter and refinement."""
    refinement = refinement_of(model)
    image = _tensor(scene_view(frame, network_size(sizes, *frame.shape[:2])))
    logits, _, _, scene = refinement(image, degraded_segmentation(model, image))
    statistics = refinement.estimator.statistics(scene, _tensor(sensor_view(frame, sizes.sensor)))
    return Observation(_tensor(frame), image, logits.float().softmax(1), statistics)


@torch.no_grad()
def statistics(model: Cooperative, frame: Pixels, sizes: InputSizes) -> Tensor:
    """Those of a frame uint8 [h,w,3] RGB alone, [1,S], without a segmentation."""
    image = _tensor(scene_view(frame, network_size(sizes, *frame.shape[:2])))
    return refinement_of(model).statistics(image, _tensor(sensor_view(frame, sizes.sensor)))


@torch.no_grad()
def wholly_changed(model: Cooperative, seen: Observation, estimate: Estimate) -> tuple[Pixels, Pixels]:
    """The frame with its colours laid onto each other, and that with the whole of restoration's change; uint8 [h,w,3]
    both."""
    alignment, change = model.proposed(seen.frame, seen.image, seen.refined, estimate)
    aligned = seen.frame + alignment
    return _pixels(aligned), _pixels(aligned + change)


def adverse(
    frame: LabelledFrame, reflected: Pixels, conditions: Sequence[str], mixtures: bool, rng: np.random.Generator
) -> tuple[Pixels, NDArray[np.float32]]:
    """A frame under conditions as in training.

    Args:
        frame: clear.
        reflected: what a windscreen may show, uint8 [h,w,3] of any size.
        conditions: names of all K.
        mixtures: whether they are those of `mixtures.KINDS`, one to three at once; else one published one.
        rng: the only source of randomness.

    Returns:
        uint8 [h,w,3], and float32 [K] how strong each is, 0 where it is not there.
    """
    if mixtures:
        depth = frame.depth.astype(np.float32) if frame.depth.size else None
        return mixture(Scene(frame, depth, reflected), np.ones(len(KINDS)), rng)
    strengths = np.zeros(len(conditions), np.float32)
    index = int(rng.integers(len(conditions)))
    other = reflected if rng.random() < 0.5 else None
    image, strengths[index] = degrade_randomly(frame, conditions[index], rng, other)
    return image, strengths


def _tensor(image: Pixels) -> Tensor:
    return to_image(planes(image)[None])


def _pixels(image: Tensor) -> Pixels:
    return np.asarray(np.rint(255 * image[0].clamp(0, 1).permute(1, 2, 0).numpy()), np.uint8)
