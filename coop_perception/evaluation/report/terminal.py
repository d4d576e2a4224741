"""The short table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from coop_perception.evaluation.report.figures import (
    conditions_table,
    image_scores,
    mask_scores,
    number,
    recording_name,
    text,
    unaccounted,
)

_STYLES = {"better": "green", "worse": "red", "same": ""}


def summary_table(summary: Mapping[str, Any]) -> Table:
    """Scores before and after with their differences, frames, rate and latency.

    Args:
        summary: as in summary.json.
    """
    table = Table(title=Text(recording_name(summary)), show_edge=False)
    table.add_column("")
    for heading in ("raw / degraded", "refined / restored", "difference"):
        table.add_column(heading, justify="right")
    scores = mask_scores(summary) + image_scores(summary)
    for score in scores:
        before, after, difference = score.texts
        table.add_row(score.name, before, after, Text(difference, _STYLES[score.verdict]))
    if scores:
        table.add_section()
    frames = summary["frames"]
    lost = unaccounted(frames)
    table.add_row(
        "frames processed",
        "",
        f"{frames['processed']} of {frames['read']}",
        Text(f"{lost} unaccounted for", "red") if lost else f"{frames['dropped']} dropped",
    )
    for name, cells in conditions_table(summary).rows:
        if cells[0] != "0":
            table.add_row(Text(f"{name.replace('_', ' ')} found in"), "", f"{cells[0]} frames")
    ran = number(summary.get("condition", {}).get("restoration_ran"))
    if ran is not None:
        table.add_row("restoration ran in", "", text(100 * ran, 0, "% of frames"))
    table.add_row("rate", "", text(number(summary.get("fps")), 1, "frames/s"))
    latency = summary.get("latency_ms", {})
    for key in ("p50", "p95", "p99"):
        table.add_row(f"latency {key}", "", text(number(latency.get(key)), 1, "ms"))
    return table
