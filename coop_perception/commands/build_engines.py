"""Command `build_engines`: a bundle's networks as engine files, for this machine or a named GPU, ahead of time."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from coop_perception.engines import EngineError
from coop_perception.engines.ahead import build_engines
from coop_perception.engines.backends import MAX_BATCH, ON_CPU, TENSORRT
from coop_perception.engines.precisions import PRECISIONS
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.resources import default_bundle
from coop_perception.shown import LONGEST_MESSAGE, plain


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work.
    """
    options = _parser().parse_args(arguments)
    try:
        build_engines(
            load_bundle(options.bundle),
            options.backend,
            options.compute_capability,
            options.precision,
            options.out,
            max_batch=options.max_batch,
            calibration=options.calibration,
        )
    except (BundleError, EngineError, DatasetError, OSError) as error:
        raise SystemExit(f"build_engines: {plain(error, LONGEST_MESSAGE)}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_engines", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="default: %(default)s")
    parser.add_argument("--backend", required=True, choices=(*TENSORRT, *ON_CPU))
    parser.add_argument(
        "--compute-capability",
        type=compute_capabilities,
        default=(),
        help="GPUs to build for, as 8.9 or 8.6,8.9,12.0 (default: the one of this machine)",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="default: %(default)s")
    parser.add_argument("--max-batch", type=_positive, default=MAX_BATCH, help="most cameras (default: %(default)s)")
    parser.add_argument(
        "--calibration", type=Path, help="folder of images that the precision is calibrated on (default: sample drives)"
    )
    parser.add_argument("--out", type=Path, help="directory of the engines (default: the cache)")
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


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a number from 1")
    return int(text)


if __name__ == "__main__":
    main()
