"""coop-evaluate: a bundle's scores on labelled images, clear and under every condition and level.

Writes results.json, results.md (tables) and panels/<condition>.png into the folder of results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from coop_perception.bundle import BundleError, load_bundle
from coop_perception.classes import CAMVID_CLASSES
from coop_perception.degradations import CONDITIONS
from coop_perception.engines import EngineError
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.labelled_images import DatasetError, find_pairs
from coop_perception.pipeline import Pipeline
from coop_training.evaluation import Method, cooperative, evaluate, restore_then_segment, select
from coop_training.panels import write_panels
from coop_training.results import write_results
from coop_training.tables import report, summary


def main() -> int:
    parser = argument_parser("coop-evaluate", __doc__)
    parser.add_argument(
        "--restore-then-segment",
        action="store_true",
        help="score as refined the segmenter's mask of the restored image, for bundles that only restore",
    )
    arguments = parser.parse_args()
    try:
        if arguments.restore_then_segment:
            run(arguments, restore_then_segment, "restore-then-segment")
        else:
            run(arguments, cooperative, "cooperative")
    except (BundleError, EngineError, DatasetError, OSError) as error:
        print(f"coop-evaluate: {error}", file=sys.stderr)
        return 1
    return 0


def argument_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """What every evaluation is told."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--bundle", type=Path, required=True, help="model bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder of clear images")
    parser.add_argument("--labels", type=Path, required=True, help="folder of their labels, paired by file stem")
    parser.add_argument(
        "--conditions", type=_conditions, default=list(CONDITIONS), help="comma-separated names, or all (default)"
    )
    parser.add_argument("--limit", type=positive, help="so many of the images, evenly spread, for a quick look")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    return parser


def run(arguments: argparse.Namespace, method: Callable[[Pipeline], Method], name: str) -> None:
    """Score a method of using a bundle; write and show what came out.

    Raises:
        BundleError, EngineError, DatasetError, OSError: as their modules say.
    """
    # Images are scored side by side: one thread for each network's run costs less than sharing every run out.
    pipeline = Pipeline(load_bundle(arguments.bundle), lambda path: OnnxRuntimeEngine(path, threads=1))
    bundle = pipeline.bundle
    if bundle.classes != CAMVID_CLASSES:
        raise BundleError(
            f"{bundle.directory}: its classes are {', '.join(c.name for c in bundle.classes)}; labels are read as "
            f"CamVid's {len(CAMVID_CLASSES)} ({', '.join(c.name for c in CAMVID_CLASSES)})"
        )
    entries = select(find_pairs(arguments.images, arguments.labels), arguments.limit)
    arguments.out.mkdir(parents=True, exist_ok=True)
    evaluation = evaluate(
        entries,
        arguments.conditions,
        method(pipeline),
        bundle.classes,
        bundle=bundle.name,
        method_name=name,
        known=bundle.conditions,
    )
    write_results(arguments.out / "results.json", evaluation.results)
    (arguments.out / "results.md").write_text(report(evaluation.results))
    write_panels(arguments.out / "panels", evaluation.samples, bundle.classes)
    print(summary(evaluation.results))
    print(arguments.out / "results.md")


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)


def _conditions(text: str) -> list[str]:
    names = list(CONDITIONS) if text == "all" else list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown condition {unknown[0]!r}; known: {', '.join(CONDITIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
