"""The files that an evaluation leaves, and what it says on the terminal."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import Evaluation, EvaluationError
from coop_perception.evaluation.report.overview import write_overview
from coop_perception.evaluation.report.page import write_report
from coop_perception.evaluation.report.terminal import summary_table
from coop_perception.shown import plain


def finish(evaluation: Evaluation, bundle: Bundle, out: Path) -> None:
    """Write summary.json, overview.png and report.html; print the table and the problems.

    Raises:
        EvaluationError: a frame is unaccounted for.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = evaluation.summary
    (out / "summary.json").write_text(json.dumps(_finite(summary), indent=2) + "\n")
    written = ["summary.json", "report.html"]
    (out / "overview.png").unlink(missing_ok=True)
    if evaluation.samples:
        write_overview(out / "overview.png", evaluation.samples, bundle.classes)
        written.append("overview.png")
    write_report(out / "report.html", summary, evaluation.samples, bundle.classes, evaluation.scores.series)
    Console(markup=False).print(summary_table(summary))
    for problem in evaluation.problems[:5]:
        print(f"warning: {plain(problem)}", file=sys.stderr)
    if len(evaluation.problems) > 5:
        print(f"warning: and {len(evaluation.problems) - 5} more", file=sys.stderr)
    print(f"results in {plain(out)}: {', '.join(written)}")
    counts = summary["frames"]
    lost = counts["read"] - counts["processed"] - counts["dropped"]
    if lost:
        raise EvaluationError(f"{lost} of {counts['read']} frames are unaccounted for: neither processed nor dropped")


def _finite(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
