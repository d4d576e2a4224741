"""coop-evaluate: a bundle's scores on images, clear and under every condition and level of a suite, or on ready-made
pairs of degraded and clean images.

Writes results.json, results.md (tables) and panels/<condition>.png into the folder of results.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from coop_perception.arguments import command_parser, positive
from coop_perception.contracts import STAGES, Bundle
from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.street import NO_STREET, is_street
from coop_perception.engines import EngineError
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.exit_codes import CANNOT, DONE, interrupted
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.model.pipeline import Pipeline
from coop_perception.recordings.labelled_folders import find_references, label_ids, odd_pairs
from coop_perception.replacing import open_results, refuse_others, replacement, write_whole
from coop_perception.shown import LONGEST_MESSAGE, plain
from coop_training.cases import PUBLISHED, READY_MADE, SUITE_NAMES, Case, published_cases, ready_made_case, suite_cases
from coop_training.evaluation import Method, cooperative, evaluate, restore_then_segment, select
from coop_training.label_sets import LabelSets, read_label_sets
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.folders import paired_items
from coop_training.layouts.frame import Item, LabelledFrame, ReadyMade
from coop_training.panels import write_panels
from coop_training.results import write_results
from coop_training.tables import harm, report, summary, warnings

FILES = ("results.json", "results.md", "panels")


def main() -> int:
    parser = argument_parser("coop-evaluate", __doc__, "")
    what = parser.add_argument_group("what is done to the images").add_mutually_exclusive_group()
    what.add_argument(
        "--suite",
        choices=SUITE_NAMES,
        default=PUBLISHED,
        help="published: the conditions and levels of literature (default); realistic: what real optics, sensors, "
        "codecs and weather do; mixed: two to four of these at once",
    )
    what.add_argument(
        "--references",
        metavar="DIR",
        type=Path,
        help="folder of clean images, or of folders of them: --images are then degraded already, each named as its "
        "clean image, or one of the two with more words before or behind; --labels are named as the clean images",
    )
    parser.add_argument_group("what is scored as refined").add_argument(
        "--restore-then-segment",
        action="store_true",
        help="the segmenter's mask of the restored image, for bundles that only restore",
    )
    arguments = parser.parse_args()
    try:
        if arguments.restore_then_segment:
            run(arguments, restore_then_segment, "restore-then-segment")
        else:
            run(arguments, cooperative, "cooperative")
    except (BundleError, EngineError, DatasetError, OSError) as error:
        print(f"coop-evaluate: {plain(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return interrupted("coop-evaluate", "no results were written")
    return DONE


def argument_parser(prog: str, description: str | None, more: str) -> argparse.ArgumentParser:
    """What every evaluation needs to know. more: arguments of the example that are the command's own."""
    parser = command_parser(
        prog,
        description,
        f"{prog} {more}--bundle models/street --images out/data/camvid/images/val --labels out/data/camvid/labels/val "
        f"--out out/eval",
    )
    data = parser.add_argument_group("what is scored, and on what")
    data.add_argument("--bundle", metavar="DIR", type=Path, required=True, help="model bundle")
    data.add_argument(
        "--images", metavar="DIR", type=Path, required=True, help="folder of images, clear ones without --references"
    )
    data.add_argument(
        "--labels",
        metavar="DIR",
        type=Path,
        help="folder of their labels: the bundle's class ids, 255 = not scored; paired by file stem (default: none; "
        "masks are not scored)",
    )
    data.add_argument(
        "--depths",
        metavar="DIR",
        type=Path,
        help="folder of the images' depth, for fog and rain: 16-bit PNG in millimetres or .npy in metres, paired by "
        "file stem (default: estimated from labels of streets)",
    )
    data.add_argument(
        "--label-sets",
        metavar="FILE",
        type=Path,
        help="YAML file for labels that are coarser than the bundle's classes: the classes that each label stands for",
    )
    data.add_argument(
        "--conditions",
        metavar="NAMES",
        type=_conditions,
        help="of the suite published: comma-separated names, or all (default)",
    )
    data.add_argument(
        "--limit", metavar="N", type=positive, help="so many of the images, evenly spread, for a quick look"
    )
    written = parser.add_argument_group("what is written")
    written.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of results")
    written.add_argument("--force", action="store_true", help="replace an earlier evaluation's results in --out")
    parser.set_defaults(suite=PUBLISHED, references=None)
    return parser


def run(arguments: argparse.Namespace, method: Callable[[Pipeline], Method], name: str) -> None:
    """Score a method of using a bundle; write and show what came out.

    Raises:
        BundleError, EngineError, DatasetError, OSError: as their modules say.
    """
    # Images are scored side by side: one thread for each network's run costs less than sharing every run out.
    bundle = load_bundle(arguments.bundle)
    sets = read_label_sets(arguments.label_sets, bundle.classes) if arguments.label_sets else None
    cases = _cases(arguments, bundle, sets)
    items = _items(arguments, bundle, sets)
    open_results(arguments.out, FILES, arguments.force)
    panels = arguments.out.resolve() / FILES[-1]
    refuse_others(panels, (file for file in panels.glob("*") if file.suffix != ".png"), "an evaluation's panels")
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings("onnxruntime", threads=1)))
    evaluation = evaluate(
        select(items, arguments.limit),
        cases,
        method(pipeline),
        bundle.classes,
        bundle=bundle.name,
        method_name=name,
        suite=READY_MADE if arguments.references else arguments.suite,
        known=bundle.conditions,
        merge=sets.merge if sets else None,
    )
    if arguments.labels and evaluation.results.clean.raw is None:
        raise DatasetError(
            f"{arguments.labels}: no pixel of {evaluation.results.images} labels is of a class: there is nothing to "
            "score; leave --labels out to score images alone"
        )
    odd = odd_pairs(arguments.images, arguments.labels) if arguments.labels and not arguments.references else []
    evaluation = replace(evaluation, results=evaluation.results.model_copy(update={"odd": odd}))
    for line in warnings(evaluation.results):
        print(f"coop-evaluate: warning: {line}", file=sys.stderr)
    results, tables, _ = (arguments.out.resolve() / name for name in FILES)
    write_results(results, evaluation.results)
    write_whole(tables, report(evaluation.results).encode())
    with replacement(panels) as made:  # of this evaluation's conditions only
        write_panels(made, evaluation.samples, bundle.classes)
    print(summary(evaluation.results))
    if evaluation.results.harm is not None:
        print(f"\n{harm(evaluation.results.harm)}\n")
    print(arguments.out / tables.name)


def _cases(arguments: argparse.Namespace, bundle: Bundle, sets: LabelSets | None) -> list[Case]:
    if arguments.references:
        if arguments.depths:
            raise DatasetError("--depths does not go with --references: nothing is made foggy or rainy then")
        if arguments.conditions:
            raise DatasetError("--conditions does not go with --references: images are degraded already")
        return [ready_made_case()]
    if arguments.suite != PUBLISHED:
        if arguments.conditions:
            raise DatasetError(f"--conditions names published ones; of --suite {arguments.suite} all are scored")
        return suite_cases(arguments.suite)
    conditions = list(CONDITIONS) if arguments.conditions is None else arguments.conditions
    needs_depth = [name for name in conditions if CONDITIONS[name].needs_depth]
    if needs_depth and arguments.labels and sets is None and not arguments.depths and not is_street(bundle.classes):
        raise DatasetError(
            f"{arguments.bundle}: {', '.join(needs_depth)} need depth, which is estimated from labels of streets, and "
            f"{NO_STREET}, give --depths, or name the other --conditions"
        )
    return published_cases(conditions)


def _items(arguments: argparse.Namespace, bundle: Bundle, sets: LabelSets | None) -> list[Item]:
    """Clear frames with their labels, if any, and with the degraded images that come ready-made."""
    # Of labels that stand for several classes none is known to be ground or sky.
    classes = ClassList((), sets.label_ids) if sets else ClassList(bundle.classes, label_ids(bundle.classes))
    # Depth is estimated from labels of the bundle's own classes; otherwise it is that of an empty street.
    depth = arguments.depths is not None or (arguments.labels is not None and sets is None)
    if arguments.references is None:
        return paired_items(arguments.images, arguments.labels, classes, depth, arguments.depths)
    pairs = find_references(arguments.images, arguments.references)
    clean = {path.stem: path for path in pairs.values()}
    frames = {item.name: item for item in paired_items(sorted(clean.values()), arguments.labels, classes, depth=False)}
    return [
        Item(image.stem, partial(_with_ready_made, frames[reference.stem], image)) for image, reference in pairs.items()
    ]


def _with_ready_made(clean: Item, degraded: Path) -> LabelledFrame:
    return replace(clean.read(), ready_made=(ReadyMade(READY_MADE, 1.0, degraded),))


def _conditions(text: str) -> list[str]:
    names = list(CONDITIONS) if text == "all" else list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown condition {unknown[0]!r}; known: {', '.join(CONDITIONS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
