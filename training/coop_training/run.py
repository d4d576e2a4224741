"""What all stages of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lightning_fabric import Fabric
from rich.console import Console

from coop_training.config import StageConfig, StagesConfig, TrainConfig
from coop_training.data import AdverseCrops, Conditions
from coop_training.layouts.frame import LabelledFrame
from coop_training.model import Cooperative
from coop_training.progress_panels import Panels
from coop_training.stages import Stage

STAGES = tuple(StagesConfig.model_fields)
"""Names, in order."""
CLEAR_SCALES, PUBLISHED_SCALES, MIXED_SCALES = (0.6, 2.0), (0.9, 1.3), (0.62, 1.7)
"""The smallest and the largest of views against frames."""


def result_file(out: Path, stage: str) -> Path:
    """Where a stage leaves its weights."""
    return out / f"{stage}.safetensors"


class TrainingError(RuntimeError):
    """Training cannot go on; the message says what was found and what to do."""


class TrainingInterrupted(Exception):  # noqa: N818
    """Training was asked to stop, and what it needs to go on is saved; the message says where it is."""


@dataclass(frozen=True, slots=True)
class Run:
    """One process's view of a run. `frames` are trained on, those of `validation` are not; `out`: folder of checkpoints
    and logs."""

    fabric: Fabric
    precision: str
    config: TrainConfig
    model: Cooperative
    frames: Sequence[LabelledFrame]
    validation: Sequence[LabelledFrame]
    panels: Panels
    out: Path
    console: Console

    def settings(self, stage: str) -> StageConfig:
        settings: StageConfig = getattr(self.config.stages, stage)
        return settings

    def samples(self, name: str, stage: Stage) -> AdverseCrops:
        """All samples of a stage, in order."""
        settings = self.settings(name)
        length, crop, seed = settings.steps * settings.batch, settings.crop or self.config.data.crop, self.seed(name)
        if stage.adverse:
            conditions = self.conditions(self.config.clear, settings.shares)
            return AdverseCrops(self.frames, length, crop, conditions, seed, self.scales)
        return AdverseCrops(self.frames, length, crop, Conditions((), 1.0), seed, CLEAR_SCALES)

    def conditions(self, clear: float, shares: Mapping[str, float] | None = None) -> Conditions:
        """The run's, each as often as `shares` says, or all alike; a share of frames stays clear."""
        return Conditions(self.config.conditions, clear, self.config.mixtures, shares or {})

    @property
    def scales(self) -> tuple[float, float]:
        """Of frames under conditions: the published ones are known at their data's resolution."""
        return MIXED_SCALES if self.config.mixtures else PUBLISHED_SCALES

    def seed(self, stage: str, *place: int) -> int:
        """A seed of its own for each stage, and for each place in it."""
        return int(np.random.SeedSequence((self.config.seed, STAGES.index(stage), *place)).generate_state(1)[0])
