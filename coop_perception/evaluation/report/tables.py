"""Pages of sortable tables: many recordings, and two runs compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coop_perception.evaluation.report import figures
from coop_perception.evaluation.report.templates import render
from coop_perception.replacing import write_whole


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, what the column is sorted by (empty: last), how it is coloured (better, worse or nothing), and
    where a row's first one leads."""

    text: str
    value: str = ""
    verdict: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table; each row has as many cells as there are headings."""

    title: str
    hint: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def number_cell(value: float | None, digits: int = 3, verdict: str = "") -> Cell:
    """A number, or a dash that is sorted last."""
    if value is None:
        return Cell(figures.DASH)
    return Cell(figures.text(value, digits), repr(float(value)), verdict)


def text_cell(words: str) -> Cell:
    """Words, by which the column is sorted."""
    return Cell(words, words)


def write_tables(
    path: Path,
    kind: str,
    title: str,
    statement: str,
    warnings: Sequence[str],
    sheets: Sequence[Sheet],
    facts: Sequence[tuple[str, str]],
) -> None:
    """Write the page.

    Raises:
        OSError: it cannot be written.
    """
    page = render(
        "tables.html.j2",
        "sorting.js.j2",
        kind=kind,
        title=title,
        statement=statement,
        warnings=warnings,
        tables=sheets,
        facts=facts,
    )
    write_whole(path, page)
