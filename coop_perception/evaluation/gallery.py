"""Which frames of a run are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coop_perception.evaluation.conditions import CLEAR
from coop_perception.evaluation.measures import conditions_in, worst_first
from coop_perception.evaluation.table import Table
from coop_perception.metrics import pooled_scores

COLUMNS = 4
"""Of the overview: frames evenly spread over the drive."""
EACH = 3
"""Best, median and worst frames."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A frame by its row, and why it is shown."""

    row: int
    why: str


def overview(table: Table) -> list[int]:
    """Rows of a few processed frames, evenly spread."""
    processed = np.flatnonzero(table.texts["status"] == "processed")
    if not len(processed):
        return []
    spread = (np.arange(COLUMNS) + 0.5) / COLUMNS * len(processed)
    return list(dict.fromkeys(processed[spread.astype(int)].tolist()))


def gallery(table: Table, classes: Sequence[str]) -> list[Choice]:
    """The worst, median and best frames, and the worst one in each condition and for each class; none twice."""
    _, ranked = worst_first(table)
    chosen: dict[int, str] = {}

    def take(rows: list[int], why: str) -> None:
        for row in rows:
            chosen.setdefault(row, why)

    take(ranked[:EACH].tolist(), "worst")
    for name, there in conditions_in(table).items():
        take(ranked[there[ranked]][:1].tolist(), f"worst with {name}" if name != CLEAR else "worst clear one")
    middle = max(0, len(ranked) // 2 - EACH // 2)
    take(ranked[middle : middle + EACH].tolist(), "median")
    take(ranked[::-1][:EACH].tolist(), "best")
    for name, rows in zip(classes, _by_class(table), strict=False):
        take(rows[:1], f"worst for {name}")
    return [Choice(row, why) for row, why in chosen.items()]


def class_ious(table: Table) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """[n, C] of each frame alone; NaN where a class is absent from the reference."""
    counts = table.counts.get("confusion")
    if counts is None:
        return np.zeros((len(table), 0))
    classes = int(np.sqrt(counts.shape[1]))
    return pooled_scores(counts.reshape(-1, classes, classes + 1)).iou


def _by_class(table: Table) -> list[list[int]]:
    """For each class the rows in which it is, worst first."""
    ious = class_ious(table)
    return [[int(row) for row in np.argsort(column, kind="stable") if not np.isnan(column[row])] for column in ious.T]
