"""Builds a bundle's networks as engine files, for this machine or a named GPU, ahead of time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from coop_perception.arguments import command_parser, positive
from coop_perception.engines import EngineError
from coop_perception.engines.ahead import build_engines
from coop_perception.engines.backends import MAX_BATCH, ON_CPU, TENSORRT
from coop_perception.engines.precisions import PRECISIONS
from coop_perception.exit_codes import one_line
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.resources import default_bundle


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work.
    """
    options = _parser().parse_args(arguments)
    with one_line(
        "build_engines", (BundleError, EngineError, DatasetError, OSError), "engines that are whole are kept"
    ):
        build_engines(
            load_bundle(options.bundle),
            options.backend,
            options.compute_capability,
            options.precision,
            options.out,
            max_batch=options.max_batch,
            calibration=options.calibration,
        )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "build_engines", __doc__, "build_engines --bundle models/street --backend tensorrt_rtx --compute-capability 8.9"
    )
    built = parser.add_argument_group("what is built").add_argument
    built("--bundle", type=Path, default=default_bundle(), metavar="DIR", help="model bundle (default: %(default)s)")
    built("--backend", required=True, choices=(*TENSORRT, *ON_CPU), help="what will run the networks")
    built("--precision", choices=PRECISIONS, default="fp16", help="of the networks' arithmetic (default: %(default)s)")
    built(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="folder of images that the precision is calibrated on (default: sample drives)",
    )
    machine = parser.add_argument_group("for which machine").add_argument
    machine(
        "--compute-capability",
        type=compute_capabilities,
        default=(),
        metavar="X.Y,...",
        help="GPUs to build for, as 8.9 or 8.6,8.9,12.0 (default: the one of this machine)",
    )
    machine("--max-batch", type=positive, default=MAX_BATCH, metavar="N", help="most cameras (default: %(default)s)")
    written = parser.add_argument_group("what is written").add_argument
    written("--out", type=Path, metavar="DIR", help="directory of the engines (default: the cache)")
    return parser


def compute_capabilities(text: str) -> tuple[str, ...]:
    """Comma-separated compute capabilities, as on command lines.

    Raises:
        argparse.ArgumentTypeError: one is not of the form 8.9.
    """
    found = tuple(text.split(","))
    for one in found:
        major, _, minor = one.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            raise argparse.ArgumentTypeError(f"compute capability is {one!r}, expected one as 8.9")
    return found


if __name__ == "__main__":
    main()
