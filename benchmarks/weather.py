"""What is known of the weather over time, and what clear weather saves, to out/bench/weather.json and weather.png.

A recording of the sample drive goes through clear weather, fog, clear weather and rain (`make_bag --schedule`), and its
frames through the networks as the node has them: conditions averaged over time, restoration where they are there. On a
CPU times are the processor's, which other work costs little of. The exit status is 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from support.goals import Goal, report

from coop_perception.commands import make_bag
from coop_perception.contracts import STAGES
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.images import decode
from coop_perception.model.bundle import load_bundle
from coop_perception.model.clear_weather import BEGIN, END
from coop_perception.model.conditions import PRESENT, Conditions
from coop_perception.model.over_time import CameraConditions
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.recordings.cameras import reference_condition_topic
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import applied_levels
from coop_perception.recordings.recording import Recording
from coop_perception.resources import default_bundle

CLEAR, FOG, RAIN = "clear", "fog", "rain"
ORDER = (CLEAR, FOG, CLEAR, RAIN)
LEVEL = 2
RATE = 15.0
TOPIC = "/front/image_raw"
SETTLED_S = 1.0
"""So long after a change it has to be known."""
NAMED = 0.99
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
    parser.add_argument("--passes", type=int, default=2, help="the fastest counts (default: %(default)s)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.seconds <= SETTLED_S:
        parser.error(f"--seconds is {arguments.seconds:g}, expected more than {SETTLED_S:g}")
    bundle = load_bundle(arguments.bundle)
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings(), print))
    images, weathers = drive(arguments.seconds)
    pipeline.run(images[:1], OUTPUTS)  # which is compiled for this size
    passes = [seen(pipeline, images) for _ in track(range(arguments.passes), "Passes")]
    best_ms = [min(one.ms for one in same) for same in zip(*passes, strict=True)]
    settled = settled_frames(weathers)
    named = {of: [name(bundle.conditions, getattr(one, of)) for one in passes[0]] for of in ("own", "over_time")}
    right = {of: float(np.mean([names[at] == weathers[at] for at in settled])) for of, names in named.items()}
    at = {weather: [index for index in settled if weathers[index] == weather] for weather in (CLEAR, FOG, RAIN)}
    typical_ms = {weather: median(best_ms[index] for index in indices) for weather, indices in at.items()}
    goals = [
        Goal("frames named rightly, from a second after a change", right["over_time"], NAMED),
        Goal(
            "changes of the name, over those of the weather",
            changes(named["over_time"]) / changes(weathers),
            1.0,
            at_most=True,
        ),
        Goal("time of a frame in clear weather over one in rain", typical_ms[CLEAR] / typical_ms[RAIN], AT_MOST, True),
    ]
    engine = pipeline.engines[STAGES[0]]
    measured = {
        "bundle": bundle.name,
        "backend": f"{engine.backend} {engine.precision}",
        "frame": f"{images[0].shape[1]}x{images[0].shape[0]}",
        "changes": changes(named["over_time"]),
        "without the average": {"named_rightly": round(right["own"], 3), "changes": changes(named["own"])},
        "ms_per_frame": {weather: round(ms, 2) for weather, ms in typical_ms.items()},
        "restored": {
            weather: round(float(np.mean([passes[0][index].restored for index in indices])), 3)
            for weather, indices in at.items()
        },
    }
    report("weather", goals, measured)
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(arguments.plot, bundle.conditions, passes[0], best_ms, weathers)
    print(arguments.plot)
    if missed := [goal for goal in goals if goal.met is False]:
        sys.exit("; ".join(f"weather: {goal.what}: {goal.figure:.2f}, expected {goal.goal:g}" for goal in missed))


def drive(seconds: float) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """The recording's frames uint8 [H,W,3] RGB, so many seconds of each weather, and the weather of each."""
    segments = "".join(
        f"  - {{condition: {weather}, start: {number * seconds}, end: {(number + 1) * seconds}, level: {LEVEL}}}\n"
        for number, weather in enumerate(ORDER)
        if weather != CLEAR
    )
    images, weathers = [], []
    applied = reference_condition_topic(TOPIC)
    with tempfile.TemporaryDirectory() as folder:
        schedule, bag = Path(folder) / "weather.yaml", Path(folder) / "drive"
        schedule.write_text(f"segments:\n{segments}")
        count = int(len(ORDER) * seconds * RATE)
        make_bag.main(f"--out {bag} --schedule {schedule} --rate {RATE:g} --frames {count}".split())
        with Recording(bag) as recording:
            for _, messages in frames(recording, [TOPIC, applied]):
                images.append(decode(recording.deserialize(messages[TOPIC])))
                levels = applied_levels(recording.deserialize(messages[applied]))
                weathers.append(next((weather for weather, level in levels.items() if level), CLEAR))
    return images, weathers


def name(names: Sequence[str], conditions: Conditions) -> str:
    """The most present condition; CLEAR where none is there."""
    most = int(conditions.presence.argmax())
    return names[most] if conditions.presence[most] >= PRESENT else CLEAR


def changes(named: Sequence[str]) -> int:
    return sum(before != after for before, after in pairwise(named))


def settled_frames(weathers: Sequence[str]) -> list[int]:
    """Those whose weather has been there for SETTLED_S."""
    since, settled = 0, []
    for index, weather in enumerate(weathers):
        if weather != weathers[since]:
            since = index
        if index - since >= SETTLED_S * RATE:
            settled.append(index)
    return settled


def seen(pipeline: Pipeline, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
    """One pass of a camera's frames, as the node has them."""
    camera, passed = CameraConditions(), list[Seen]()
    clock = time.perf_counter if pipeline.engines[STAGES[0]].on_gpu else time.process_time
    for index, image in enumerate(images):
        held: list[Conditions] = []

        def decide(_: int, own: Conditions, index: int = index, held: list[Conditions] = held) -> Conditions | None:
            size = (images[index].shape[0], images[index].shape[1])
            now, restore = camera.take(own, round(index / RATE * 1e9), size)
            held.append(now)
            return now if restore else None

        begun = clock()
        (result,) = pipeline.run([image], OUTPUTS, decide=decide)
        took_ms = (clock() - begun) * 1e3
        assert result.condition is not None  # it was asked for
        passed.append(Seen(result.condition, held[0], result.used is not None, took_ms))
    return passed


def draw(
    path: Path, names: Sequence[str], passed: Sequence[Seen], best_ms: Sequence[float], weathers: Sequence[str]
) -> None:
    """Presences, of each frame (dots) and over time (lines), above the time that each frame took."""
    at_s = np.arange(len(passed)) / RATE
    own, over_time = (
        np.stack([conditions.presence for conditions in each])
        for each in ([one.own for one in passed], [one.over_time for one in passed])
    )
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(11, 5.5), sharex=True, height_ratios=(2, 1), constrained_layout=True
    )
    for place in np.argsort(-over_time.max(0), kind="stable")[:SHOWN]:
        (line,) = above.plot(at_s, over_time[:, place], label=names[place])
        above.plot(at_s, own[:, place], ".", ms=3, alpha=0.5, color=line.get_color())
    for threshold, what in ((BEGIN, "begins"), (END, "ends")):
        above.axhline(threshold, color="0.6", lw=0.8, ls="--")
        above.annotate(f"restoration {what}", (at_s[-1], threshold), fontsize=7, va="bottom", ha="right", color="0.4")
    restored = np.array([one.restored for one in passed])
    below.plot(at_s[restored], np.array(best_ms)[restored], ".", color="tab:red", label="restored")
    below.plot(at_s[~restored], np.array(best_ms)[~restored], ".", color="tab:green", label="as it came")
    begins = [0, *(at + 1 for at, pair in enumerate(pairwise(weathers)) if pair[0] != pair[1]), len(weathers)]
    for begin, end in pairwise(begins):
        for axis in (above, below):
            axis.axvline(begin / RATE, color="0.8", lw=0.8)
        above.text((begin + end) / 2 / RATE, 1.03, weathers[begin], ha="center")
    above.set(ylabel="presence: of a frame (dots), over time", ylim=(0, 1.1))
    below.set(ylabel="ms per frame", xlabel="s", ylim=(0, None))
    for axis in (above, below):
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
