"""Typed configuration of a training run, read from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """What is trained on. A folder split holds `images/` and `labels/`, paired by file stem (CamVid's layout)."""

    root: Path | None = None
    """Folder with images/<split> and labels/<split>; none: the sample drive alone."""
    split: str = "train"
    exclude: tuple[str, ...] = ()
    """File name prefixes to leave out: a held-out drive."""
    sample_drives: int = 40
    """Number of sample drives rendered, seeds `first_seed` onwards."""
    first_seed: int = 1000
    frames_per_drive: int = 10
    crop: tuple[int, int] = (288, 352)
    """Height and width in pixels; divisible by 16."""


class StageConfig(_Section):
    steps: int
    batch: int = 8
    learning_rate: float = 1e-3
    """Peak; warmed up over the first steps, then cosine to zero."""
    weight_decay: float = 1e-4


class StagesConfig(_Section):
    segmenter: StageConfig
    refinement: StageConfig
    restoration: StageConfig
    joint: StageConfig


class TrainConfig(_Section):
    """One run: data, conditions and the four stages. `guidance` is what restoration sees in its own stage (S_gt as
    Algorithm 1 feeds it, S_r as its text says, or either at random)."""

    name: str
    seed: int = 0
    height: int = 360
    width: int = 480
    data: DataConfig = DataConfig()
    conditions: tuple[str, ...] = ("fog", "gaussian_noise")
    clear: float = 0.2
    """Share of samples that stay clear."""
    guidance: Literal["gt", "refined", "mixed"] = "mixed"
    condition_weight: float = 0.1
    """Weight of the condition head's loss."""
    image_weight: float = 10.0
    """Weight of the restoration's L1 beside the refinement's cross-entropy in joint training."""
    stages: StagesConfig
    licence: str = ""
    """Licence of the weights, as the data's terms allow."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file and the field."""


def load_config(path: Path) -> TrainConfig:
    """Read a YAML configuration.

    Raises:
        ConfigError: the file is missing, is no YAML mapping, or a field is unknown, missing or of the wrong type.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        return TrainConfig.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: {problems}") from error
