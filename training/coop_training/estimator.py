"""Fitting the conditions' estimate: to statistics of many frames, each of which costs one pass through the encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import Dataset

from coop_perception.contracts import InputSizes, network_size
from coop_perception.image_files import DatasetError
from coop_perception.views import scene_view, sensor_view
from coop_training.batches import batch_loader
from coop_training.config import TrainConfig
from coop_training.data import DegradedFrames, planes
from coop_training.frames import with_cameras
from coop_training.guidance import to_image
from coop_training.interrupt import Interrupt
from coop_training.losses import strength_loss
from coop_training.mixtures import KINDS
from coop_training.networks.estimate import Estimator
from coop_training.networks.refinement import Refinement
from coop_training.run import Run, TrainingInterrupted
from coop_training.step import in_any_process

BATCH = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
JITTER = 0.05
"""Standard deviation of what is added to standardised statistics: a few thousand images are learnt by heart else."""
LEAST_SPREAD = 1e-3
SURE, ABSENT = 0.97, 0.01
"""What presences are fitted to instead of 1 and 0, for nothing is certain; but what is called present in a clear frame
changes it."""
LEAST_CUTOUT, LEAST_SIDE = 0.45, 180
"""Of a frame's sides, and in pixels, that half of the views show: cameras differ in aspect ratio and field of view, and
not every scene is a street."""


@dataclass(frozen=True, slots=True)
class Views:
    """The two views of a frame as the networks see them, and the truth.

    scene uint8 [3,H,W]; sensor uint8 [3,T,T]; strengths float32 [K], 0 where a condition is not there.
    """

    scene: Tensor
    sensor: Tensor
    strengths: Tensor


class FrameViews(Dataset[Views]):
    """Views of whole frames under conditions; item i is a function of (seed, i) alone."""

    def __init__(self, frames: DegradedFrames, length: int, sizes: InputSizes, seed: int) -> None:
        self.frames, self.length, self.sizes, self.seed = frames, length, sizes, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Views:
        rng = np.random.default_rng((self.seed, index))
        drawn = self.frames.draw(self.frames.all, rng)
        frame = cutout(drawn.image, rng) if rng.random() < 0.5 else drawn.image
        scene = scene_view(frame, network_size(self.sizes, *frame.shape[:2]))
        sensor = sensor_view(frame, self.sizes.sensor)
        return Views(planes(scene), planes(sensor), torch.from_numpy(drawn.strengths))


def cutout(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random part of an image [H,W,3], of at least LEAST_CUTOUT and LEAST_SIDE of each side."""
    window = []
    for length in image.shape[:2]:
        least = min(max(round(LEAST_CUTOUT * length), LEAST_SIDE), length)
        kept = int(rng.integers(least, length + 1))
        start = int(rng.integers(length - kept + 1))
        window.append(slice(start, start + kept))
    return image[tuple(window)]


def fit_estimator(run: Run, stage: str, interrupt: Interrupt) -> None:
    """Fit the estimator of the model's refinement, if it has one, to that refinement's statistics of whole frames.

    Each of several processes fits the same.

    Raises:
        TrainingInterrupted: a stop was asked for; the estimator is as it was.
        DatasetError: a file of the data set cannot be used.
    """
    refinement, config = run.model.refinement, run.config
    if not isinstance(refinement, Refinement) or not config.conditions:
        return
    seed = run.seed(stage, run.settings(stage).steps)  # as if it were the step after the last
    torch.manual_seed(seed)
    settings = config.estimator
    known = with_cameras(run.frames, settings.cameras, settings.cameras_share)
    frames = DegradedFrames(known, run.conditions(settings.clear), run.scales)
    views = FrameViews(frames, settings.frames, config.input.sizes, seed)
    statistics, strengths = collect(run, refinement, views, interrupt)
    fit(refinement.estimator, statistics, strengths, false_alarms(config), settings.steps)


def false_alarms(config: TrainConfig) -> Tensor:
    """How much worse each condition's false alarm is than missing it. [K]"""
    return torch.tensor([kind.false_alarm for kind in KINDS] if config.mixtures else [1.0] * len(config.conditions))


@torch.no_grad()
def collect(run: Run, refinement: Refinement, views: FrameViews, interrupt: Interrupt) -> tuple[Tensor, Tensor]:
    """Statistics [N,S] and strengths [N,K] of views. One by one, for frames differ in their size.

    Raises:
        TrainingInterrupted, DatasetError: as `fit_estimator`.
    """
    fabric = run.fabric
    refinement.eval()
    loader = fabric.setup_dataloaders(
        batch_loader(views, [[index] for index in range(len(views))], fabric.device, fabric.world_size),
        use_distributed_sampler=False,
    )
    rows = []
    for fields in track(loader, "statistics of the conditions", total=len(views), console=run.console):
        if isinstance(fields, DatasetError):
            raise fields
        if in_any_process(fabric, interrupt.requested):
            raise TrainingInterrupted("stopped while the conditions' estimate was fitted, which is begun anew")
        batch = Views(**fields)
        rows.append((refinement.statistics(to_image(batch.scene), to_image(batch.sensor)), batch.strengths))
    statistics, strengths = (torch.cat(column) for column in zip(*rows, strict=True))
    return statistics, strengths


def fit(estimator: Estimator, statistics: Tensor, strengths: Tensor, alarms: Tensor, steps: int) -> None:
    """Fit presence and strength from where they are.

    Args:
        estimator: whose `familiar` stays.
        statistics: [N,S] of images.
        strengths: [N,K] of their conditions, 0 where one is not there.
        alarms: [K] of `false_alarms`: by the logarithm of these, log-odds are estimated too low.
        steps: of BATCH images.
    """
    estimator.centre.copy_(statistics.mean(0))
    estimator.spread.copy_(statistics.std(0, correction=0).clamp(min=LEAST_SPREAD))
    fitted = [*estimator.presence.parameters(), *estimator.strength.parameters()]
    for parameter in fitted:
        parameter.requires_grad_(True)
    estimator.train()
    optimizer = AdamW(fitted, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, steps)
    presences = torch.where(strengths > 0, SURE, ABSENT)
    weights = torch.where(strengths > 0, 1.0, alarms.to(strengths.device))
    for _ in range(steps):
        chosen = torch.randint(len(statistics), (BATCH,)).to(statistics.device)
        seen = statistics[chosen]
        presence, strength = estimator(seen + JITTER * torch.randn_like(seen) * estimator.spread)
        of_presence = F.binary_cross_entropy_with_logits(presence, presences[chosen], weights[chosen])
        loss = of_presence + strength_loss(strength, strengths[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()
