"""The scores of a run: how each is computed from what is kept of its frames, over which of them, and how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coop_perception.evaluation.bootstrap import BLOCKS, Interval, Sums, Value, interval
from coop_perception.evaluation.conditions import APPLIED, CLEAR
from coop_perception.evaluation.table import Table
from coop_perception.metrics import PSNR_CAP, calibration_errors, pooled_scores
from coop_perception.model.conditions import PRESENT

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A score that is computed from sums over frames."""

    name: str
    better: Better
    of: str
    """What the sums are of: the same for measures that share them."""
    sums: Callable[[Table], Sums]
    """[n, d]: what each frame adds; zeros where it was not scored."""
    value: Value


def _ratio(sums: Sums) -> Sums:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sums[..., 0] / sums[..., 1], np.float64)


def _mean(name: str, better: Better, column: str = "") -> Measure:
    """Of frames' own numbers."""
    return Measure(name, better, name, lambda table: _scored(_numbers(table, column or name)), _ratio)


def _gain(name: str, before: str, after: str, better: Better = "higher") -> Measure:
    """Mean of what each frame gained."""
    return Measure(name, better, name, lambda table: _scored(_numbers(table, after) - _numbers(table, before)), _ratio)


def _numbers(table: Table, column: str) -> NDArray[np.float64]:
    values = table.numbers[column]
    return np.minimum(values, PSNR_CAP) if column.startswith("psnr") else values


def _scored(values: NDArray[np.float64]) -> Sums:
    there = ~np.isnan(values)
    return np.stack([np.where(there, values, 0.0), there], axis=1)


def _counts(table: Table, column: str) -> Sums:
    """[n, d]; without a column where no frame was scored."""
    return np.asarray(table.counts.get(column, np.zeros((len(table), 0))), np.float64)


def _pooled(score: str) -> Value:
    def value(sums: Sums) -> Sums:
        if not sums.shape[-1]:
            return np.full(sums.shape[:-1], np.nan)
        return np.asarray(getattr(pooled_scores(_matrices(sums)), score), np.float64)

    return value


def _matrices(sums: Sums) -> Sums:
    classes = int(np.sqrt(sums.shape[-1]))  # C (C + 1) numbers
    return sums.reshape(*sums.shape[:-1], classes, classes + 1)


def _mask(name: str, score: str, column: str) -> Measure:
    return Measure(name, "higher", column, lambda table: _counts(table, column), _pooled(score))


def _both(table: Table) -> Sums:
    """Raw and refined confusion matrices side by side, of frames that have both."""
    raw, refined = _counts(table, "confusion_raw"), _counts(table, "confusion")
    if raw.shape != refined.shape:
        return np.zeros((len(table), 0))
    scored = np.logical_and(raw.any(axis=1), refined.any(axis=1))
    return np.hstack([raw, refined]) * scored.reshape(-1, 1)


def _pooled_gain(pick: Callable[[Sums], Sums]) -> Value:
    def value(sums: Sums) -> Sums:
        if not sums.shape[-1]:
            return np.full(sums.shape[:-1], np.nan)
        raw, refined = np.split(sums, 2, axis=-1)
        return pick(_matrices(refined)) - pick(_matrices(raw))

    return value


def _ece(sums: Sums) -> Sums:
    if not sums.shape[-1]:
        return np.full(sums.shape[:-1], np.nan)
    return calibration_errors(sums.reshape(*sums.shape[:-1], 256, 2))


MEASURES = {
    measure.name: measure
    for measure in (
        *(
            _mask(f"{score}{suffix}", score, f"confusion{suffix}")
            for score in ("miou", "mpa", "pa", "fwiou")
            for suffix in ("", "_raw")
        ),
        Measure("miou_gain", "higher", "both", _both, _pooled_gain(lambda matrices: pooled_scores(matrices).miou)),
        Measure("ece", "lower", "confidences", lambda table: _counts(table, "confidences"), _ece),
        _mean("psnr", "higher", "psnr_restored"),
        _mean("psnr_degraded", "higher"),
        _gain("psnr_gain", "psnr_degraded", "psnr_restored"),
        _mean("ssim", "higher", "ssim_restored"),
        _mean("ssim_degraded", "higher"),
        _gain("ssim_gain", "ssim_degraded", "ssim_restored"),
        _mean("disagreement", "neither"),
        _mean("confidence", "neither"),
        _mean("flicker", "lower"),
        _mean("flicker_raw", "lower"),
        _mean("sharpness", "neither"),
        _mean("sharpness_restored", "neither"),
        _mean("contrast", "neither"),
        _mean("contrast_restored", "neither"),
        _mean("noise", "neither"),
        _mean("noise_restored", "neither"),
        _mean("familiarity", "neither"),
        _mean("restoration_ran", "neither"),
    )
}
CLASS_MEASURES = ("iou", "iou_raw", "iou_gain")
CONDITION_MEASURES = ("presence", "present", "strength", "recognised", "false_alarms")
TIMES = ("latency_p50", "latency_p95", "latency_p99")
SHARES = ("dropped", "failed")
"""Of the frames that were read."""
BETTER: Mapping[str, Better] = {
    **{name: measure.better for name, measure in MEASURES.items()},
    **dict.fromkeys(CLASS_MEASURES, "higher"),
    **dict.fromkeys(CONDITION_MEASURES, "neither"),
    "recognised": "higher",
    "false_alarms": "lower",
    **dict.fromkeys((*TIMES, *SHARES), "lower"),
}
"""Which way each score is better."""
NAMES = tuple(BETTER)


def class_measure(name: str, class_id: int) -> Measure:
    """One of CLASS_MEASURES of a class."""

    def pick(matrices: Sums) -> Sums:
        return np.asarray(pooled_scores(matrices).iou[..., class_id], np.float64)

    if name == "iou_gain":
        return Measure(name, "higher", "both", _both, _pooled_gain(pick))
    column = "confusion" + name.removeprefix("iou")

    def value(sums: Sums) -> Sums:
        return pick(_matrices(sums)) if sums.shape[-1] else np.full(sums.shape[:-1], np.nan)

    return Measure(name, "higher", column, lambda table: _counts(table, column), value)


def condition_measure(name: str, condition: str) -> Measure:
    """One of CONDITION_MEASURES, of the estimate of a condition: its mean presence, the share of frames in which it is
    present, its mean strength in these; and where the recording says what was applied, the share of frames with it in
    which it is found, and of those without it in which it is found all the same."""

    def sums(table: Table) -> Sums:
        presence, strength, applied = (
            table.numbers.get(f"{column}.{condition}", np.full(len(table), np.nan))
            for column in ("presence", "strength", "applied")
        )
        present = np.where(np.isnan(presence), np.nan, presence >= PRESENT)
        among = {
            "presence": (presence, True),
            "present": (present, True),
            "strength": (strength, present == 1),
            "recognised": (present, applied >= APPLIED),
            "false_alarms": (present, applied == 0),
        }
        values, chosen = among[name]
        return _scored(np.where(chosen, values, np.nan))

    return Measure(name, BETTER[name], f"{name} {condition}", sums, _ratio)


def plain_values(summary: Mapping[str, Any]) -> dict[str, Any]:
    """TIMES and SHARES of a summary: what has no interval."""
    frames = summary["frames"]
    values = {name: summary["latency_ms"][name.removeprefix("latency_")] for name in TIMES}
    values |= {name: frames[name] / frames["read"] for name in SHARES if frames["read"]}
    return {name: {"value": value, "low": None, "high": None} for name, value in values.items()}


def segments(table: Table) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    """Kind (camera or condition), name and frames of each part of a run that has scores of its own. A frame belongs to
    every condition that is in it (`conditions_in`), and to `clear` where none is."""
    cameras = list(dict.fromkeys(table.texts["camera"].tolist()))
    for camera in cameras:
        yield "camera", camera, table.texts["camera"] == camera
    for name, rows in conditions_in(table).items():
        yield "condition", name, rows


def conditions_in(table: Table, estimated: bool = False) -> dict[str, NDArray[np.bool_]]:
    """By condition, and for `clear`, which frames it is in: as the recording says, or else as the networks find; as
    they find alone where `estimated`."""
    presence, applied = table.by_key("presence"), {} if estimated else table.by_key("applied")
    if not presence:
        return {}
    found = np.stack(list(presence.values()))
    levels = np.stack([applied.get(name, np.full(len(table), np.nan)) for name in presence])
    known = ~np.isnan(np.concatenate([found, levels])).all(axis=0)
    there = np.where(np.isnan(levels), np.nan_to_num(found) >= PRESENT, levels > 0)
    return {CLEAR: known & ~there.any(axis=0), **dict(zip(presence, there, strict=True))}


def series(table: Table, rows: NDArray[np.bool_], sums: Sums) -> Sums:
    """What a recording's chosen frames add, [moments, d] in order of time. Cameras see the same weather at the same
    time, so their frames of one moment are one of the series, which else would look surer than it is."""
    chosen = np.flatnonzero(rows)
    if not len(chosen):
        return sums[:0]
    order = chosen[np.argsort(table.numbers["time_s"][chosen], kind="stable")]
    cameras = len(set(table.texts["camera"][chosen].tolist()))
    return np.asarray(np.add.reduceat(sums[order], np.arange(0, len(order), cameras), axis=0), np.float64)


class Collected:
    """What scores are computed from, of one recording after another.

    Args:
        classes: names, by id.
        recordings: how many there will be. Of BLOCKS or more only sums are kept, by part of the run and measure: each
            recording is one entry, for these are independent anyway, and a thousand of them then take no more memory
            than one does. Of fewer their frames are.
    """

    def __init__(self, classes: Sequence[str], recordings: int) -> None:
        self._classes = classes
        self._by_recording = recordings >= BLOCKS
        self._sums: dict[tuple[str, str, str], list[Sums]] = {}
        self._frames_of: list[tuple[Table, dict[tuple[str, str], NDArray[np.bool_]]]] = []
        """Of each recording, and which of them are in each part of the run."""
        self._frames: Counter[tuple[str, str]] = Counter()
        self._conditions: dict[str, None] = {}
        self.totals: dict[str, NDArray[np.int64]] = {}
        """Counts of all frames together."""

    def add(self, table: Table) -> None:
        """A recording's frames."""
        for column, counts in table.counts.items():
            total = counts.sum(axis=0)
            self.totals[column] = total + self.totals[column] if column in self.totals else total
        parts = {("all", ""): np.ones(len(table), np.bool_)}
        parts |= {(kind, segment): rows for kind, segment, rows in segments(table)}
        self._frames.update({part: int(rows.sum()) for part, rows in parts.items()})
        conditions = table.by_key("presence")
        self._conditions |= dict.fromkeys(conditions)
        if not self._by_recording:
            self._frames_of.append((table, parts))
            return
        for measure in {measure.of: measure for measure in MEASURES.values()}.values():
            sums = measure.sums(table)
            for (kind, segment), rows in parts.items():
                self._keep(kind, segment, measure, sums[rows])
        for condition in conditions:
            for name in CONDITION_MEASURES:
                measure = condition_measure(name, condition)
                self._keep("all", "", measure, measure.sums(table))

    def _keep(self, kind: str, segment: str, measure: Measure, sums: Sums) -> None:
        if sums.any():
            self._sums.setdefault((kind, segment, measure.of), []).append(sums.sum(axis=0, keepdims=True))

    def _series(self, kind: str, segment: str, measure: Measure) -> list[Sums]:
        """Made when it is asked for: all of them together are many times the frames."""
        if self._by_recording:
            return self._sums.get((kind, segment, measure.of), [])
        of_part = ((table, parts[kind, segment]) for table, parts in self._frames_of if (kind, segment) in parts)
        return [series(table, rows, measure.sums(table)) for table, rows in of_part]

    def scores(self) -> dict[str, Any]:
        """As summary.json has them under `measures`: over all frames, by camera, condition and class, and what the
        estimate of each condition is worth."""
        found: dict[str, Any] = {"all": {}}
        for (kind, segment), frames in self._frames.items():
            if frames:
                part = found["all"] if kind == "all" else found.setdefault(kind, {}).setdefault(segment, {})
                part |= {"frames": frames, **self._scores(kind, segment, MEASURES.values())}
        for class_id, name in enumerate(self._classes):
            of_class = self._scores("all", "", (class_measure(score, class_id) for score in CLASS_MEASURES))
            if of_class:
                found.setdefault("class", {})[name] = of_class
        for name in self._conditions:
            of_condition = self._scores("all", "", (condition_measure(score, name) for score in CONDITION_MEASURES))
            if of_condition:
                found.setdefault("estimate", {})[name] = of_condition
        return found

    def _scores(self, kind: str, segment: str, measures: Iterable[Measure]) -> dict[str, Any]:
        """Of those of the measures that have a value."""
        intervals = {
            measure.name: interval(self._series(kind, segment, measure), measure.value) for measure in measures
        }
        return {name: as_json(one) for name, one in intervals.items() if one is not None}


def scores(tables: Sequence[Table], classes: Sequence[str]) -> dict[str, Any]:
    """All scores of recordings, one table each; `classes`: names, by id."""
    collected = Collected(classes, len(tables))
    for table in tables:
        collected.add(table)
    return collected.scores()


def as_json(one: Interval) -> dict[str, float | None]:
    return {"value": one.value, "low": one.low, "high": one.high}


def worst_first(table: Table) -> tuple[str, NDArray[np.intp]]:
    """By what frames are ranked, the first of these that is known of any: mIoU, PSNR of the restored image, mean
    confidence, agreement of both masks; and the frames' rows, worst first. A frame without it has no rank."""
    for name, sign in (("miou", 1), ("psnr_restored", 1), ("confidence", 1), ("disagreement", -1)):
        values = table.numbers[name] * sign
        ranked = np.flatnonzero(~np.isnan(values))
        if len(ranked):
            return name, ranked[np.argsort(values[ranked], kind="stable")]
    return "", np.zeros(0, np.intp)
