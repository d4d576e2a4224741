"""Command `evaluate_bag`: recordings are scored; `evaluate_bag compare`: two of its results are compared."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from coop_perception import topics
from coop_perception.arguments import command_parser, positive
from coop_perception.documents import read_json
from coop_perception.engines import EngineError
from coop_perception.engines.backends import AUTO, BACKENDS, PRECISIONS
from coop_perception.engines.loading import EngineSettings
from coop_perception.evaluation.compare import compare, read_run
from coop_perception.evaluation.evaluation import EvaluationError, Selection, choose_topics
from coop_perception.evaluation.fleet import BAGS, Outcome, evaluate_all, merged, threads_of
from coop_perception.evaluation.judged import add_gate_options, difference_rows, hold, score_rows
from coop_perception.evaluation.kept import MADE
from coop_perception.evaluation.offline import evaluate_offline
from coop_perception.evaluation.report.compared import changed_table, comparison_table, write_comparison
from coop_perception.evaluation.results import (
    OUTPUTS,
    SUMMARY,
    SUMMARY_LIMIT,
    add_result_options,
    check,
    finish,
    finish_fleet,
    is_complete,
    json_value,
    open_folder,
    rate,
    tell,
)
from coop_perception.evaluation.task import Task, find_bags
from coop_perception.exit_codes import IncompleteError, one_line
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.model.over_time import DEFAULT, OverTime
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.replacing import open_results, write_whole
from coop_perception.resources import default_bundle
from coop_perception.shown import plain

DESCRIPTION = """\
Scores recordings: in this process, through the running node, or as a node published it.

evaluate_bag compare RUN_A RUN_B compares two of its results; see evaluate_bag compare --help."""
COMPARISON = ("compare.json", "compare.html")
FAILURES = (RecordingError, BundleError, EngineError, EvaluationError, DatasetError, OSError)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work, a frame is unaccounted for, the results rest on less than
            was there, or a gate fails.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["compare"]:
        _compare(_comparing_parser().parse_args(given[1:]))
        return
    parser = _parser()
    options = parser.parse_args(given)
    options.bags += options.bag
    if not options.bags:
        parser.error("no recording is given: BAG, a rosbag2 directory or storage file, or a folder of some")
    _check_options(parser, options)
    with one_line("evaluate_bag", FAILURES, "no results were written"):
        bags = find_bags(options.bags)
        load_bundle(options.bundle)  # before anything is written
        incomplete = None
        try:
            _evaluate(parser, options, bags)
        except IncompleteError as error:
            incomplete = error  # gates are held all the same
        summary = read_json(options.out / SUMMARY, SUMMARY_LIMIT)
        name, rows = plain(summary["recording"]), score_rows(summary)
        hold(options.fail_if, summary["measures"], name, options.junit, options.markdown, rows)
        if incomplete is not None:
            raise incomplete


def _evaluate(parser: argparse.ArgumentParser, options: argparse.Namespace, bags: dict[str, Path]) -> None:
    if options.live or options.recorded:
        if len(bags) > 1:
            parser.error(f"--live and --recorded take one recording, not {len(bags)}")
        _through_a_node(options, next(iter(bags.values())))
    elif len(bags) == 1:
        _one(options, next(iter(bags.values())))
    else:
        open_folder(options.out, bags.values(), (BAGS,), options.force, options.resume)
        _many(options, bags)


def _check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    live_only = {"--rate": options.rate is not None, "--node": options.node is not None}
    for name, is_given in live_only.items():
        if is_given and not options.live:
            parser.error(f"{name} is for --live; the others take every frame, as fast as they can")
    through_a_node = options.live or options.recorded
    offline_only = {
        "--resume": options.resume,
        "--workers": options.workers != 1,
        "--ray": options.ray is not None,
        "--outputs": options.outputs != "none",
        "--start, --end and --every": _selection(options) != Selection(),
        "--network-height, --condition-time-constant and --no-skip-when-clear": (
            options.network_height != 0 or OverTime(options.condition_time_constant, options.skip_when_clear) != DEFAULT
        ),
        "--labels and --references": bool(options.labels or options.references),
        "--image-topic more than once": len(options.image_topic) > 1,
    }
    for name, is_given in offline_only.items():
        if is_given and through_a_node:
            parser.error(f"{name}: only offline, without --live or --recorded")
    if options.start > options.end:
        parser.error(f"--start {options.start:g} lies behind --end {options.end:g}")


def _selection(options: argparse.Namespace) -> Selection:
    return Selection(options.start, options.end, options.every)


def _task(options: argparse.Namespace, bag: Path, out: Path) -> Task:
    threads = threads_of(options.workers, options.threads, options.ray)
    return Task(
        bag=bag,
        out=out,
        bundle=options.bundle,
        image_topics=tuple(options.image_topic),
        reference_image_topic=options.reference_image_topic,
        reference_mask_topic=options.reference_mask_topic,
        labels=options.labels,
        images=options.references,
        selection=_selection(options),
        settings=EngineSettings(options.backend, options.precision, threads),
        network_height=options.network_height,
        over_time=OverTime(options.condition_time_constant, options.skip_when_clear),
        keep=options.outputs,
        workers=options.workers,
    )


def _progress() -> Progress:
    console = Console(stderr=True, markup=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # a log would get an empty line of it
    )


def _one(options: argparse.Namespace, bag: Path) -> None:
    open_folder(options.out, [bag], MADE[options.outputs], options.force, options.resume)
    task = _task(options, bag, options.out)
    if options.resume and is_complete(task, load_bundle(task.bundle)):
        print(f"{plain(options.out)} has its results already; nothing is left to do")
        check(read_json(options.out / SUMMARY, SUMMARY_LIMIT), options.allow_incomplete)
        return
    with _progress() as progress:
        shown = progress.add_task(escape(plain(bag.name, 60)), total=None)
        evaluation = evaluate_offline(
            task,
            lambda line: progress.console.print(line, markup=False),
            lambda done, count: progress.update(shown, completed=done, total=max(done, count)),
        )
    finish(evaluation, load_bundle(options.bundle), options.out, options.allow_incomplete)


def _many(options: argparse.Namespace, bags: dict[str, Path]) -> None:
    tasks = {name: _task(options, bag, options.out / BAGS / name) for name, bag in bags.items()}
    for task in tasks.values():
        open_folder(task.out, [task.bag], MADE[task.keep], options.force or options.resume, options.resume)
    with _progress() as progress:
        shown = progress.add_task("recordings", total=len(tasks))

        def report(outcome: Outcome) -> None:
            progress.advance(shown)
            if outcome.error:
                progress.console.print(f"{plain(outcome.name)}: {plain(outcome.error)}", markup=False)

        outcomes = evaluate_all(tasks, options.workers, options.ray, options.resume, report)
    bundle = load_bundle(options.bundle)
    summary = merged(options.out, outcomes, tasks, bundle.classes)
    finish_fleet(summary, options.out)
    tell(summary, options.out)
    check(summary, options.allow_incomplete)


def _through_a_node(options: argparse.Namespace, bag: Path) -> None:
    bundle = load_bundle(options.bundle)
    with Recording(bag) as recording:
        topic = options.image_topic[0] if options.image_topic else None
        chosen = choose_topics(recording, topic, options.reference_image_topic, options.reference_mask_topic)
        open_folder(options.out, [bag], (OUTPUTS,) if options.live else (), options.force)
        if options.live:
            from coop_perception.evaluation.live import evaluate_live  # rclpy: only where it is needed

            node = options.node or f"/{topics.NODE}"
            evaluation = evaluate_live(recording, chosen, bundle, node, options.out, options.rate or 1.0)
        else:
            from coop_perception.evaluation.recorded import evaluate_recorded

            evaluation = evaluate_recorded(recording, chosen, bundle, options.out)
    finish(evaluation, bundle, options.out, options.allow_incomplete)


def _compare(options: argparse.Namespace) -> None:
    with one_line("evaluate_bag compare", (EvaluationError, OSError), "no results were written"):
        open_results(options.out, COMPARISON, options.force)
        compared = json_value(compare(read_run(options.first), read_run(options.second)))
        write_whole(options.out / COMPARISON[0], (json.dumps(compared, indent=2) + "\n").encode())
        write_comparison(options.out / COMPARISON[1], compared)
        Console(markup=False).print(comparison_table(compared))
        if compared["changed"]:
            Console(markup=False).print(changed_table(compared))
        print(f"results in {plain(options.out)}: {', '.join(COMPARISON)}")
        name, rows = f"{options.first} and {options.second}", difference_rows(compared)
        hold(options.fail_if, compared["measures"], name, options.junit, options.markdown, rows)
        if compared["incomplete"] and not options.allow_incomplete:
            raise IncompleteError(f"incomplete: {plain(compared['incomplete'][0])}; --allow-incomplete takes that")


def node_name(text: str) -> str:
    """An argument that names a node, with its namespace."""
    name = "/" + text.strip("/")
    if not all(part.isidentifier() and part.isascii() for part in name[1:].split("/")):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a node's full name, such as /robot1/{topics.NODE}")
    return name


def _number(text: str, kind: type[float] | type[int], least: float, what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = -1
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: expected {what}")
    return value


def _seconds(text: str) -> float:
    return _number(text, float, 0, "seconds since the recording's first image")


def _time_constant(text: str) -> float:
    return _number(text, float, 0, "seconds, 0 or more")


def _height(text: str) -> int:
    return int(_number(text, int, 0, "pixels, or 0"))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "evaluate_bag", DESCRIPTION, "evaluate_bag drives/ --out out/week --fail-if 'miou.fog < 0.45 significant'"
    )
    parser.add_argument(
        "bags", type=Path, nargs="*", metavar="BAG", help="a rosbag2 directory or storage file, or a folder of some"
    )
    _add_frames(parser)
    _add_references(parser)
    _add_networks(parser)
    _add_node(parser)
    work = parser.add_argument_group("how the work is shared").add_argument
    work("--workers", type=positive, default=1, metavar="N", help="processes; each takes a recording at a time")
    work("--ray", metavar="ADDRESS", help="a Ray cluster that takes the recordings; local: one on this machine")
    work("--resume", action="store_true", help="go on with an interrupted run in --out")
    add_result_options(parser, "out/evaluation")
    kept = parser.add_argument_group("what is kept of every frame").add_argument
    kept(
        "--outputs",
        default="none",
        choices=["none", "png", "mcap"],
        help="masks and restored frames, as files or as a recording (default: none)",
    )
    add_gate_options(parser)
    return parser


def _add_frames(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("which frames").add_argument
    add(
        "--bag",
        type=Path,
        action="append",
        default=[],
        metavar="BAG",
        help="the same as BAG, as demo and make_bag take it",
    )
    add(
        "--image-topic",
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        help="camera topic to process; may be given several times (default: every camera of the recording)",
    )
    add("--start", type=_seconds, default=0.0, metavar="S", help="seconds since the first image (default: 0)")
    add("--end", type=_seconds, default=math.inf, metavar="S", help="seconds since the first image (default: all)")
    add("--every", type=positive, default=1, metavar="N", help="take every n-th frame (default: 1)")


def _add_references(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what they are compared with").add_argument
    add("--reference-image-topic", metavar="NAME", help="clear images (default: <camera>/reference/image)")
    add("--reference-mask-topic", metavar="NAME", help="true masks (default: <camera>/reference/mask)")
    add(
        "--labels",
        type=Path,
        metavar="DIR",
        help="folder of true masks (PNG of class ids) named by header stamp or frame number",
    )
    add("--references", type=Path, metavar="DIR", help="folder of clear images, named likewise")


def _add_networks(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("through which networks").add_argument
    add("--bundle", type=Path, default=default_bundle(), metavar="DIR", help="model bundle (default: %(default)s)")
    add("--backend", default=AUTO, choices=[AUTO, *BACKENDS], help="what runs the networks (default: %(default)s)")
    add(
        "--precision",
        default=AUTO,
        choices=[AUTO, *PRECISIONS],
        help="of the networks' arithmetic (default: %(default)s)",
    )
    add("--threads", type=positive, default=0, metavar="N", help="of the networks on the CPU (default: one per core)")
    add(
        "--network-height",
        type=_height,
        default=0,
        metavar="PIXELS",
        help="of the networks' image, whose width follows the frame's aspect ratio; 0: the bundle's (default: 0)",
    )
    add(
        "--condition-time-constant",
        type=_time_constant,
        default=DEFAULT.time_constant_s,
        metavar="S",
        help="seconds over which conditions are filtered before restoration is conditioned on them; 0: not "
        "(default: %(default)g, the node's)",
    )
    add(
        "--skip-when-clear",
        action=argparse.BooleanOptionalAction,
        default=DEFAULT.skip_when_clear,
        help="whether a frame in which nothing is present stays as it is (default: %(default)s, the node's)",
    )


def _add_node(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("through a node, instead of in this process")
    mode = group.add_mutually_exclusive_group()
    mode.add_argument("--live", action="store_true", help="play the recording to the running node")
    mode.add_argument("--recorded", action="store_true", help="score the node's outputs that the recording holds")
    group.add_argument(
        "--rate", type=rate, metavar="R", help="with --live: times the recording's own pace (default: 1)"
    )
    group.add_argument(
        "--node", type=node_name, metavar="NAME", help=f"with --live: its full name (default: /{topics.NODE})"
    )


def _comparing_parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "evaluate_bag compare",
        "Compares two runs over the same frames: may the second be released?",
        "evaluate_bag compare out/released out/new --fail-if 'miou.drop > 0.01 significant'",
    )
    parser.add_argument("first", type=Path, metavar="RUN_A", help="an evaluation's folder of results")
    parser.add_argument("second", type=Path, metavar="RUN_B", help="another's, over the same recordings")
    written = parser.add_argument_group("what is written").add_argument
    written(
        "--out",
        type=Path,
        default=Path("out/comparison"),
        metavar="DIR",
        help="folder of results (default: %(default)s)",
    )
    written("--force", action="store_true", help="replace an earlier comparison in --out")
    written(
        "--allow-incomplete",
        action="store_true",
        help="exit status 0 also where less than 90 %% of the frames are in both runs, or one of them is incomplete",
    )
    add_gate_options(parser, comparing=True)
    return parser


if __name__ == "__main__":
    main()
