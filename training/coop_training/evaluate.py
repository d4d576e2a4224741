"""coop-evaluate: a bundle's scores on labelled images, clear and under every condition and level.

Writes results.json, results.md (tables) and panels/<condition>.png into the folder of results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from coop_perception.contracts import STAGES
from coop_perception.degradations import CONDITIONS
from coop_perception.engines import EngineError
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.model.pipeline import Pipeline
from coop_training.evaluation import Method, cooperative, evaluate, restore_then_segment, select
from coop_training.layouts.class_lists import class_list
from coop_training.layouts.depth import street_ids
from coop_training.layouts.folders import paired_items
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
    """What every evaluation needs to know."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--bundle", type=Path, required=True, help="model bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder of clear images")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="folder of their labels: the bundle's class ids, 255 = not scored; paired by file stem",
    )
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
    bundle = load_bundle(arguments.bundle)
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings("onnxruntime", threads=1)))
    needs_depth = [name for name in arguments.conditions if CONDITIONS[name].needs_depth]
    if needs_depth and street_ids(bundle.classes) is None:
        raise DatasetError(
            f"{arguments.bundle}: {', '.join(needs_depth)} need depth, which is estimated from labels of streets, and "
            "these classes are of something else; name the other --conditions"
        )
    items = paired_items(arguments.images, arguments.labels, class_list(bundle.classes), bool(needs_depth))
    arguments.out.mkdir(parents=True, exist_ok=True)
    evaluation = evaluate(
        select(items, arguments.limit),
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
