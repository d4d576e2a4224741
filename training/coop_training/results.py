"""What an evaluation finds, as `results.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError


class ResultsError(ValueError):
    """A `results.json` that cannot be used; the message names the file."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MaskScores(_Record):
    """Of the confusion matrix pooled over all images, 0..1 (see `coop_perception.metrics.SegmentationScores`)."""

    pa: float
    mpa: float
    miou: float
    fwiou: float


class ImageScores(_Record):
    """Means over images; PSNR in dB."""

    psnr: float
    ssim: float


class Scores(_Record):
    """One condition at one level, or the mean of several. What does not exist is None, and left out of the file."""

    raw: MaskScores
    """The segmenter's mask of the image as it is."""
    refined: MaskScores
    degraded: ImageScores
    restored: ImageScores
    won_back: float | None = None
    """(refined - raw) / (clean raw - raw) of the mIoU; None where the condition costs nothing."""
    estimates: dict[str, float] | None = None
    """Share of images for which each condition was the most likely one."""
    recognised: float | None = None
    """Share of images for which that was the true one; None where the model does not know the condition."""
    strength_error: float | None = None
    """Mean absolute error of the estimated strength, level/levels being the truth; None likewise."""


class ConditionScores(Scores):
    """Averaged over levels, but `won_back`, which is that of the averages."""

    levels: list[Scores]


class Results(_Record):
    """A whole evaluation."""

    bundle: str
    method: str
    """How `refined` and `restored` came about."""
    images: int
    clean: Scores
    conditions: dict[str, ConditionScores]
    mean: Scores | None = None
    """Over conditions; None without any."""


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Every number the mean over those that have it."""
    return Scores.model_validate(_mean([one.model_dump(include=set(Scores.model_fields)) for one in scores]))


def won_back(clean: Scores, scores: Scores) -> float | None:
    """Of the mIoU that a condition costs the segmenter, the share that refinement gains; None where it costs none."""
    cost = clean.raw.miou - scores.raw.miou
    return (scores.refined.miou - scores.raw.miou) / cost if cost > 0 else None


def write_results(path: Path, results: Results) -> None:
    path.write_text(results.model_dump_json(indent=2, exclude_none=True) + "\n")


def read_results(path: Path) -> Results:
    """Read a `results.json`.

    Raises:
        ResultsError: the file is missing, or is no `results.json`.
    """
    try:
        return Results.model_validate_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise ResultsError(f"{path}: is no results.json of coop-evaluate: {where}: {first['msg']}") from error


def _mean(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    numbers = [value for value in values if value is not None]
    return float(np.mean(numbers)) if numbers else None
