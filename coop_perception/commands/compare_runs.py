"""`evaluate_bag compare`: two runs over the same frames, and whether the second may be released."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from coop_perception.commands.gate_options import add_gate_options
from coop_perception.evaluation.compare import compare, read_run
from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.judged import difference_rows, hold
from coop_perception.evaluation.report.compared import comparison_table, write_comparison
from coop_perception.evaluation.results import finite
from coop_perception.exit_codes import one_line
from coop_perception.replacing import open_results, write_whole
from coop_perception.shown import plain

FILES = ("compare.json", "compare.html")


def main(arguments: Sequence[str]) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work or a gate fails.
    """
    options = _parser().parse_args(arguments)
    with one_line("evaluate_bag compare", (EvaluationError, OSError), "no results were written"):
        open_results(options.out, FILES, options.force)
        compared = finite(compare(read_run(options.first), read_run(options.second)))
        write_whole(options.out / FILES[0], (json.dumps(compared, indent=2) + "\n").encode())
        write_comparison(options.out / FILES[1], compared)
        Console(markup=False).print(comparison_table(compared))
        print(f"results in {plain(options.out)}: {', '.join(FILES)}")
        name = f"{options.first} and {options.second}"
        rows = difference_rows(compared)
        hold(options.fail_if, compared["measures"], name, options.junit, options.markdown, rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evaluate_bag compare", description=__doc__)
    parser.add_argument("first", type=Path, metavar="RUN_A", help="an evaluation's folder of results")
    parser.add_argument("second", type=Path, metavar="RUN_B", help="another's, over the same recordings")
    parser.add_argument(
        "--out", type=Path, default=Path("out/comparison"), help="folder of results (default: %(default)s)"
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier comparison in --out")
    add_gate_options(parser, comparing=True)
    return parser
