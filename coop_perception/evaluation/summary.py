"""What summary.json says, computed from a run's frames."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from coop_perception.classes import SemanticClass
from coop_perception.evaluation.conditions import CLEAR, PRESENT
from coop_perception.evaluation.measures import Collected, plain_values, worst_first
from coop_perception.evaluation.table import Table
from coop_perception.metrics import calibration, mean_psnr, percentiles, segmentation_scores

WORST = 20
"""Frames that summary.json names."""


def counts(tables: Sequence[Table]) -> dict[str, int]:
    """Frames read, and what became of them: read = processed + dropped + failed."""
    of = Counter(status for table in tables for status in table.texts["status"].tolist())
    return {"read": sum(map(len, tables)), **{name: of[name] for name in ("processed", "dropped", "failed")}}


def reasons(tables: Sequence[Table], status: str) -> dict[str, int]:
    """How many frames were dropped, or failed, by reason."""
    found = Counter(
        reason
        for table in tables
        for reason, is_so in zip(table.texts["reason"].tolist(), table.texts["status"] == status, strict=True)
        if is_so
    )
    return dict(found.most_common())


def summarise(
    recordings: Iterable[Table],
    number: int,
    classes: Sequence[SemanticClass],
    known: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Counts, times, scores and intervals of the frames of one recording or of several.

    Args:
        recordings: their frames, one after another; their counts are not kept in memory.
        number: how many they are.
        classes: of the masks.
        known: what is known better than by the frames.
    """
    collected = Collected([c.name for c in classes], number)
    tables = []
    for table in recordings:
        collected.add(table)
        tables.append(table.light())
    latencies = _numbers(tables, "latency_ms")
    p50, p95, p99 = percentiles(latencies.tolist())
    stages = {name for table in tables for name in table.by_key("stages_ms")}
    times = {name: _numbers(tables, f"stages_ms.{name}") for name in sorted(stages, key=_stage_order)}
    summary = {
        "frames": counts(tables),
        "dropped_by_reason": reasons(tables, "dropped"),
        "failed_by_reason": reasons(tables, "failed"),
        "fps": len(latencies) / (latencies.sum() / 1e3) if latencies.sum() else 0.0,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(values)) for name, values in times.items() if len(values)},
        **_masks(collected, classes),
        **_images(tables),
        **_conditions(tables),
        "measures": collected.scores(),
        "worst": _worst(tables),
        **(known or {}),
    }
    summary["measures"]["all"] |= plain_values(summary)
    return summary


def _stage_order(name: str) -> int:
    order = ("segmenter", "refinement", "restoration")
    return order.index(name) if name in order else len(order)


def _numbers(tables: Sequence[Table], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """All frames' numbers that exist."""
    columns = [table.numbers[name] for table in tables if name in table.numbers]
    values = np.concatenate(columns) if columns else np.zeros(0)
    return values[~np.isnan(values)]


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


def _images(tables: Sequence[Table]) -> dict[str, Any]:
    found = {}
    for name in ("degraded", "restored"):
        psnr, ssim = _numbers(tables, f"psnr_{name}"), _numbers(tables, f"ssim_{name}")
        if len(psnr):
            found[f"image_{name}"] = {"psnr": mean_psnr(psnr.tolist()), "ssim": float(ssim.mean())}
    return found


def _conditions(tables: Sequence[Table]) -> dict[str, Any]:
    """By condition the frames in which it is present, and how strong it is there; `clear` counts those without any."""
    names = dict.fromkeys(name for table in tables for name in table.by_key("presence"))
    if not names:
        return {}
    frames: dict[str, int] = {}
    strength: dict[str, float] = {}
    presence = [_column(tables, f"presence.{name}") for name in names]
    known = ~np.isnan(presence).all(axis=0)
    present = np.nan_to_num(presence) >= PRESENT
    clear = int((known & ~present.any(axis=0)).sum())
    for name, there in zip(names, present, strict=True):
        if there.any():
            frames[name] = int(there.sum())
            strength[name] = float(np.nanmean(_column(tables, f"strength.{name}")[there]))
    frames = dict(Counter({CLEAR: clear, **frames}).most_common()) if clear else dict(Counter(frames).most_common())
    return {"condition": {"frames": frames, "strength": strength}} if known.any() else {}


def _column(tables: Sequence[Table], name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.concatenate([table.numbers.get(name, np.full(len(table), np.nan)) for table in tables])


def _worst(tables: Sequence[Table]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for table in tables:
        name, rows = worst_first(table)
        found += [
            {
                "camera": str(table.texts["camera"][row]),
                "frame": int(table.whole["frame"][row]),
                "time_s": float(table.numbers["time_s"][row]),
                "by": name,
                "value": float(table.numbers[name][row]),
            }
            for row in rows[: max(1, WORST // len(tables))]
        ]
    return found
