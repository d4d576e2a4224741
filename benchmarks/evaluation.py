"""What evaluating a recording adds to its networks' own time, to out/bench/evaluation.json.

The bare pipeline, on frames that are decoded already, and `evaluate_bag` on the recording of the same frames take turns
in one process; then two workers and one take the same recordings, each with all cores between them. Memory is that of
the process over a long recording of small frames through networks that take no time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from support.frames import street
from support.goals import Goal, report
from support.no_networks import no_networks

from coop_perception.contracts import STAGES
from coop_perception.engines import Engine
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.evaluation import offline
from coop_perception.evaluation.fleet import evaluate_all, threads_of
from coop_perception.evaluation.task import Task
from coop_perception.model.bundle import load_bundle
from coop_perception.model.over_time import OverTime
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.recordings.messages import IMAGE_TYPE, image_message
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.resources import default_bundle

RATE_NS = 100_000_000
SIZE = (640, 480)
"""Width and height of frames that networks run on."""
SMALL = (48, 64)
Clocks = tuple[float, float]
"""Seconds of the wall's and of the processor's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=30, help="of a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: %(default)s)")
    parser.add_argument("--long", type=int, default=10_000, help="frames of the long recording (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        goals = memory(place, options.bundle, options.long)
        frame = street(*SIZE)
        for name in ("one", "two"):
            write(place / name, [frame] * options.frames)
        ratio, turns = overhead(place, options.bundle, frame, options.frames, options.rounds)
        goals.append(Goal("evaluate_bag over the bare pipeline, frames/s", ratio, 0.95))
        seconds = {workers: fleet(place, options.bundle, workers) for workers in (1, 2)}
        goals.append(Goal("two workers over one, frames/s", seconds[1] / seconds[2], 1.2))
    report(
        "evaluation",
        goals,
        {
            **turns,
            "fleet_seconds": seconds,
            "size": SIZE,
        },
    )


def write(path: Path, frames: list[np.ndarray]) -> None:
    """A recording with references, so that every score is computed."""
    mask = np.zeros(frames[0].shape[:2], np.uint8)
    with RecordingWriter(path) as writer:
        for index, frame in enumerate(frames):
            stamp = index * RATE_NS
            writer.write("/front/image_raw", image_message(frame, "rgb8", "front", stamp), IMAGE_TYPE, stamp)
            writer.write("/front/reference/image", image_message(frame, "rgb8", "front", stamp), IMAGE_TYPE, stamp)
            writer.write("/front/reference/mask", image_message(mask, "mono8", "front", stamp), IMAGE_TYPE, stamp)


def overhead(
    place: Path, path: Path, frame: np.ndarray, frames: int, rounds: int
) -> tuple[float, dict[str, list[float]]]:
    """Frames/s of `evaluate_bag` over those of the pipeline alone, both through the same networks. And both in each
    turn, with the processor's time for a frame: what the networks leave idle is all that the rest can hide in."""
    bundle = load_bundle(path)
    engines = load_engines(bundle, STAGES, EngineSettings())
    pipeline = Pipeline(bundle, engines)
    pipeline.warm_up()
    turns: dict[str, list[float]] = {f"{n}_{what}": [] for n in ("bare", "evaluate_bag") for what in ("fps", "cpu_ms")}

    def took(name: str, begun: Clocks, ended: Clocks) -> None:
        turns[f"{name}_fps"].append(frames / (ended[0] - begun[0]))
        turns[f"{name}_cpu_ms"].append((ended[1] - begun[1]) * 1e3 / frames)

    for number in range(rounds):
        begun = clocks()
        for _ in range(frames):
            pipeline.run([frame], OUTPUTS)
        took("bare", begun, clocks())
        task = Task(place / "one", place / f"out{number}", path, over_time=OverTime(skip_when_clear=False))
        took("evaluate_bag", *first_frame_to_last_row(task, engines, frames))
    ratios = [e / b for e, b in zip(turns["evaluate_bag_fps"], turns["bare_fps"], strict=True)]
    return statistics.median(ratios), turns


class AllRows(Exception):  # noqa: N818 - it is no error
    """Every frame has its row: what comes then, scores and pictures, is not for each frame."""


def first_frame_to_last_row(task: Task, engines: dict[str, Engine], frames: int) -> tuple[Clocks, Clocks]:
    """When an evaluation gives the networks its first frame, and when the last one's row is in the journal."""
    through_networks, starts, ends = offline._run, list[Clocks](), list[Clocks]()

    def run(*arguments: Any) -> Any:
        starts.append(clocks())
        return through_networks(*arguments)

    def advance(done: int, _: int) -> None:
        if done == frames:
            ends.append(clocks())
            raise AllRows

    task.out.mkdir()
    with (
        patch.object(offline, "_run", run),
        patch.object(offline, "load_engines", lambda *_: engines),
        suppress(AllRows),
    ):
        offline.evaluate_offline(task, advance=advance)
    return starts[0], ends[0]


def clocks() -> Clocks:
    return time.perf_counter(), time.process_time()


def fleet(place: Path, path: Path, workers: int) -> float:
    """Seconds for the two recordings, loading included, as both have to."""
    settings = EngineSettings(threads=threads_of(workers, 0))
    tasks = {
        name: Task(place / name, place / f"fleet{workers}" / name, path, settings=settings) for name in ("one", "two")
    }
    begun = time.perf_counter()
    outcomes = evaluate_all(tasks, workers, None, False, lambda _: None)
    assert not any(outcome.error for outcome in outcomes), outcomes
    return time.perf_counter() - begun


def memory(place: Path, path: Path, frames: int) -> list[Goal]:
    """MB that the process grows by between a tenth of a long recording and its last row, and from there until its
    scores are computed, which all its rows are needed for."""
    random = np.random.default_rng(0)
    write(place / "long", [random.integers(0, 11, (*SMALL, 3), dtype=np.uint8) for _ in range(frames)])
    networks = no_networks(load_bundle(path))
    grown: list[float] = []

    def advance(done: int, _count: int) -> None:
        if done in (frames // 10, frames):
            grown.append(resident_mb())

    with (
        patch.object(offline, "load_engines", lambda *_: networks),
        patch.object(Pipeline, "warm_up"),
    ):
        task = Task(place / "long", place / "long_out", path)
        task.out.mkdir()
        offline.evaluate_offline(task, advance=advance)
    return [
        Goal(f"memory that grows over {frames} frames, MB", grown[1] - grown[0], 50, at_most=True),
        Goal("memory that their scores take at the end, MB", peak_mb() - grown[1], frames / 20, at_most=True),
    ]


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()
