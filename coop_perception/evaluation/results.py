"""The files that an evaluation leaves, and what it says on the terminal."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from coop_perception.contracts import Bundle
from coop_perception.documents import read_json
from coop_perception.engines.backends import AUTO
from coop_perception.evaluation.evaluated import Evaluation, frame_scores
from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.journal import NAME as JOURNAL
from coop_perception.evaluation.journal import refuse_another
from coop_perception.evaluation.kept import remove_spool
from coop_perception.evaluation.report.figures import unaccounted, warnings
from coop_perception.evaluation.report.fleet import write_fleet
from coop_perception.evaluation.report.overview import write_overview
from coop_perception.evaluation.report.page import write_report
from coop_perception.evaluation.report.terminal import summary_table
from coop_perception.evaluation.table import NAME as FRAMES
from coop_perception.evaluation.task import Task
from coop_perception.exit_codes import IncompleteError
from coop_perception.replacing import open_results, write_whole
from coop_perception.shown import plain, written

SUMMARY, REPORT, OVERVIEW = "summary.json", "report.html", "overview.png"
FILES = (SUMMARY, REPORT, OVERVIEW, FRAMES, JOURNAL)
RESUME = "; --resume goes on"
SUMMARY_LIMIT = 64 << 20
"""Bytes: that of a thousand recordings has some kilobytes of each."""
MALFORMED = "malformed"
OUTPUTS = "outputs"
"""Recording of what the node published, in the folder of results."""


def add_result_options(parser: argparse.ArgumentParser, out: str) -> None:
    """What every command that evaluates a recording lets decide about its results. `out`: where they go by default."""
    add = parser.add_argument_group("what is written").add_argument
    add("--out", type=Path, default=Path(out), metavar="DIR", help="folder of results (default: %(default)s)")
    add("--force", action="store_true", help="replace an earlier evaluation's results in --out")
    add(
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


def open_folder(out: Path, bags: Iterable[Path], made: tuple[str, ...], force: bool, resume: bool = False) -> None:
    """Make the folder of results, before the work.

    Args:
        out: the folder.
        bags: the recordings that are read.
        made: names of the recordings that will be written into it.
        force: whether an earlier evaluation's results there may be replaced.
        resume: whether an earlier evaluation there is gone on with.

    Raises:
        EvaluationError: the recording that is read lies where one is written.
        OSError: another run's results are there, or nothing can be written.
    """
    for bag in bags:
        for name in made:
            if bag.exists() and bag.resolve().is_relative_to((out / name).resolve()):
                raise EvaluationError(f"{bag} is read, and {out / name} written; choose another --out")
    open_results(out, (*FILES, *made), force or resume)
    if force and not resume:
        (out / JOURNAL).unlink(missing_ok=True)


def is_complete(task: Task, bundle: Bundle) -> bool:
    """Whether a task's folder holds its results already.

    Raises:
        EvaluationError: the results are those of another run.
    """
    out, asked = task.out, task.settings
    if not (out / SUMMARY).exists() or not (out / FRAMES).exists() or (out / JOURNAL).exists():
        return False
    run = read_json(out / SUMMARY, SUMMARY_LIMIT).get("run", {})
    backend, precision = (
        str(run.get(name)) if wanted == AUTO else wanted
        for name, wanted in (("backend", asked.backend), ("precision", asked.precision))
    )
    refuse_another(out / SUMMARY, run, task.identity(bundle, backend, precision))
    return True


def write_results(evaluation: Evaluation, bundle: Bundle, out: Path) -> dict[str, Any]:
    """Write frames.parquet's companions summary.json, overview.png and report.html; the summary.

    The journal goes last: what is killed before is gone on with.
    """
    _note_unusable(evaluation)
    summary: dict[str, Any] = json_value({**evaluation.summary, "warnings": evaluation.findings.warnings})
    summary["incomplete"] = evaluation.findings.incomplete
    write_whole(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    series = frame_scores(evaluation.table)
    write_report(out / REPORT, summary, evaluation.overview, bundle.classes, series, evaluation.gallery)
    if evaluation.overview:
        write_overview(out / OVERVIEW, evaluation.overview, bundle.classes)
    else:
        (out / OVERVIEW).unlink(missing_ok=True)
    if not evaluation.findings.interrupted:
        (out / JOURNAL).unlink(missing_ok=True)
        remove_spool(out)
    return summary


def _note_unusable(evaluation: Evaluation) -> None:
    """Images that could not be used by their own fault or the networks'."""
    summary = evaluation.summary
    malformed = summary.get("dropped_by_reason", {}).get(MALFORMED, 0)
    unusable = {MALFORMED: malformed, "failed": summary["frames"]["failed"]}
    count, read = sum(unusable.values()), summary["frames"]["read"]
    if count:
        why = ", ".join(f"{reason} {number}" for reason, number in unusable.items() if number)
        evaluation.findings.note(f"{count} of {read} images could not be used ({why})", 1 - count / read)


def finish_fleet(summary: Mapping[str, Any], out: Path) -> None:
    """Write the summary of many recordings and the page that lists them."""
    write_whole(out / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())
    write_fleet(out / REPORT, summary)


def finish(evaluation: Evaluation, bundle: Bundle, out: Path, allow_incomplete: bool) -> dict[str, Any]:
    """Write the results, print the table and the warnings; the summary.

    Raises:
        EvaluationError: a frame is unaccounted for.
        IncompleteError: the results rest on less than was there, and that is not allowed.
        KeyboardInterrupt: the evaluation was interrupted; what there was then has been written.
    """
    summary = write_results(evaluation, bundle, out)
    tell(summary, out)
    if evaluation.findings.interrupted:
        raise KeyboardInterrupt(f"the results in {out} are of what was done before" + RESUME * (out / JOURNAL).exists())
    check(summary, allow_incomplete)
    return summary


def tell(summary: Mapping[str, Any], out: Path) -> None:
    """The table and the warnings."""
    Console(markup=False).print(summary_table(summary))
    for warning in warnings(summary):
        print(f"warning: {plain(warning)}", file=sys.stderr)
    names = [name for name in FILES if name != JOURNAL and (out / name).exists()]
    print(f"results in {plain(out)}: {', '.join(names)}")


def check(summary: Mapping[str, Any], allow_incomplete: bool) -> None:
    """Whether the results are of all that was there.

    Raises:
        EvaluationError: a frame is unaccounted for.
        IncompleteError: the results rest on less than was there, and that is not allowed.
    """
    lost = unaccounted(summary["frames"])
    if lost:
        raise EvaluationError(
            f"{lost} of {summary['frames']['read']} frames are unaccounted for: neither processed, dropped nor failed"
        )
    if summary["incomplete"] and not allow_incomplete:
        raise IncompleteError(f"incomplete: {summary['incomplete'][0]}; --allow-incomplete takes that")


def json_value(value: Any) -> Any:
    """A value as JSON in UTF-8 has it: None in place of NaN, what is no character escaped."""
    if isinstance(value, dict):
        return {json_value(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    if isinstance(value, str):
        return written(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
