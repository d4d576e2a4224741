"""Fitting a trained model's notion of clear, and its restoration, to one camera, by frames without labels.

What it knew before is rehearsed on frames of sample drives, on which it is to say what it said, and its weights are
held near where they were (L2-SP, Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional
Networks", ICML 2018).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import default_collate

from coop_perception.sample_scene.drive import SampleDrive
from coop_training import familiarity
from coop_training.config import TrainConfig
from coop_training.data import AdverseCrops, Conditions, Sample
from coop_training.estimator import ABSENT, SURE, false_alarms
from coop_training.familiarity import Outcomes, drawn, outcome, stacked
from coop_training.frames import unlabelled
from coop_training.guidance import degraded_segmentation, image_of, rough_estimate, to_image
from coop_training.layouts.frame import LabelledFrame
from coop_training.losses import l1, log_mse, strength_loss
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimator
from coop_training.observed import Pixels, adverse, refinement_of, statistics
from coop_training.unknown import unknown

FIRST_DRIVE = 7000
"""Seed of the first sample drive that is rehearsed."""
DRIVES, FRAMES_PER_DRIVE, FRAME_STEP = 8, 4, 40
PER_FRAME, PER_REHEARSED = 3, 12
"""Times that each frame of the camera, and of sample drives, is put under conditions: what is seldom rehearsed is
forgotten, and each of twelve conditions is in one frame of eight."""
RESTORED = 40
"""Frames of the camera that restoration is tried on for familiarity."""
STEPS, BATCH, LEARNING_RATE, PULL = 1200, 128, 3e-4, 0.02
"""Of each fit. PULL: of the squared distance of all weights from where they were."""
REHEARSAL = 5.0
"""Weight of what familiarity said before, a cross-entropy, against decibels that are gained."""
CROP, CROPS, RESTORATION_RATE = (256, 320), 4, 1e-4
"""Height and width of the crops that restoration is trained on, how many at once, and its learning rate."""
CLEAR_CROPS = 0.1
SCALES = (0.9, 1.1)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of N frames: statistics [N,S], and how strong each condition is [N,K], 0 where it is not there."""

    statistics: Tensor
    strengths: Tensor


def adapt(
    model: Cooperative, config: TrainConfig, camera: Sequence[Pixels], restoration_steps: int, console: Console
) -> None:
    """Fit estimator and, for that many steps, restoration, to clear frames of a camera."""
    torch.manual_seed(config.seed)
    drives = rehearsed_frames()
    own = [unlabelled(frame) for frame in camera]
    estimator = refinement_of(model).estimator
    old = _copy(estimator)
    of_camera = collect(model, own, PER_FRAME, config, console, "the camera's frames")
    of_drives = collect(model, drives, PER_REHEARSED, config, console, "frames of sample drives")
    fit_estimate(estimator, old, of_camera, of_drives, false_alarms(config))
    if restoration_steps:
        fit_restoration(model, [*own, *drives], config, restoration_steps, console)
    fit_familiar(estimator, old, tried(model, own, config, console, "the camera's frames"), of_drives)


def rehearsed_frames() -> list[LabelledFrame]:
    """Of sample drives, with depth."""
    frames = []
    for seed in range(FIRST_DRIVE, FIRST_DRIVE + DRIVES):
        drive = SampleDrive(seed)
        for index in range(FRAMES_PER_DRIVE):
            frame = drive.frame(FRAME_STEP * index)
            frames.append(LabelledFrame(frame.image, frame.mask, frame.depth.astype(np.float16), drive.intrinsics))
    return frames


def collect(
    model: Cooperative, frames: Sequence[LabelledFrame], times: int, config: TrainConfig, console: Console, what: str
) -> Statistics:
    """Of each frame as it is, and so many times under conditions. Drawn by the frames' places and the seed alone."""
    rows, strengths = [], []
    for index in track(range(len(frames) * (1 + times)), f"looking at {what}", console=console):
        image, there = _shown(frames, index // (1 + times), index % (1 + times), config)
        rows.append(statistics(model, image, config.input.sizes))
        strengths.append(torch.from_numpy(there))
    return Statistics(torch.cat(rows), torch.stack(strengths))


def tried(
    model: Cooperative, frames: Sequence[LabelledFrame], config: TrainConfig, console: Console, what: str
) -> Outcomes:
    """What restoration makes of up to RESTORED frames: as they are, under conditions, and changed otherwise."""
    chosen = np.linspace(0, len(frames) - 1, min(RESTORED, len(frames))).round().astype(int).tolist()
    rows = []
    for index in track(chosen, f"restoring {what}", console=console):
        clear = frames[index].image
        changed = unknown(clear, np.random.default_rng((config.seed, 2, index)))
        shown = (clear, _shown(frames, index, 1, config)[0], changed)
        rows += [outcome(model, clear, image, config.input.sizes) for image in shown]
    return stacked(rows)


def _shown(
    frames: Sequence[LabelledFrame], index: int, time: int, config: TrainConfig
) -> tuple[Pixels, NDArray[np.float32]]:
    """A frame as it is (time 0), or under conditions, and their strengths [K]."""
    frame = frames[index]
    if time == 0:
        return frame.image, np.zeros(len(config.conditions), np.float32)
    rng = np.random.default_rng((config.seed, 1, index, time))
    reflected = frames[int(rng.integers(len(frames)))].image
    return adverse(frame, reflected, config.conditions, config.mixtures, rng)


def fit_estimate(
    estimator: Estimator, old: Estimator, camera: Statistics, rehearsed: Statistics, alarms: Tensor
) -> None:
    """Fit presence and strength to the camera's frames: a clear one shows nothing. Of the others it is to say what it
    said before. alarms: [K] of `false_alarms`."""
    with torch.no_grad():
        logits, strength = old(rehearsed.statistics)
        before = logits.sigmoid()
    truth = torch.where(camera.strengths > 0, SURE, ABSENT)
    weights = torch.where(camera.strengths > 0, 1.0, alarms)

    def loss() -> Tensor:
        own = torch.randint(len(truth), (BATCH // 2,))
        again = torch.randint(len(before), (BATCH // 2,))
        found, strengths = estimator(_jittered(estimator, camera.statistics[own]))
        of_presence = F.binary_cross_entropy_with_logits(found, truth[own], weights[own])
        of_camera = of_presence + strength_loss(strengths, camera.strengths[own])
        found, strengths = estimator(_jittered(estimator, rehearsed.statistics[again]))
        of_strength = ((strengths - strength[again]).abs() * before[again]).mean()
        total: Tensor = of_camera + F.binary_cross_entropy_with_logits(found, before[again]) + of_strength
        return total

    _fit(estimator, [estimator.presence, estimator.strength], [old.presence, old.strength], loss)


def fit_familiar(estimator: Estimator, old: Estimator, camera: Outcomes, rehearsed: Statistics) -> None:
    """Fit familiarity to what restoration makes of the camera's frames. Of the others it is to say what it said."""
    with torch.no_grad():
        before = old.outcomes(rehearsed.statistics, *_published(old, rehearsed.statistics)).sigmoid()

    def loss() -> Tensor:
        of_camera = familiarity.loss(estimator, drawn(camera, torch.arange(len(camera.error)), BATCH // 2))
        again = torch.randint(len(before), (BATCH // 2,))
        chosen = _jittered(estimator, rehearsed.statistics[again])
        logits = estimator.outcomes(chosen, *_published(estimator, chosen))
        return of_camera + REHEARSAL * F.binary_cross_entropy_with_logits(logits, before[again])

    _fit(estimator, [estimator.familiar], [old.familiar], loss)


@torch.no_grad()
def _published(estimator: Estimator, statistics: Tensor) -> tuple[Tensor, Tensor]:
    """Presence and strength as published."""
    found = estimator.estimate(statistics)
    return found.presence, found.strength


def fit_restoration(
    model: Cooperative, frames: Sequence[LabelledFrame], config: TrainConfig, steps: int, console: Console
) -> None:
    """Train restoration on crops of the frames under conditions, guided by the refined masks of these."""
    conditions = Conditions(config.conditions, CLEAR_CROPS, config.mixtures)
    samples = AdverseCrops(frames, steps * CROPS, CROP, conditions, config.seed, SCALES)
    restoration = model.restoration.requires_grad_(True).train()
    model.refinement.requires_grad_(False)
    optimizer = AdamW(restoration.parameters(), lr=RESTORATION_RATE, weight_decay=0)
    schedule = CosineAnnealingLR(optimizer, steps)
    for step in track(range(steps), "training restoration", console=console):
        batch = _batch(samples, range(step * CROPS, (step + 1) * CROPS))
        frame, clear = to_image(batch.degraded), to_image(batch.clear)
        image = image_of(frame)
        with torch.no_grad():
            guidance = model.refinement(image, degraded_segmentation(model, image))[0].float().softmax(1)
        restored = model.restored(frame, image, guidance, rough_estimate(batch.strengths))
        loss = config.losses.l1 * l1(restored, clear) + log_mse(restored, clear)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(restoration.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    restoration.eval()


def _batch(samples: AdverseCrops, chosen: range) -> Sample:
    found = [samples[index] for index in chosen]
    fields = {name: default_collate([getattr(one, name) for one in found]) for name in Sample.__slots__}
    return Sample(**fields)


def _fit(
    estimator: Estimator, networks: Sequence[nn.Module], before: Sequence[nn.Module], loss: Callable[[], Tensor]
) -> None:
    """Minimise a loss over these networks of the estimator, held near what they were before."""
    estimator.requires_grad_(False)
    parameters = list(_parameters(networks))
    anchors = [anchor.detach() for anchor in _parameters(before)]
    for network in networks:
        network.requires_grad_(True).train()
    optimizer = AdamW(parameters, lr=LEARNING_RATE, weight_decay=0)
    schedule = CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        far = torch.stack([(p - anchor).square().sum() for p, anchor in zip(parameters, anchors, strict=True)]).sum()
        optimizer.zero_grad()
        (loss() + PULL * far).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()


def _parameters(networks: Sequence[nn.Module]) -> Iterator[nn.Parameter]:
    for network in networks:
        yield from network.parameters()


def _jittered(estimator: Estimator, statistics: Tensor) -> Tensor:
    return statistics + familiarity.JITTER * torch.randn_like(statistics) * estimator.spread


def _copy(estimator: Estimator) -> Estimator:
    return copy.deepcopy(estimator).eval().requires_grad_(False)
