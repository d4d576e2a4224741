"""A comparison of two runs, for the terminal and as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from coop_perception.evaluation.measures import BETTER
from coop_perception.evaluation.report import figures
from coop_perception.evaluation.report.page import flat
from coop_perception.evaluation.report.tables import Cell, Sheet, number_cell, text_cell, write_tables
from coop_perception.shown import plain

_STYLES = {"better": "green", "worse": "red", "": ""}
SHOWN = 5
"""Frames on the terminal; the page and compare.json have more."""


def verdict(name: str, difference: Mapping[str, Any]) -> str:
    """better or worse where the whole interval says so, else nothing."""
    low, high = difference["low"], difference["high"]
    if low is None or high is None or BETTER[name] == "neither" or low <= 0 <= high:
        return ""
    return "better" if (low > 0) == (BETTER[name] == "higher") else "worse"


def comparison_table(compared: Mapping[str, Any]) -> Table:
    """Scores of both runs over all frames that they have in common."""
    frames = compared["frames"]
    table = Table(title=Text(f"{frames['both']} frames in both"), show_edge=False)
    table.add_column("")
    for heading in ("first", "second", "difference", "95 % interval"):
        table.add_column(heading, justify="right")
    for name, one in compared["measures"]["all"].items():
        if isinstance(one, Mapping):
            style = _STYLES[verdict(name, one)]
            cells = (f"{one['first']:.4g}", f"{one['second']:.4g}", f"{one['value']:+.4g}", _interval(one))
            table.add_row(name, *cells[:2], *(Text(cell, style) for cell in cells[2:]))
    return table


def changed_table(compared: Mapping[str, Any]) -> Table:
    """The first of the frames that changed most."""
    changed = compared["changed"]
    title = f"frames that changed most: {min(SHOWN, len(changed))} of {len(changed)}"
    table = Table(title=Text(title), show_edge=False)
    for heading in ("recording", "camera"):
        table.add_column(heading, overflow="fold")
    for heading in ("frame", "score", "first", "second", "difference"):
        table.add_column(heading, justify="right")
    for frame in changed[:SHOWN]:
        table.add_row(
            Text(plain(frame["recording"] or "the recording")),
            Text(plain(frame["camera"])),
            str(frame["frame"]),
            frame["by"],
            f"{frame['first']:.4g}",
            f"{frame['second']:.4g}",
            Text(f"{frame['change']:+.4g}", "green" if frame["change"] > 0 else "red"),
        )
    return table


def write_comparison(path: Path, compared: Mapping[str, Any]) -> None:
    """Write the page.

    Raises:
        OSError: it cannot be written.
    """
    sheets = [
        Sheet(
            "Frames that changed most",
            "By the score that frames are ranked by.",
            ["recording", "camera", "frame", "time, s", "score", "first", "second", "difference"],
            [
                [
                    Cell(plain(frame["recording"] or "the recording")),
                    text_cell(plain(frame["camera"])),
                    Cell(str(frame["frame"]), str(frame["frame"])),
                    number_cell(frame["time_s"], 2),
                    text_cell(frame["by"]),
                    number_cell(frame["first"]),
                    number_cell(frame["second"]),
                    Cell(
                        figures.signed(frame["change"], 3),
                        repr(float(frame["change"])),
                        "better" if frame["change"] > 0 else "worse",
                    ),
                ]
                for frame in compared["changed"]
            ],
        )
    ]
    for kind, parts in compared["measures"].items():
        if kind == "camera" and len(parts) == 1:
            continue  # all frames are its
        for title, scores in ({"all frames": parts} if kind == "all" else parts).items():
            rows = [_row(name, one) for name, one in scores.items() if isinstance(one, Mapping)]
            headings = ["score", "first", "second", "difference", "95 % interval"]
            sheets.append(Sheet(title if kind == "all" else f"{kind} {plain(title)}", "", headings, rows))
    sheets = [sheets[1], sheets[0], *sheets[2:]]
    frames = compared["frames"]
    first, second = (plain(run["path"]) for run in compared["runs"])
    statement = (
        f"The first run is {first}, the second {second}. {frames['both']} frames are in both, "
        f"{frames['only_first']} in the first alone and {frames['only_second']} in the second alone. Differences are "
        "the second's less the first's, of the same frames; coloured where their whole 95 % interval says so."
    )
    facts = [
        fact
        for which, run in zip(("first", "second"), compared["runs"], strict=True)
        for key, value in run.items()
        for fact in flat(f"{which} run: {key.replace('_', ' ')}", value)
    ]
    write_tables(path, "two runs compared", "Comparison", statement, compared["incomplete"], sheets, facts)


def _row(name: str, one: Mapping[str, Any]) -> list[Cell]:
    digits = 4 if max(abs(one["first"]), abs(one["second"])) < 100 else 1
    return [
        Cell(name),
        number_cell(one["first"], digits),
        number_cell(one["second"], digits),
        Cell(figures.signed(one["value"], digits), repr(float(one["value"])), verdict(name, one)),
        Cell(_interval(one), "" if one["low"] is None else repr(float(one["low"]))),
    ]


def _interval(one: Mapping[str, Any]) -> str:
    return "" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}".replace("-", "−")
