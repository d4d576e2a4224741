"""Any method of restoring and segmenting, scored on labelled images, clear and under every condition and level."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from coop_perception.classes import SemanticClass
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.evaluation.report.frames import Sample
from coop_perception.image_files import DatasetError
from coop_perception.metrics import confusion_matrix, mean_psnr, psnr, segmentation_scores, ssim
from coop_perception.model.pipeline import Pipeline, Result
from coop_training.layouts.frame import Item, LabelledFrame
from coop_training.results import ConditionScores, ImageScores, MaskScores, Results, Scores, mean_scores, won_back

CLEAR = "clear"
_CLEAR_SAMPLES = 4
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """A condition at one of its levels, 1 to their number; ("clear", 0) leaves images as they are."""

    condition: str
    level: int = 0

    @property
    def strength(self) -> float:
        """0 for clear, 1 at the last level: what the condition head is trained to say."""
        return self.level / len(CONDITIONS[self.condition].levels) if self.level else 0.0


Method = Callable[[Pixels, Case], Result]
"""What is scored: (degraded image uint8 [H,W,3], what was done to it) -> a result with mask_raw, mask and restored, and
with condition and strength where the method estimates them. Called from several threads at a time."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a data set. `seed` is its number in the whole set, so that a part of it is degraded as the whole."""

    item: Item
    seed: int

    def under(self, case: Case, frame: LabelledFrame) -> Pixels:
        """The image as read, under a condition; equal calls give equal bytes."""
        if not case.level:
            return frame.image
        depth = frame.depth.astype(np.float32) if frame.depth.size else None
        return degrade(
            frame.image, case.condition, case.level, seed=self.seed, depth=depth, intrinsics=frame.intrinsics
        )


@dataclass(frozen=True, slots=True)
class _Score:
    """One image in one case: confusion matrices, (PSNR, SSIM), most likely condition and strength (None: no estimate),
    and the pictures where they are to be shown."""

    raw: NDArray[np.int64]
    refined: NDArray[np.int64]
    degraded: tuple[float, float]
    restored: tuple[float, float]
    condition: int | None
    strength: float | None
    sample: Sample | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores, and samples to look at: per condition one for each level, of different images."""

    results: Results
    samples: dict[str, list[Sample]]


def cooperative(pipeline: Pipeline) -> Method:
    """Masks refined and images restored by a bundle."""
    return lambda image, case: pipeline.run([image], ("mask_raw", "mask", "restored", "condition"))[0]


def restore_then_segment(pipeline: Pipeline, restore: Callable[[Pixels, Case], Pixels] | None = None) -> Method:
    """Images restored first, by `restore` or else by the bundle; the refined mask is its segmenter's of the restored
    image."""

    def method(image: Pixels, case: Case) -> Result:
        wanted = ("mask_raw",) if restore else ("mask_raw", "restored", "condition")
        (result,) = pipeline.run([image], wanted)
        if restore:
            result.restored = restore(image, case)
        assert result.restored is not None
        (again,) = pipeline.run([result.restored], ("mask_raw",))
        result.mask = again.mask_raw
        return result

    return method


def select(items: Sequence[Item], limit: int | None) -> list[Entry]:
    """All items, or `limit` of them, evenly spread."""
    chosen = range(len(items)) if limit is None else spread(len(items), min(limit, len(items)))
    return [Entry(items[index], index) for index in chosen]


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of the indices below `count`, in the middle of as many equal parts."""
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]


def evaluate(
    entries: Sequence[Entry],
    conditions: Sequence[str],
    method: Method,
    classes: Sequence[SemanticClass],
    *,
    bundle: str,
    method_name: str,
    known: Sequence[str] = (),
) -> Evaluation:
    """Scores a method. As many images at a time as the process may use cores; the outcome does not depend on that.

    Args:
        entries: labelled images, at least one; with depth where a condition needs it.
        conditions: names in `CONDITIONS`.
        method: what is scored.
        classes: of the masks.
        bundle: name of the bundle whose segmenter is used.
        method_name: how refined and restored came about, in words.
        known: the conditions that `Result.condition` tells apart, in its order.

    Raises:
        DatasetError: an image or label cannot be used.
        EngineError: a network failed.
    """
    cases = [Case(CLEAR)]
    cases += [Case(name, level) for name in conditions for level in range(1, len(CONDITIONS[name].levels) + 1)]
    shown = {case: _shown(case, len(entries)) for case in cases}

    def score(index: int) -> list[_Score]:
        picked = {case for case in cases if index in shown[case]}
        return list(_score_image(entries[index], cases, picked, method, len(classes)))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        by_image = executor.map(score, range(len(entries)))
        columns = zip(*track(by_image, f"evaluating {bundle}, {method_name}", total=len(entries)), strict=True)
        scores = dict(zip(cases, columns, strict=True))
    if not any(one.raw.any() for one in scores[Case(CLEAR)]):
        raise DatasetError(f"no pixel of {len(entries)} labels is of a class: there is nothing to score")

    samples: dict[str, list[Sample]] = {name: [] for name in (CLEAR, *conditions)}
    for case, of_case in scores.items():
        samples[case.condition] += [one.sample for one in of_case if one.sample is not None]
    clean = _pool(scores[Case(CLEAR)], Case(CLEAR), known)
    by_condition = {}
    for name in conditions:
        levels = [_pool(of_case, case, known) for case, of_case in scores.items() if case.condition == name]
        levels = [level.model_copy(update={"won_back": won_back(clean, level)}) for level in levels]
        average = mean_scores(levels)
        average = average.model_copy(update={"won_back": won_back(clean, average)})
        by_condition[name] = ConditionScores(**average.model_dump(), levels=levels)
    results = Results(
        bundle=bundle,
        method=method_name,
        images=len(entries),
        clean=clean,
        conditions=by_condition,
        # The mean of the estimates' shares says nothing.
        mean=mean_scores(list(by_condition.values())).model_copy(update={"estimates": None}) if by_condition else None,
    )
    return Evaluation(results, samples)


def _shown(case: Case, images: int) -> list[int]:
    """Which images' results in this case are kept to be looked at."""
    if not case.level:
        return spread(images, min(_CLEAR_SAMPLES, images))
    return [spread(images, len(CONDITIONS[case.condition].levels))[case.level - 1]]


def _score_image(
    entry: Entry, cases: Sequence[Case], picked: set[Case], method: Method, classes: int
) -> Iterator[_Score]:
    """One image in every case, in order."""
    frame = entry.item.read()

    def image_scores(other: Pixels) -> tuple[float, float]:
        try:
            return psnr(frame.image, other), ssim(frame.image, other)
        except ValueError as error:
            raise DatasetError(f"{entry.item.name}: {error}") from error

    for case in cases:
        degraded = entry.under(case, frame)
        result = method(degraded, case)
        assert result.mask_raw is not None
        assert result.mask is not None
        assert result.restored is not None
        sample = None
        if case in picked:
            title = f"level {case.level}" if case.level else entry.item.name
            sample = Sample(title, degraded, result.mask_raw, result.mask, result.restored, frame.image, frame.mask)
        yield _Score(
            raw=confusion_matrix(frame.mask, result.mask_raw, classes),
            refined=confusion_matrix(frame.mask, result.mask, classes),
            degraded=image_scores(degraded),
            restored=image_scores(result.restored),
            condition=None if result.condition is None else int(result.condition.argmax()),
            strength=result.strength,
            sample=sample,
        )


def _pool(scores: Sequence[_Score], case: Case, known: Sequence[str]) -> Scores:
    """Scores of one case over all images."""
    estimates = [known[one.condition] for one in scores if one.condition is not None]
    errors = [abs(one.strength - case.strength) for one in scores if one.strength is not None]
    judged = bool(estimates) and case.condition in known
    return Scores(
        raw=_mask_scores([one.raw for one in scores]),
        refined=_mask_scores([one.refined for one in scores]),
        degraded=_image_scores([one.degraded for one in scores]),
        restored=_image_scores([one.restored for one in scores]),
        estimates={name: estimates.count(name) / len(estimates) for name in known} if estimates else None,
        recognised=estimates.count(case.condition) / len(estimates) if judged else None,
        strength_error=float(np.mean(errors)) if judged and errors else None,
    )


def _mask_scores(matrices: Sequence[NDArray[np.int64]]) -> MaskScores:
    scores = segmentation_scores(np.sum(matrices, axis=0))
    return MaskScores(pa=scores.pa, mpa=scores.mpa, miou=scores.miou, fwiou=scores.fwiou)


def _image_scores(values: Sequence[tuple[float, float]]) -> ImageScores:
    return ImageScores(psnr=mean_psnr([one[0] for one in values]), ssim=float(np.mean([one[1] for one in values])))
