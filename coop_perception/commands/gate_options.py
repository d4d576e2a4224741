"""What continuous integration asks of a run, or of a comparison: the same options for both."""

from __future__ import annotations

import argparse
from pathlib import Path

from coop_perception.evaluation.gate import Gate, GateSyntaxError, parse


def add_gate_options(parser: argparse.ArgumentParser, comparing: bool = False) -> None:
    """Add --fail-if, --junit and --markdown. `comparing`: gates are of what changed."""

    def gate(text: str) -> Gate:
        try:
            return parse(text, comparing)
        except GateSyntaxError as error:
            raise argparse.ArgumentTypeError(str(error).replace("%", "%%")) from error

    example = "'miou.drop > 0.01 significant'" if comparing else "'psnr_gain.fog < 5'"
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        type=gate,
        metavar="EXPR",
        help=f"end with status 3 if this holds, such as {example}; may be given several times",
    )
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the gates as JUnit XML")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="add a summary to this file ($GITHUB_STEP_SUMMARY, say)"
    )
