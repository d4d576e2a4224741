"""Many recordings: one after another, by processes of this machine, or by a Ray cluster; and their results together."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from coop_perception.classes import SemanticClass
from coop_perception.documents import read_json
from coop_perception.engines import EngineError
from coop_perception.engines.cpu import usable_cores
from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.offline import Advance, evaluate_offline
from coop_perception.evaluation.results import SUMMARY, SUMMARY_LIMIT, is_complete, json_value, write_results
from coop_perception.evaluation.summary import summarise
from coop_perception.evaluation.table import NAME as FRAMES
from coop_perception.evaluation.table import read_parquet
from coop_perception.evaluation.task import Task
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.recordings.recording import RecordingError

BAGS = "bags"
"""Folder of the recordings' own results, in that of all."""
FAILURES = (RecordingError, BundleError, EngineError, EvaluationError, DatasetError, OSError)
"""What ends one recording's evaluation and no other's."""
TRIES = 2
LOCAL = "local"
"""Address of a Ray cluster that is started here."""
HOW = (
    "bundle",
    "network_height",
    "condition_time_constant",
    "skip_when_clear",
    "backend",
    "precision",
    "device",
)
"""How a recording was evaluated."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one recording: its name, and why it failed; empty where it did not."""

    name: str
    error: str = ""


def evaluate_task(
    task: Task, say: Callable[[str], object] = lambda _: None, advance: Advance = lambda _done, _all: None
) -> None:
    """One recording to its folder.

    Raises:
        KeyboardInterrupt: it was interrupted; what there was has been written.
        The errors of FAILURES.
    """
    task.out.mkdir(parents=True, exist_ok=True)
    evaluation = evaluate_offline(task, say, advance)
    write_results(evaluation, load_bundle(task.bundle), task.out)
    if evaluation.findings.interrupted:
        raise KeyboardInterrupt


def evaluate_all(
    tasks: Mapping[str, Task], workers: int, ray: str | None, resume: bool, report: Callable[[Outcome], object]
) -> list[Outcome]:
    """Every task; one that fails is tried once more, and fails alone.

    Args:
        tasks: by name.
        workers: processes; the networks' threads are divided among them.
        ray: address of a cluster that takes the tasks instead (`local`: one started here); its machines see the same
            files under the same paths.
        resume: whether what is complete is left as it is.
        report: called with each outcome as it comes.

    Raises:
        EvaluationError: Ray is not installed, or cannot be reached; or what is complete is another run's.
        KeyboardInterrupt: Ctrl-C; what each had done is kept.
    """
    outcomes = []
    bundle = load_bundle(next(iter(tasks.values())).bundle) if resume else None
    done = [name for name, task in tasks.items() if bundle is not None and is_complete(task, bundle)]
    left = {name: task for name, task in tasks.items() if name not in done}
    run = _on_ray(left, workers, ray) if ray else _here(left) if workers == 1 else _by_processes(left, workers)
    for outcome in chain(map(Outcome, done), run):
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def threads_of(workers: int, asked: int, ray: str | None = None) -> int:
    """Threads of each worker's networks: what was asked for, or its part of the cores; of a cluster, the one for which
    it has a task wait."""
    if asked or ray not in (None, LOCAL):
        return asked or 1
    return max(1, usable_cores() // workers) if workers > 1 else 0


def _attempt(task: Task) -> str:
    """Runs in a worker: why the task failed, empty if it did not. Errors stay here, as not all can be pickled."""
    try:
        evaluate_task(task)
    except FAILURES as error:
        return str(error) or type(error).__name__
    except Exception as error:  # a fault of this program, or no memory: it must not cost the other recordings theirs
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}: {error}"
    return ""


def _here(tasks: Mapping[str, Task]) -> Iterator[Outcome]:
    for name, task in tasks.items():
        yield Outcome(name, _attempt(task) and _attempt(task))


def _by_processes(tasks: Mapping[str, Task], workers: int) -> Iterator[Outcome]:
    """By worker processes. One that dies takes its pool with it, and nobody knows by which of the tasks that ran: each
    of these is tried once more, alone; the others go to another pool."""
    waiting = dict.fromkeys(tasks, 1)
    while waiting:
        running: dict[Future[str], str] = {}
        try:
            with _pool(workers) as pool:
                while waiting:
                    idle = [name for name in waiting if name not in running.values()]
                    for name in idle[: workers - len(running)]:
                        running[pool.submit(_attempt, tasks[name])] = name
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        error = future.result()
                        name = running.pop(future)
                        if error and waiting[name] < TRIES:
                            waiting[name] += 1
                        else:
                            del waiting[name]
                            yield Outcome(name, error)
        except BrokenProcessPool:
            for name in running.values():
                del waiting[name]
                yield Outcome(name, _alone(tasks[name]))


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def _alone(task: Task) -> str:
    """Why it failed in a process of its own, empty if it did not."""
    try:
        with _pool(1) as pool:
            return pool.submit(_attempt, task).result()
    except BrokenProcessPool:
        return "the process that evaluated it was killed (out of memory?)"


def _on_ray(tasks: Mapping[str, Task], workers: int, address: str) -> Iterator[Outcome]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what runs here, unless the user wants it
    try:
        import ray
    except ImportError as error:
        raise EvaluationError("--ray needs Ray, which is not installed; pip install ray") from error
    here = address == LOCAL
    cluster: dict[str, Any] = {"num_cpus": workers, "include_dashboard": False} if here else {}
    try:
        ray.init(address=address, log_to_driver=False, **cluster)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EvaluationError(f"no Ray cluster answers at {address}: {error}") from error
    try:
        gpus = ray.cluster_resources().get("GPU", 0)
        attempt = ray.remote(max_retries=TRIES - 1, num_gpus=min(1, gpus / workers if here else gpus))(_attempt)

        def begin(task: Task) -> Any:
            return attempt.options(num_cpus=1 if here else task.settings.threads).remote(task)

        running = {begin(task): (name, 1) for name, task in tasks.items()}
        while running:
            (done, *_), _ = ray.wait(list(running))
            name, number = running.pop(done)
            try:
                why = str(ray.get(done))
            except ray.exceptions.RayError as failure:
                why = str(failure)
            if why and number < TRIES:
                running[begin(tasks[name])] = name, number + 1
            else:
                yield Outcome(name, why)
    finally:
        ray.shutdown()


def merged(
    out: Path, outcomes: Sequence[Outcome], tasks: Mapping[str, Task], classes: Sequence[SemanticClass]
) -> dict[str, Any]:
    """The summary of all recordings together, from the frames of each, and a short one of each.

    Raises:
        EvaluationError: none was evaluated, or a result cannot be read.
    """
    done = sorted(outcome.name for outcome in outcomes if not outcome.error)
    if not done:
        first = f": {outcomes[0].name}: {outcomes[0].error}" if outcomes else ""
        raise EvaluationError(f"none of {len(outcomes)} recordings could be evaluated{first}")
    tables = (read_parquet(out / BAGS / name / FRAMES) for name in done)
    summaries = {name: read_json(out / BAGS / name / SUMMARY, SUMMARY_LIMIT) for name in done}
    first_summary = summaries[done[0]]
    failed = {outcome.name: outcome.error for outcome in outcomes if outcome.error}
    facts = {name: first_summary[name] for name in HOW}
    differing = [
        f"{name} is not the same for all recordings: {', '.join(found)}"
        for name in HOW
        if len(found := sorted({str(summary[name]) for summary in summaries.values()})) > 1
    ]
    warnings = [f"{name}: {warning}" for name, summary in summaries.items() for warning in summary["warnings"]]
    incomplete = [f"{name}: {warning}" for name, summary in summaries.items() for warning in summary["incomplete"]]
    lost = [f"{name} could not be evaluated: {error}" for name, error in failed.items()]
    return dict(
        json_value(
            {
                "recording": f"{len(done)} recordings",
                "image_topic": ", ".join(dict.fromkeys(s["image_topic"] for s in summaries.values())),
                "mode": "fleet",
                **facts,
                **summarise(tables, len(done), classes),
                "bags": [_short(name, tasks[name].bag, summary) for name, summary in summaries.items()],
                "failed_bags": [{"name": name, "error": error} for name, error in failed.items()],
                "warnings": lost + differing + warnings,
                "incomplete": lost + incomplete,
            }
        )
    )


def _short(name: str, bag: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    everything = summary["measures"]["all"]
    return {
        "name": name,
        "recording": str(bag),
        "frames": summary["frames"],
        "latency_p95_ms": summary["latency_ms"]["p95"],
        "conditions": {
            name: one["frames"]
            for name, one in summary.get("condition", {}).get("conditions", {}).items()
            if one["frames"]
        },
        "measures": {key: value["value"] for key, value in everything.items() if isinstance(value, dict)},
        "warnings": len(summary["warnings"]),
    }
