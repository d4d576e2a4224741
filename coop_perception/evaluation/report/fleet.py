"""The page of many recordings: one row each, worst first, with the way to its own page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coop_perception.evaluation.report import figures
from coop_perception.evaluation.report.page import facts_of
from coop_perception.evaluation.report.tables import Cell, Sheet, number_cell, text_cell, write_tables
from coop_perception.shown import plain

COLUMNS = (
    "miou",
    "miou_gain",
    "psnr",
    "psnr_gain",
    "ssim_gain",
    "ece",
    "disagreement",
    "flicker",
    "confidence",
)
"""Scores of a recording, those that any has; by the first of these that there is they are ordered."""
_LOWER = ("ece", "disagreement", "flicker")


def write_fleet(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the page of a summary of many recordings.

    Raises:
        OSError: it cannot be written.
    """
    bags = summary["bags"]
    columns = [name for name in COLUMNS if any(bag["measures"].get(name) is not None for bag in bags)]

    def rank(bag: Mapping[str, Any]) -> float:
        value = bag["measures"].get(columns[0]) if columns else None
        return float("inf") if value is None else -value if columns[0] in _LOWER else value

    rows = [_row(bag, columns) for bag in sorted(bags, key=rank)]
    headings = ["recording", "frames", "lost", *columns, "p95, ms", "conditions", "warnings"]
    sheets = [Sheet("Recordings", "Worst first. A heading sorts, and sorts the other way round.", headings, rows)]
    if summary["failed_bags"]:
        failed = [[Cell(plain(bag["name"])), text_cell(plain(bag["error"], 500))] for bag in summary["failed_bags"]]
        sheets.append(Sheet("Recordings that could not be evaluated", "", ["recording", "why"], failed))
    sheets.append(_together(summary))
    conditions = figures.conditions_table(summary)
    if conditions.rows:
        of = [[Cell(plain(name).replace("_", " ")), *map(_shown, cells)] for name, cells in conditions.rows]
        sheets.append(Sheet("Conditions, as the networks estimate them", "", ["condition", *conditions.headings], of))
    warnings = figures.warnings(summary)
    write_tables(
        path,
        "evaluation of many recordings",
        figures.recording_name(summary),
        figures.statement(summary),
        warnings,
        sheets,
        list(facts_of(summary)),
    )


def _row(bag: Mapping[str, Any], columns: list[str]) -> list[Cell]:
    frames = bag["frames"]
    lost = frames["read"] - frames["processed"]
    conditions = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in bag["conditions"].items())
    return [
        Cell(plain(bag["name"]), link=f"bags/{quote(bag['name'])}/report.html"),
        Cell(str(frames["read"]), str(frames["read"])),
        Cell(str(lost), str(lost), "worse" if lost else ""),
        *(number_cell(bag["measures"].get(name)) for name in columns),
        number_cell(bag["latency_p95_ms"], 1),
        text_cell(conditions),
        Cell(str(bag["warnings"]), str(bag["warnings"]), "worse" if bag["warnings"] else ""),
    ]


def _together(summary: Mapping[str, Any]) -> Sheet:
    table = figures.measures_table(summary)
    headings = ["score", *table.columns]
    rows = [
        [Cell(row.name), *(_shown(f"{value} ({interval})" if interval else value) for value, interval in row.cells)]
        for row in table.rows
    ]
    hint = "In brackets 95 % intervals: from blocks of consecutive frames, of 12 recordings or more from these."
    return Sheet("All together", hint, headings, rows)


def _shown(words: str) -> Cell:
    """A number as it is shown, with what stands behind it."""
    return Cell(words, "" if words == figures.DASH else words.partition(" ")[0].replace("−", "-"))
