"""Two runs over the same frames: what changed, how sure that is, and where it changed most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.documents import DocumentError, read_json
from coop_perception.evaluation.bootstrap import Sums, Value, interval
from coop_perception.evaluation.evaluation import LEAST_SHARE, EvaluationError
from coop_perception.evaluation.fleet import BAGS, HOW
from coop_perception.evaluation.measures import (
    CLASS_MEASURES,
    CONDITION_MEASURES,
    MEASURES,
    Measure,
    as_json,
    class_measure,
    condition_measure,
    plain_values,
    segments,
    series,
    worst_first,
)
from coop_perception.evaluation.results import SUMMARY, SUMMARY_LIMIT
from coop_perception.evaluation.table import NAME as FRAMES
from coop_perception.evaluation.table import Table, read_parquet

MOST = 20
"""Frames that a comparison names."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder, read: its summary, and the frames of each recording by its name."""

    path: Path
    summary: Mapping[str, Any]
    tables: Mapping[str, Table]


def read_run(path: Path) -> Run:
    """A folder of results, of one recording or of many.

    Raises:
        EvaluationError: it is none.
    """
    try:
        summary = read_json(path / SUMMARY, SUMMARY_LIMIT)
    except DocumentError as error:
        raise EvaluationError(f"{path} is no run to compare: {error}") from error
    if not isinstance(summary, dict) or "measures" not in summary:
        raise EvaluationError(f"{path / SUMMARY} is no summary of this version; evaluate again")
    if "bags" not in summary:
        return Run(path, summary, {"": read_parquet(path / FRAMES)})
    names = [str(bag["name"]) for bag in summary["bags"]]
    return Run(path, summary, {name: read_parquet(path / BAGS / name / FRAMES) for name in names})


def compare(one: Run, other: Run) -> dict[str, Any]:
    """Paired differences, the second run less the first, over the frames that both have.

    Returns:
        `runs`, `frames {both, only_first, only_second}`, `measures` as in summary.json with differences in place of
        values (and `first`, `second`), `changed`: the frames that changed most, `incomplete`: why the comparison rests
        on less than was there.

    Raises:
        EvaluationError: they have no frame in common, or classes of their own each.
    """
    classes = [list(run.summary.get("mask", {}).get("iou", {})) for run in (one, other)]
    if classes[0] and classes[1] and classes[0] != classes[1]:
        raise EvaluationError(f"{one.path} and {other.path} have other classes; they cannot be compared")
    pairs = [_paired(one.tables[name], other.tables[name], name) for name in one.tables if name in other.tables]
    both = sum(len(pair.first) for pair in pairs)
    if not both:
        raise EvaluationError(
            f"{one.path} and {other.path} have no frame in common; expected runs over the same recordings"
        )
    counts = [sum(map(len, run.tables.values())) for run in (one, other)]
    measures: dict[str, Any] = {"all": _differences(pairs) | _plain(one.summary, other.summary)}
    names = dict.fromkeys((kind, name) for pair in pairs for kind, name, _ in segments(pair.first))
    for kind, name in names:
        parts = [pair.of(rows) for pair in pairs for k, n, rows in segments(pair.first) if (k, n) == (kind, name)]
        if any(len(part.first) for part in parts):
            measures.setdefault(kind, {})[name] = _differences(parts)
    for class_id, name in enumerate(classes[0] or classes[1]):
        of_class = {m: found for m in CLASS_MEASURES if (found := _difference(pairs, class_measure(m, class_id)))}
        if of_class:
            measures.setdefault("class", {})[name] = of_class
    for name in dict.fromkeys(name for pair in pairs for name in pair.first.by_key("presence")):
        of_condition = {
            m: found for m in CONDITION_MEASURES if (found := _difference(pairs, condition_measure(m, name)))
        }
        if of_condition:
            measures.setdefault("estimate", {})[name] = of_condition
    return {
        "runs": [_facts(run) for run in (one, other)],
        "frames": {"both": both, "only_first": counts[0] - both, "only_second": counts[1] - both},
        "measures": measures,
        "changed": _changed(pairs),
        "incomplete": [*_missing(both, counts), *_known_incomplete(one), *_known_incomplete(other)],
    }


def _missing(both: int, counts: Sequence[int]) -> list[str]:
    most = max(counts)
    return [f"only {both} of {most} frames are in both runs"] if both < LEAST_SHARE * most else []


def _known_incomplete(run: Run) -> list[str]:
    return [f"{run.path}: {reason}" for reason in run.summary.get("incomplete", [])[:1]]


@dataclass(frozen=True, slots=True)
class _Pair:
    """Frames of a recording, the same in both."""

    name: str
    first: Table
    second: Table

    def of(self, chosen: NDArray[np.bool_]) -> _Pair:
        return _Pair(self.name, self.first.of(chosen), self.second.of(chosen))


def _paired(one: Table, other: Table, name: str) -> _Pair:
    rows = {key: row for row, key in enumerate(_keys(other))}
    there = [(row, rows[key]) for row, key in enumerate(_keys(one)) if key in rows]
    first, second = (np.array([pair[which] for pair in there], np.intp) for which in (0, 1))
    return _Pair(name, one.at(first), other.at(second))


def _keys(table: Table) -> Iterator[tuple[str, int, int]]:
    """What a frame is known by: camera, stamp and number, as stamps may repeat."""
    return zip(
        table.texts["camera"].tolist(), table.whole["stamp_ns"].tolist(), table.whole["frame"].tolist(), strict=True
    )


def _differences(pairs: Sequence[_Pair]) -> dict[str, Any]:
    found: dict[str, Any] = {"frames": sum(len(pair.first) for pair in pairs)}
    for name, measure in MEASURES.items():
        difference = _difference(pairs, measure)
        if difference is not None:
            found[name] = difference
    return found


def _difference(pairs: Sequence[_Pair], measure: Measure) -> dict[str, float | None] | None:
    """Of a measure over frames that it scores in both runs; None where there are none."""
    drives = []
    for pair in pairs:
        first, second = measure.sums(pair.first), measure.sums(pair.second)
        if first.shape == second.shape and first.shape[1]:
            scored = np.logical_and(first.any(axis=1), second.any(axis=1))
            drives.append(series(pair.first, scored, np.hstack([first, second])))
    one = interval(drives, _less(measure.value))
    if one is None:
        return None
    sums = np.sum([drive.sum(axis=0) for drive in drives], axis=0)
    before, after = (float(measure.value(half)) for half in np.split(sums, 2))
    return as_json(one) | {"first": before, "second": after}


def _less(value: Value) -> Value:
    def difference(sums: Sums) -> Sums:
        first, second = np.split(sums, 2, axis=-1)
        return value(second) - value(first)

    return difference


def _plain(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Times and shares of lost frames: differences without an interval."""
    before, after = plain_values(one), plain_values(other)
    return {
        name: {
            "value": after[name]["value"] - before[name]["value"],
            "low": None,
            "high": None,
            "first": before[name]["value"],
            "second": after[name]["value"],
        }
        for name in before
        if name in after and before[name]["value"] is not None and after[name]["value"] is not None
    }


def _changed(pairs: Sequence[_Pair]) -> list[dict[str, Any]]:
    """By the score that ranks frames, those that it changed most for, worse before better."""
    found: list[dict[str, Any]] = []
    for pair in pairs:
        by, _ = worst_first(pair.first)
        if not by:
            continue
        before, after = pair.first.numbers[by], pair.second.numbers[by]
        # inf - inf: both equal their references
        change = np.where(
            before == after, 0.0, np.subtract(after, before, where=before != after, out=np.zeros_like(before))
        )
        found += [
            {
                "recording": pair.name,
                "camera": str(pair.first.texts["camera"][row]),
                "frame": int(pair.first.whole["frame"][row]),
                "time_s": float(pair.first.numbers["time_s"][row]),
                "by": by,
                "first": float(before[row]),
                "second": float(after[row]),
                "change": float(change[row]),
            }
            for row in range(len(change))
            if np.isfinite(change[row]) and change[row] != 0
        ]
    return sorted(found, key=lambda frame: (-abs(frame["change"]), frame["change"]))[:MOST]


def _facts(run: Run) -> dict[str, Any]:
    keys = ("recording", "mode", *HOW)
    return {"path": str(run.path), **{key: run.summary.get(key) for key in keys}}
