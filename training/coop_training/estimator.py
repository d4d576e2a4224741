"""Fitting the condition estimate: to statistics of many images, each of which costs one pass through the networks."""

from __future__ import annotations

import torch
from rich.progress import track
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from coop_perception.image_files import DatasetError
from coop_training.batches import batch_loader
from coop_training.data import AdverseCrops, Sample
from coop_training.guidance import degraded_segmentation, to_image
from coop_training.interrupt import Interrupt
from coop_training.losses import condition_loss
from coop_training.networks.condition import Estimator
from coop_training.networks.refinement import Refinement
from coop_training.run import Run, TrainingInterrupted
from coop_training.step import in_any_process

BATCH = 128
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
JITTER = 0.05
"""Standard deviation of what is added to standardised statistics: a few thousand images are learnt by heart else."""
LEAST_SPREAD = 1e-3
IMAGES_AT_ONCE = 4


def fit_estimator(run: Run, stage: str, interrupt: Interrupt) -> None:
    """Fit the estimator of the model's refinement, if it has one, to that refinement's statistics of whole frames.

    Each of several processes fits the same.

    Raises:
        TrainingInterrupted: a stop was asked for; the estimator is as it was.
        DatasetError: a file of the data set cannot be used.
    """
    refinement, config = run.model.refinement, run.config
    if not isinstance(refinement, Refinement):
        return
    seed = run.seed(stage, run.settings(stage).steps)  # as if it were the step after the last
    torch.manual_seed(seed)
    settings = config.estimator
    samples = run.adverse_crops(settings.frames, (config.height, config.width), seed, settings.clear)
    fit(refinement.estimator, *collect(run, samples, interrupt), settings.steps)


@torch.no_grad()
def collect(run: Run, samples: AdverseCrops, interrupt: Interrupt) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics [N,S], conditions [N] and strengths [N] of samples.

    Raises:
        TrainingInterrupted, DatasetError: as `fit_estimator`.
    """
    model, fabric = run.model.eval(), run.fabric
    shares = [
        range(first, min(first + IMAGES_AT_ONCE, len(samples))) for first in range(0, len(samples), IMAGES_AT_ONCE)
    ]
    loader = fabric.setup_dataloaders(
        batch_loader(samples, shares, fabric.device, fabric.world_size), use_distributed_sampler=False
    )
    rows = []
    for fields in track(loader, "statistics of the condition", total=len(shares), console=run.console):
        if isinstance(fields, DatasetError):
            raise fields
        if in_any_process(fabric, interrupt.requested):
            raise TrainingInterrupted("stopped while the condition estimate was fitted, which is begun anew")
        batch = Sample(**fields)
        degraded = to_image(batch.degraded)
        with fabric.autocast():
            refined = model.refine(degraded, degraded_segmentation(model, degraded))[0]
        assert isinstance(model.refinement, Refinement)
        rows.append((model.refinement.statistics(degraded, refined), batch.condition, batch.strength.float()))
    statistics, conditions, strengths = (torch.cat(column) for column in zip(*rows, strict=True))
    return statistics, conditions, strengths


def fit(estimator: Estimator, statistics: Tensor, conditions: Tensor, strengths: Tensor, steps: int) -> None:
    """Fit it from where it is to statistics [N,S] of images whose conditions [N] and strengths [N] are known."""
    estimator.centre.copy_(statistics.mean(0))
    estimator.spread.copy_(statistics.std(0, correction=0).clamp(min=LEAST_SPREAD))
    estimator.requires_grad_(True).train()
    optimizer = AdamW(estimator.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(statistics), (BATCH,)).to(statistics.device)
        seen = statistics[chosen]
        logits, by_condition = estimator(seen + JITTER * torch.randn_like(seen) * estimator.spread)
        with_clear = F.pad(by_condition, (1, 0))  # whose strength is 0
        strength = with_clear.gather(1, conditions[chosen, None]).squeeze(1)
        loss = condition_loss(logits, strength, conditions[chosen], strengths[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    estimator.eval()
