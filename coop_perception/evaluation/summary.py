"""What summary.json says, computed from a run's frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import SemanticClass
from coop_perception.contracts import STAGES
from coop_perception.evaluation.conditions import APPLIED, CLEAR
from coop_perception.evaluation.measures import (
    CONDITION_MEASURES,
    Collected,
    conditions_in,
    plain_values,
    worst_first,
)
from coop_perception.evaluation.table import Table
from coop_perception.metrics import PSNR_CAP, calibration, percentiles, segmentation_scores

WORST = 20
"""Frames that summary.json names."""


def summarise(
    recordings: Iterable[Table],
    number: int,
    classes: Sequence[SemanticClass],
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Counts, times, scores and intervals of the frames of one recording or of several.

    Args:
        recordings: their frames, one after another; of many only sums and times are kept in memory.
        number: how many they are.
        classes: of the masks.
        known: what is known better than by the frames.
    """
    collected = Collected([c.name for c in classes], number)
    tally = _Tally(number)
    for table in recordings:
        collected.add(table)
        tally.add(table)
    latencies = tally.times("latency_ms")
    p50, p95, p99 = percentiles(latencies)
    measures = collected.scores()
    summary = {
        "frames": {"read": tally.read, **{name: tally.status[name] for name in ("processed", "dropped", "failed")}},
        "dropped_by_reason": dict(tally.reasons["dropped"].most_common()),
        "failed_by_reason": dict(tally.reasons["failed"].most_common()),
        "fps": len(latencies) / (latencies.sum() / 1e3) if latencies.sum() else 0.0,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(tally.times(f"stages_ms.{name}"))) for name in tally.stages()},
        **_masks(collected, classes),
        **tally.images(),
        **_conditions(tally, measures),
        "measures": measures,
        "worst": tally.worst,
        **(known or {}),
    }
    summary["measures"]["all"] |= plain_values(summary)
    return summary


class _Tally:
    """What is counted and added up of one recording after another, of `number`."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.read = 0
        self.status: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {"dropped": Counter(), "failed": Counter()}
        self.frames: Counter[str] = Counter()
        """By condition: those in which it is present; `clear`, without any."""
        self.applied: dict[str, Counter[str]] = {}
        """By condition: frames that it was applied to, and those that it was not applied to."""
        self.estimated = 0
        self.worst: list[dict[str, Any]] = []
        self._times: dict[str, list[NDArray[np.float64]]] = {}
        self._sums: dict[str, float] = {}
        """Over images, and how many they are."""

    def add(self, table: Table) -> None:
        """A recording's frames."""
        self.read += len(table)
        self.status.update(table.texts["status"].tolist())
        for status, found in self.reasons.items():
            found.update(table.texts["reason"][table.texts["status"] == status].tolist())
        for name, values in table.numbers.items():
            if name == "latency_ms" or name.startswith("stages_ms."):
                self._times.setdefault(name, []).append(values[~np.isnan(values)])
        for name in ("degraded", "restored"):
            psnr, ssim = (table.numbers[f"{score}_{name}"] for score in ("psnr", "ssim"))
            self._add_up(f"psnr_{name}", np.nansum(np.minimum(psnr, PSNR_CAP)))
            self._add_up(f"ssim_{name}", np.nansum(ssim))
            self._add_up(f"images_{name}", (~np.isnan(psnr)).sum())
        self._add_conditions(table)
        self._add_worst(table)

    def _add_up(self, name: str, more: np.number[Any]) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(more)

    def _add_conditions(self, table: Table) -> None:
        showing = conditions_in(table, estimated=True)
        if not showing:
            return
        self.estimated += int(np.logical_or.reduce(list(showing.values())).sum())
        for name, frames in showing.items():
            self.frames[name] += int(frames.sum())
        for name, levels in table.by_key("applied").items():
            found = self.applied.setdefault(name, Counter())
            found["applied"] += int((levels >= APPLIED).sum())
            found["not_applied"] += int((levels == 0).sum())

    def _add_worst(self, table: Table) -> None:
        name, rows = worst_first(table)
        self.worst += [
            {
                "camera": str(table.texts["camera"][row]),
                "frame": int(table.whole["frame"][row]),
                "time_s": float(table.numbers["time_s"][row]),
                "by": name,
                "value": float(table.numbers[name][row]),
            }
            for row in rows[: max(1, WORST // self._number)]
        ]

    def times(self, name: str) -> NDArray[np.float64]:
        """All frames' that have one."""
        return np.concatenate(self._times.get(name) or [np.zeros(0)])

    def stages(self) -> list[str]:
        """Those that ran, in their order."""
        return [name for name in STAGES if len(self.times(f"stages_ms.{name}"))]

    def images(self) -> dict[str, Any]:
        """Means over images."""
        return {
            f"image_{name}": {score: self._sums[f"{score}_{name}"] / images for score in ("psnr", "ssim")}
            for name in ("degraded", "restored")
            if (images := self._sums.get(f"images_{name}"))
        }


def _masks(collected: Collected, classes: Sequence[SemanticClass]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, column in (("mask_raw", "confusion_raw"), ("mask", "confusion")):
        matrix = collected.totals.get(column)
        if matrix is None or not matrix.any():
            continue
        matrix = matrix.reshape(len(classes), len(classes) + 1)
        pooled = segmentation_scores(matrix)
        found[name] = {
            "pa": pooled.pa,
            "mpa": pooled.mpa,
            "miou": pooled.miou,
            "fwiou": pooled.fwiou,
            "iou": {c.name: iou for c, iou in zip(classes, pooled.iou, strict=True)},
            "confusion": matrix.tolist(),
        }
    confidences = collected.totals.get("confidences")
    if confidences is not None and confidences.any():
        found["calibration"] = asdict(calibration(confidences.reshape(256, 2)))
    return found


def _conditions(tally: _Tally, measures: Mapping[str, Any]) -> dict[str, Any]:
    """What the networks find. Under `conditions` by condition, those found in most frames first: CONDITION_MEASURES,
    in how many frames it is present, and to how many it was applied or not, where recordings say so."""
    if not tally.estimated:
        return {}
    estimates = measures.get("estimate", {})
    conditions: dict[str, Any] = {}
    for name in sorted(estimates, key=lambda name: -tally.frames[name]):
        values = {score: one["value"] for score in CONDITION_MEASURES if (one := estimates[name].get(score))}
        conditions[name] = {"frames": tally.frames[name], **values, **tally.applied.get(name, {})}
    everything = measures["all"]
    overall = {name: everything[name]["value"] for name in ("familiarity", "restoration_ran") if name in everything}
    return {
        "condition": {"estimated": tally.estimated, "clear": tally.frames[CLEAR], **overall, "conditions": conditions}
    }
