"""What an evaluation finds, as `results.json` holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from coop_perception.replacing import write_whole
from coop_training.problems import problems


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


class Calibration(_Record):
    """Of the refined mask's confidence (see `coop_perception.metrics.Calibration`)."""

    ece: float
    risk_coverage: list[tuple[float, float]]


class Harm(_Record):
    """Images whose restored one is further from the reference than the input is, by more than HARM_DB."""

    share: float
    worst: float
    """dB by which the worst image was changed; above 0 where none was made worse."""
    worst_image: str


class Scores(_Record):
    """One condition at one level, or the mean of several. What does not exist is None, and left out of the file."""

    name: str | None = None
    """Of the level."""
    raw: MaskScores | None = None
    """The segmenter's mask of the image as it is; None without labels."""
    refined: MaskScores | None = None
    degraded: ImageScores
    restored: ImageScores
    won_back: float | None = None
    """(refined - raw) / (clean raw - raw) of the mIoU; None where the condition costs nothing."""
    won_back_of_refined: float | None = None
    """The same against the clean image's refined mask."""
    calibration: Calibration | None = None
    harm: Harm | None = None
    changed: float | None = None
    """Share of clear images that come back at less than CHANGED_DB of what they were; None of adverse ones."""
    false_alarms: float | None = None
    """Share of clear images in which any condition counts as present; None of adverse ones."""
    present: dict[str, float] | None = None
    """Share of images in which each of the bundle's conditions counts as present: with a presence of PRESENT."""
    recognised: float | None = None
    """Share of images in which the condition that was applied does; of several, the mean of their shares. None where
    the bundle knows none of them."""
    strength_error: float | None = None
    """Mean absolute error of that condition's estimated strength, level/levels being the truth; None of variants, whose
    strengths have no common scale."""
    familiarity: float | None = None
    """Mean over images."""


class ConditionScores(Scores):
    """Averaged over levels, but `won_back`, which is that of the averages, and `harm`, which is of all."""

    levels: list[Scores]


class HarmSummary(_Record):
    """What became worse, over all variants (a condition at a level is one) together."""

    variants: int
    """Adverse ones, in which something could be mended."""
    worse: int
    """How many of them have restored images that are in the mean further from the references than the inputs, by more
    than HARM_DB."""
    worse_variants: list[str]
    worst: float
    """dB by which the worst image of all was changed; above 0 where none was made worse."""
    worst_variant: str
    worst_image: str
    masks_below: int | None = None
    """How many variants, also of clear images, and these images as they are, have refined masks whose mIoU is more than
    HARM_POINTS below that of the raw ones; None without labels."""
    masks_below_variants: list[str] = []


class Results(_Record):
    """A whole evaluation."""

    bundle: str
    method: str
    """How `refined` and `restored` came about."""
    suite: str = "published"
    images: int
    absent: list[str] = []
    """Classes of which no label has a pixel, where there are labels: mIoU is over the others."""
    nearly_black: int = 0
    """Of the images, as they are without a condition."""
    odd: list[str] = []
    """What is to be said of images and labels that could be used all the same."""
    clean: Scores
    conditions: dict[str, ConditionScores]
    mean: Scores | None = None
    """Over conditions; None without any. Not over clear images of other cameras."""
    mean_without_exact: Scores | None = None
    """Over those that no filter undoes exactly: without chromatic aberration and impulses."""
    harm: HarmSummary | None = None
    """None without an adverse variant."""


PRESENT = 0.5
HARM_DB = 0.3
HARM_POINTS = 0.5
CHANGED_DB = 40.0
EXACT = ("chromatic_aberration", "impulse_noise", "aberration_shift", "aberration_radial", "impulses_random")
"""Conditions and families whose undoing is a filter's, of up to infinite gain: they would rule any mean."""


def mean_scores(scores: Sequence[Scores]) -> Scores:
    """Every number the mean over those that have it; harm of all together."""
    fields = set(Scores.model_fields) - {"name", "harm", "calibration"}
    mean = Scores.model_validate(_mean([one.model_dump(include=fields) for one in scores]))
    harms = [one.harm for one in scores if one.harm is not None]
    eces = [one.calibration for one in scores if one.calibration is not None]
    update: dict[str, object] = {}
    if harms:
        worst = min(harms, key=lambda harm: harm.worst)
        update["harm"] = worst.model_copy(update={"share": float(np.mean([harm.share for harm in harms]))})
    if eces:
        curves = np.mean([one.risk_coverage for one in eces], axis=0)
        update["calibration"] = Calibration(
            ece=float(np.mean([one.ece for one in eces])), risk_coverage=[(float(a), float(b)) for a, b in curves]
        )
    return mean.model_copy(update=update)


def won_back(clean: MaskScores | None, scores: Scores) -> float | None:
    """Of the mIoU that a condition costs the segmenter against a clean image's mask, the share that refinement gains;
    None where it costs none."""
    if clean is None or scores.raw is None or scores.refined is None:
        return None
    cost = clean.miou - scores.raw.miou
    return (scores.refined.miou - scores.raw.miou) / cost if cost > 0 else None


def with_won_back(clean: Scores, scores: Scores) -> Scores:
    shares = {"won_back": won_back(clean.raw, scores), "won_back_of_refined": won_back(clean.refined, scores)}
    return scores.model_copy(update=shares)


def harm_summary(clean: Scores, conditions: Mapping[str, ConditionScores]) -> HarmSummary | None:
    """Over all levels of all conditions, named `<condition> <level>`, and, of masks, the images without any; None where
    nothing is adverse."""
    variants = {
        name if level.name == name else f"{name} {level.name}": level
        for name, scores in conditions.items()
        for level in scores.levels
    }
    harms = {name: level.harm for name, level in variants.items() if level.harm is not None}
    if not harms:
        return None
    worst = min(harms, key=lambda name: harms[name].worst)
    masks = {
        name: 100 * (level.refined.miou - level.raw.miou)
        for name, level in {"clean": clean, **variants}.items()
        if level.refined is not None and level.raw is not None
    }
    worse = [name for name in harms if variants[name].restored.psnr - variants[name].degraded.psnr < -HARM_DB]
    below = [name for name, gain in masks.items() if gain < -HARM_POINTS]
    return HarmSummary(
        variants=len(harms),
        worse=len(worse),
        worse_variants=worse,
        worst=harms[worst].worst,
        worst_variant=worst,
        worst_image=harms[worst].worst_image,
        masks_below=len(below) if masks else None,
        masks_below_variants=below,
    )


def write_results(path: Path, results: Results) -> None:
    write_whole(path, (results.model_dump_json(indent=2, exclude_none=True) + "\n").encode())


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
        raise ResultsError(f"{path}: is no results.json of coop-evaluate: {problems(error)}") from error


def _mean(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if known and isinstance(known[0], Mapping):
        return {key: _mean([value[key] for value in known]) for key in known[0]}
    return float(np.mean(known)) if known else None
