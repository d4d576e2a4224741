"""What clear weather saves, and what is known of the weather over time, to out/bench/weather.json and weather.png.

A sample drive goes through clear weather, fog, clear weather and rain, and its frames through the networks as the node
has them: conditions averaged over time, restoration where they are there. The fastest of several passes counts for each
frame, and of each weather the frames from SETTLED_S after its beginning. The exit status is 1 where a frame in clear
weather takes more than AT_MOST of one in rain.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from support.goals import Goal, report

from coop_perception.contracts import STAGES
from coop_perception.degradations import degrade_by
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import load_bundle
from coop_perception.model.clear_weather import BEGIN, END
from coop_perception.model.conditions import Conditions
from coop_perception.model.over_time import CameraConditions
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.recordings.schedule import Schedule, Segment
from coop_perception.resources import default_bundle
from coop_perception.sample_scene.drive import SampleDrive

CLEAR, FOG, RAIN = "clear", "fog", "rain"
ORDER = (CLEAR, FOG, CLEAR, RAIN)
LEVEL = 2
RATE = 15.0
SETTLED_S = 1.5
"""After so long the average has followed a change."""
AT_MOST = 0.65
SHOWN = 6
"""At most so many conditions are drawn, the most present ones."""
PLOT = Path("out/bench/weather.png")


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one frame: its conditions and those over time, whether it was restored, and how long it took."""

    own: Conditions
    over_time: Conditions
    restored: bool
    ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle())
    parser.add_argument("--seconds", type=float, default=4.0, help="of each weather (default: %(default)s)")
    parser.add_argument("--passes", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.seconds <= SETTLED_S:
        parser.error(f"--seconds is {arguments.seconds:g}, expected more than {SETTLED_S:g}")
    bundle = load_bundle(arguments.bundle)
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings(), print))
    pipeline.warm_up()
    frames = list(track(drive(arguments.seconds), "Drive", int(len(ORDER) * arguments.seconds * RATE)))
    passes = [seen(pipeline, frames) for _ in track(range(arguments.passes), "Passes")]
    best_ms = [min(one.ms for one in same) for same in zip(*passes, strict=True)]
    settled = {weather: settled_frames(weather, arguments.seconds) for weather in (CLEAR, FOG, RAIN)}
    typical_ms = {weather: median(best_ms[index] for index in indices) for weather, indices in settled.items()}
    ratio = typical_ms[CLEAR] / typical_ms[RAIN]
    engine = pipeline.engines[STAGES[0]]
    measured = {
        "bundle": bundle.name,
        "backend": f"{engine.backend} {engine.precision}",
        "frame": f"{frames[0].shape[1]}x{frames[0].shape[0]}",
        "ms_per_frame": {weather: round(ms, 2) for weather, ms in typical_ms.items()},
        "restored": {
            weather: round(float(np.mean([passes[0][index].restored for index in indices])), 3)
            for weather, indices in settled.items()
        },
    }
    goal = Goal("time of a frame in clear weather over one in rain", ratio, AT_MOST, at_most=True)
    report("weather", [goal], measured)
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(arguments.plot, bundle.conditions, passes[0], best_ms, arguments.seconds)
    print(arguments.plot)
    if ratio > AT_MOST:
        sys.exit(f"weather: a frame in clear weather takes {ratio:.2f} of one in rain, at most {AT_MOST:g} is expected")


def drive(seconds: float) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [H,W,3] RGB, so many seconds of each weather."""
    schedule = Schedule(
        tuple(
            Segment(weather, number * seconds, (number + 1) * seconds, (LEVEL, LEVEL))
            for number, weather in enumerate(ORDER)
            if weather != CLEAR
        )
    )
    scene = SampleDrive(rate=RATE)
    for index in range(int(len(ORDER) * seconds * RATE)):
        frame, parameters = scene.frame(index), schedule.parameters(index / RATE, 0.0)
        yield degrade_by(frame.image, parameters, seed=0, frame=index, depth=frame.depth, intrinsics=scene.intrinsics)


def seen(pipeline: Pipeline, frames: Sequence[NDArray[np.uint8]]) -> list[Seen]:
    """One pass of a camera's frames, as the node has them."""
    camera, passed = CameraConditions(), []
    for index, frame in enumerate(frames):
        held: list[Conditions] = []

        def decide(_: int, own: Conditions, index: int = index, held: list[Conditions] = held) -> Conditions | None:
            size = (frames[index].shape[0], frames[index].shape[1])
            now, restore = camera.take(own, round(index / RATE * 1e9), size)
            held.append(now)
            return now if restore else None

        begun = time.perf_counter()
        (result,) = pipeline.run([frame], OUTPUTS, decide=decide)
        took_ms = (time.perf_counter() - begun) * 1e3
        assert result.condition is not None  # it was asked for
        passed.append(Seen(result.condition, held[0], result.used is not None, took_ms))
    return passed


def settled_frames(weather: str, seconds: float) -> list[int]:
    """Those that have been in this weather for SETTLED_S."""
    segments = [number for number, name in enumerate(ORDER) if name == weather]
    spans = [(number * seconds + SETTLED_S, (number + 1) * seconds) for number in segments]
    every = range(int(len(ORDER) * seconds * RATE))
    return [index for index in every if any(begin <= index / RATE < end for begin, end in spans)]


def draw(path: Path, names: Sequence[str], frames: Sequence[Seen], best_ms: Sequence[float], seconds: float) -> None:
    """Presences, of each frame (dots) and over time (lines), above the time that each frame took."""
    at_s = np.arange(len(frames)) / RATE
    own, over_time = (
        np.stack([conditions.presence for conditions in each])
        for each in ([f.own for f in frames], [f.over_time for f in frames])
    )
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(11, 5.5), sharex=True, height_ratios=(2, 1), constrained_layout=True
    )
    for place in np.argsort(-over_time.max(0), kind="stable")[:SHOWN]:
        (line,) = above.plot(at_s, over_time[:, place], label=names[place])
        above.plot(at_s, own[:, place], ".", ms=3, alpha=0.5, color=line.get_color())
    for threshold in (BEGIN, END):
        above.axhline(threshold, color="0.6", lw=0.8, ls="--")
    restored = np.array([frame.restored for frame in frames])
    below.plot(at_s[restored], np.array(best_ms)[restored], ".", color="tab:red", label="restored")
    below.plot(at_s[~restored], np.array(best_ms)[~restored], ".", color="tab:green", label="as it came")
    for number, weather in enumerate(ORDER):
        for axis in (above, below):
            axis.axvline(number * seconds, color="0.8", lw=0.8)
        above.text((number + 0.5) * seconds, 1.03, weather, ha="center")
    above.set(ylabel="presence: of a frame (dots), over time", ylim=(0, 1.1))
    below.set(ylabel="ms per frame", xlabel="s", ylim=(0, None))
    for axis in (above, below):
        axis.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
