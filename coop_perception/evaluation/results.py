"""The files that an evaluation leaves, and what it says on the terminal."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import Evaluation, EvaluationError
from coop_perception.evaluation.report.figures import warnings
from coop_perception.evaluation.report.overview import write_overview
from coop_perception.evaluation.report.page import write_report
from coop_perception.evaluation.report.terminal import summary_table
from coop_perception.exit_codes import IncompleteError
from coop_perception.replacing import open_results, write_whole
from coop_perception.shown import plain

FILES = ("summary.json", "report.html", "overview.png")
UNUSABLE = ("malformed", "failed")
"""Reasons for which an image was dropped that are its own fault or the networks', and not that the node was busy."""
OUTPUTS = "outputs"
"""Recording of what the node published, in the folder of results."""


def add_result_options(parser: argparse.ArgumentParser) -> None:
    """What every command that evaluates a recording lets decide about its results."""
    parser.add_argument("--force", action="store_true", help="replace an earlier evaluation's results in --out")
    parser.add_argument(
        "--allow-incomplete",
        action="store_true",
        help="exit status 0 also where less than 90 %% of the frames or references there were is scored",
    )


def rate(text: str) -> float:
    """An argument that says how fast a recording is played."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0.01 to 100 times the recording's own pace")
    return value


def open_folder(out: Path, bag: Path | None, made: tuple[str, ...], force: bool) -> None:
    """Make the folder of results, before the work.

    Args:
        out: the folder.
        bag: the recording that is read.
        made: names of the recordings that will be written into it.
        force: whether an earlier evaluation's results there may be replaced.

    Raises:
        EvaluationError: the recording that is read lies where one is written.
        OSError: another run's results are there, or nothing can be written.
    """
    for name in made:
        if bag is not None and bag.exists() and bag.resolve().is_relative_to((out / name).resolve()):
            raise EvaluationError(f"{bag} is read, and {out / name} written; choose another --out")
    open_results(out, (*FILES, *made), force)


def finish(evaluation: Evaluation, bundle: Bundle, out: Path, allow_incomplete: bool) -> None:
    """Write summary.json, overview.png and report.html; print the table and the warnings.

    Raises:
        EvaluationError: a frame is unaccounted for.
        IncompleteError: the results rest on less than was there, and that is not allowed.
        KeyboardInterrupt: the evaluation was interrupted; what there was then has been written.
    """
    findings, counts = evaluation.findings, evaluation.summary["frames"]
    unusable = {why: n for why, n in evaluation.summary.get("dropped_by_reason", {}).items() if why in UNUSABLE}
    if unusable:
        why = ", ".join(f"{reason} {count}" for reason, count in unusable.items())
        count = sum(unusable.values())
        findings.note(f"{count} of {counts['read']} images could not be used ({why})", 1 - count / counts["read"])
    summary = {**evaluation.summary, "warnings": findings.warnings}
    report, overview = FILES[1:]
    write_whole(out / FILES[0], (json.dumps(_finite(summary), indent=2) + "\n").encode())
    write_report(out / report, summary, evaluation.samples, bundle.classes, evaluation.scores.series)
    if evaluation.samples:
        write_overview(out / overview, evaluation.samples, bundle.classes)
    else:
        (out / overview).unlink(missing_ok=True)
    Console(markup=False).print(summary_table(summary))
    for warning in warnings(summary):
        print(f"warning: {plain(warning)}", file=sys.stderr)
    print(f"results in {plain(out)}: {', '.join(FILES if evaluation.samples else FILES[:2])}")
    if findings.interrupted:
        raise KeyboardInterrupt(f"the results in {out} are of what was done before")
    lost = counts["read"] - counts["processed"] - counts["dropped"]
    if lost:
        raise EvaluationError(f"{lost} of {counts['read']} frames are unaccounted for: neither processed nor dropped")
    if findings.incomplete and not allow_incomplete:
        raise IncompleteError(f"incomplete: {findings.incomplete[0]}; --allow-incomplete takes that")


def _finite(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
