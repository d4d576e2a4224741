"""Any method of restoring and segmenting, scored on labelled images, clear and under every condition and level."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.progress import track

from coop_perception.classes import IGNORE_ID, SemanticClass
from coop_perception.evaluation.report.frames import Sample
from coop_perception.image_files import DatasetError
from coop_perception.images import is_nearly_black
from coop_perception.metrics import (
    PSNR_CAP,
    calibration,
    confidence_counts,
    confusion_matrix,
    mean_psnr,
    psnr,
    segmentation_scores,
    ssim,
)
from coop_perception.model.clear_weather import needs_restoration
from coop_perception.model.conditions import Conditions
from coop_perception.model.pipeline import OUTPUTS, Pipeline, Result
from coop_perception.shown import plain
from coop_training.cases import CLEAR, PUBLISHED, Case, Entry, Pixels
from coop_training.layouts.frame import Item
from coop_training.results import (
    CHANGED_DB,
    EXACT,
    HARM_DB,
    PRESENT,
    Calibration,
    ConditionScores,
    Harm,
    ImageScores,
    MaskScores,
    Results,
    Scores,
    harm_summary,
    mean_scores,
    with_won_back,
)

_CLEAR_SAMPLES = 4
Method = Callable[[Pixels, Case], Result]
"""What is scored: (degraded image uint8 [H,W,3], what was done to it) -> a result with mask_raw, mask and restored, and
with confidence and condition where the method has them. Called from several threads at a time."""
Merge = NDArray[np.uint8]
"""uint8 [256]: the label that each of the bundle's class ids counts as, where labels are coarser than its classes."""


@dataclass(frozen=True, slots=True)
class _Score:
    """One image in one case: its name, confusion matrices, counts of confidences, (PSNR, SSIM), the estimate (None: no
    such), the pictures where they are to be looked at, and whether the clear image is nearly black."""

    name: str
    raw: NDArray[np.int64]
    refined: NDArray[np.int64]
    confidences: NDArray[np.int64] | None
    degraded: tuple[float, float]
    restored: tuple[float, float]
    estimate: Conditions | None
    sample: Sample | None
    dark: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores, and samples to look at: per condition one for each level, of different images."""

    results: Results
    samples: dict[str, list[Sample]]


def cooperative(pipeline: Pipeline) -> Method:
    """Masks refined and images restored by a bundle, each image as the node treats the first that a camera sends."""
    return lambda image, case: pipeline.run([image], OUTPUTS, decide=as_first_frame)[0]


def as_first_frame(index: int, estimate: Conditions) -> Conditions | None:
    """What restoration of a camera's first frame is conditioned on: `coop_perception.model.pipeline.Decide`."""
    return estimate if needs_restoration(estimate.presence, restored_before=False) else None


def restore_then_segment(pipeline: Pipeline, restore: Callable[[Pixels, Case], Pixels] | None = None) -> Method:
    """Images restored first, by `restore` or else by the bundle; the refined mask is its segmenter's of the restored
    image."""

    def method(image: Pixels, case: Case) -> Result:
        wanted = ("mask_raw",) if restore else ("mask_raw", "restored", "condition")
        (result,) = pipeline.run([image], wanted, decide=as_first_frame)
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
    cases: Sequence[Case],
    method: Method,
    classes: Sequence[SemanticClass],
    *,
    bundle: str,
    method_name: str,
    suite: str = PUBLISHED,
    known: Sequence[str] = (),
    merge: Merge | None = None,
) -> Evaluation:
    """Scores a method. As many images at a time as the process may use cores; the outcome does not depend on that.

    Args:
        entries: images, at least one; those without labels have masks of IGNORE_ID alone.
        cases: what is done to each, beside nothing.
        method: what is scored.
        classes: of the masks.
        bundle: name of the bundle whose segmenter is used.
        method_name: how refined and restored came about, in words.
        suite: name of the cases together.
        known: the conditions that `Result.condition` is of, in its order.
        merge: where labels are coarser than classes.

    Raises:
        DatasetError: an image or label cannot be used.
        EngineError: a network failed.
    """
    cases = [Case(CLEAR), *cases]
    picked_of = {case: _picked(case, cases, len(entries)) for case in cases}
    ids = len(classes) if merge is None else int(merge[merge != IGNORE_ID].max()) + 1

    def score(index: int) -> list[_Score]:
        picked = {case for case in cases if index in picked_of[case]}
        return list(_score_image(entries[index], cases, picked, method, ids, merge))

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        by_image = executor.map(score, range(len(entries)))
        columns = zip(
            *track(by_image, escape(plain(f"evaluating {bundle}, {method_name}", 80)), total=len(entries)), strict=True
        )
        scores = dict(zip(cases, columns, strict=True))

    samples: dict[str, list[Sample]] = {case.condition: [] for case in cases}
    for case, of_case in scores.items():
        samples[case.condition] += [one.sample for one in of_case if one.sample is not None]
    clean = _pool(scores[Case(CLEAR)], Case(CLEAR), known)
    by_condition = {}
    for name in dict.fromkeys(case.condition for case in cases[1:]):
        levels = [_pool(of_case, case, known) for case, of_case in scores.items() if case.condition == name]
        levels = [with_won_back(clean, level) for level in levels]
        average = with_won_back(clean, mean_scores(levels))
        by_condition[name] = ConditionScores(**average.model_dump(), levels=levels)
    adverse = {case.condition for case in cases if not case.clear}
    results = Results(
        bundle=bundle,
        method=method_name,
        suite=suite,
        images=len(entries),
        absent=_absent(scores[Case(CLEAR)], classes) if merge is None else [],
        nearly_black=sum(one.dark for one in scores[Case(CLEAR)]),
        clean=clean,
        conditions=by_condition,
        mean=_mean_over(clean, [of for name, of in by_condition.items() if name in adverse]),
        mean_without_exact=_mean_over(
            clean, [of for name, of in by_condition.items() if name in adverse and name not in EXACT]
        ),
        harm=harm_summary(clean, by_condition),
    )
    return Evaluation(results, samples)


def _absent(clean: Sequence[_Score], classes: Sequence[SemanticClass]) -> list[str]:
    """Names of the classes of which the labels have no pixel; none without labels."""
    pixels = np.sum([one.raw for one in clean], axis=(0, 2))
    return [c.name for c in classes if pixels.any() and not pixels[c.id]]


def _mean_over(clean: Scores, conditions: Sequence[ConditionScores]) -> Scores | None:
    """How often each condition is present in the mean over all of them says nothing; nor does a mean of what is won
    back of each, which one that costs next to nothing would rule."""
    if not conditions:
        return None
    return with_won_back(clean, mean_scores(conditions)).model_copy(update={"present": None})


def _picked(case: Case, cases: Sequence[Case], images: int) -> list[int]:
    """Which images' results in this case are kept to be looked at: another one for each level."""
    if not case.level:
        return spread(images, min(_CLEAR_SAMPLES, images))
    levels = sum(other.condition == case.condition for other in cases)
    return [spread(images, levels)[case.level - 1]]


def _score_image(
    entry: Entry, cases: Sequence[Case], picked: set[Case], method: Method, ids: int, merge: Merge | None
) -> Iterator[_Score]:
    """One image in every case, in order."""
    frame = entry.item.read()
    dark = is_nearly_black(frame.image)

    def image_scores(reference: Pixels, other: Pixels) -> tuple[float, float]:
        try:
            return psnr(reference, other), ssim(reference, other)
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
            title = case.label if case.level else entry.item.name
            sample = Sample(title, degraded, result.mask_raw, result.mask, result.restored, frame.image, frame.mask)
        raw, refined = (mask if merge is None else merge[mask] for mask in (result.mask_raw, result.mask))
        reference = degraded if case.clear else frame.image  # in a clear image nothing is to be mended
        confidence = result.confidence
        yield _Score(
            name=entry.item.name,
            raw=confusion_matrix(frame.mask, raw, ids),
            refined=confusion_matrix(frame.mask, refined, ids),
            confidences=None if confidence is None else confidence_counts(frame.mask, refined, confidence),
            degraded=image_scores(reference, degraded),
            restored=image_scores(reference, result.restored),
            estimate=result.condition,
            sample=sample,
            dark=dark,
        )


def _pool(scores: Sequence[_Score], case: Case, known: Sequence[str]) -> Scores:
    """Scores of one case over all images."""
    gains = [min(one.restored[0], PSNR_CAP) - min(one.degraded[0], PSNR_CAP) for one in scores]
    worst = int(np.argmin(gains))
    confidences = [one.confidences for one in scores if one.confidences is not None]
    counts = np.sum(confidences, axis=0) if confidences else np.zeros((256, 2), np.int64)
    return Scores(
        name=case.label if case.level else None,
        raw=_mask_scores([one.raw for one in scores]),
        refined=_mask_scores([one.refined for one in scores]),
        degraded=_image_scores([one.degraded for one in scores]),
        restored=_image_scores([one.restored for one in scores]),
        calibration=Calibration.model_validate(asdict(calibration(counts))) if counts.any() else None,
        harm=None
        if case.clear
        else Harm(
            share=float(np.mean([gain < -HARM_DB for gain in gains])),
            worst=gains[worst],
            worst_image=scores[worst].name,
        ),
        changed=float(np.mean([one.restored[0] < CHANGED_DB for one in scores])) if case.clear else None,
        **_of_estimates([one.estimate for one in scores if one.estimate is not None], case, known),
    )


def _of_estimates(estimates: Sequence[Conditions], case: Case, known: Sequence[str]) -> dict[str, Any]:
    """What is said of the estimates, which may be none: fields of `Scores`."""
    if not estimates:
        return {}
    found = np.stack([estimate.presence for estimate in estimates]) >= PRESENT
    applied = [known.index(name) for name in case.applied(known)]
    strengths = [estimate.strength[index] for estimate in estimates for index in applied]
    return {
        "false_alarms": float(found.any(1).mean()) if case.clear else None,
        "present": dict(zip(known, found.mean(0).tolist(), strict=True)),
        "recognised": float(found[:, applied].mean()) if applied else None,
        "strength_error": float(np.mean(np.abs(np.subtract(strengths, case.strength))))
        if applied and case.published
        else None,
        "familiarity": float(np.mean([estimate.familiarity for estimate in estimates])),
    }


def _mask_scores(matrices: Sequence[NDArray[np.int64]]) -> MaskScores | None:
    """None where no pixel has a label."""
    pooled = np.sum(matrices, axis=0)
    if not pooled.any():
        return None
    scores = segmentation_scores(pooled)
    return MaskScores(pa=scores.pa, mpa=scores.mpa, miou=scores.miou, fwiou=scores.fwiou)


def _image_scores(values: Sequence[tuple[float, float]]) -> ImageScores:
    return ImageScores(psnr=mean_psnr([one[0] for one in values]), ssim=float(np.mean([one[1] for one in values])))
