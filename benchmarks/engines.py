"""The networks of a bundle, one frame at a time, by what runs them, to out/bench/engines.json.

Eager PyTorch, ONNX Runtime as it comes, and this product's backends. They take turns of a few frames, so that whatever
else the machine does falls on all alike. A turn's first frame is not counted: threads of the one before may still spin
then, and memory and caches are warm after it. Ratios are those of the fastest frames, as what else the machine does
only ever adds: to PyTorch's times many-fold, whose threads wait for one another. Larger frames go through the backends
alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from support.eager import eager_pass
from support.frames import street
from support.goals import Goal, report

from coop_perception.contracts import STAGES, Bundle
from coop_perception.engines import EngineError
from coop_perception.engines.frame_pass import Feed, outputs_of
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.engines.onnxruntime import ort
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.resources import default_bundle

TURN = 4
"""Frames of a turn, its first one included."""
EAGER, DEFAULTS = "torch eager", "onnxruntime, its defaults"
SIZE = (640, 480)
"""Width and height of the frame."""
LARGER = ((1280, 720), (1920, 1080))
OURS = {
    "onnxruntime fp32": EngineSettings("onnxruntime", "fp32"),
    "openvino fp32": EngineSettings("openvino", "fp32"),
    "openvino bf16": EngineSettings("openvino", "bf16"),
}

Run = Callable[[], object]
Times = dict[str, list[tuple[float, float]]]
"""Milliseconds of each frame by name: of the clock, and of all cores together."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=12, help="of each contestant (default: %(default)s)")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    default, why = default_backend(bundle)
    contestants = OURS | {f"{default.backend} {default.precision}": default}
    frame, eager = street(*SIZE), eager_pass(bundle)
    runs: dict[str, Run] = {EAGER: lambda: eager(frame), DEFAULTS: onnxruntime_defaults(bundle, frame)}
    ours: dict[str, Pipeline] = {}
    missing = {}
    for name, settings in contestants.items():
        try:
            ours[name] = Pipeline(bundle, load_engines(bundle, STAGES, settings))
        except EngineError as error:
            missing[name] = str(error)
    runs |= {name: all_outputs(one, frame) for name, one in ours.items()}
    ms = measure(runs, options.turns)
    larger = {
        f"{width}x{height}": measure(
            {name: all_outputs(one, street(width, height)) for name, one in ours.items()}, -(-options.turns // 2)
        )
        for width, height in LARGER
    }
    best = {name: min(wall for wall, _ in times) for name, times in ms.items()}
    taken = best[f"{default.backend} {default.precision}"]
    goals = [
        Goal("frames/s of the default backend over torch eager", best[EAGER] / taken, 2.0),
        Goal("... over ONNX Runtime's defaults", best[DEFAULTS] / taken, 1.2),
    ]
    report(
        "engines",
        goals,
        {
            "bundle": bundle.name,
            "size": SIZE,
            "default": why,
            "ms_per_frame": spread(ms),
            "ms_per_larger_frame": {size: spread(times) for size, times in larger.items()},
            "missing": missing,
            "weights_of_torch_eager": "random, of the same shapes",
            "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
        },
    )
    for size, of_size in {f"{SIZE[0]}x{SIZE[1]}": ms, **larger}.items():
        for name, times in of_size.items():
            of_one = spread({name: times})[name]
            print(f"{size:10} {name:30}", ", ".join(f"{what} {ms:8.1f}" for what, ms in of_one.items()))


def default_backend(bundle: Bundle) -> tuple[EngineSettings, str]:
    """What `auto` takes here, measured anew, and why."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as cache:
        engines = load_engines(bundle, STAGES, EngineSettings(cache=Path(cache)), lines.append)
    for engine in engines.values():
        engine.close()
    return EngineSettings(engine.backend, engine.precision), lines[-1]


def onnxruntime_defaults(bundle: Bundle, frame: NDArray[np.uint8]) -> Run:
    sessions = {
        name: ort.InferenceSession(str(network.path), providers=["CPUExecutionProvider"])
        for name, network in bundle.networks.items()
    }

    def run(name: str, given: Feed, wanted: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        return dict(zip(wanted, sessions[name].run(list(wanted), given), strict=True))

    return lambda: outputs_of(bundle, frame, run)


def all_outputs(pipeline: Pipeline, frame: NDArray[np.uint8]) -> Run:
    return lambda: pipeline.run([frame], OUTPUTS)


def spread(ms: Times) -> dict[str, dict[str, float]]:
    found = {}
    for name, times in ms.items():
        wall, processor = zip(*times, strict=True)
        figures = {"median": statistics.median(wall), "min": min(wall), "processor": min(processor)}
        found[name] = {**{what: round(figure, 1) for what, figure in figures.items()}, "frames": len(times)}
    return found


def measure(runs: dict[str, Run], turns: int) -> Times:
    """Of every contestant's turns."""
    ms: Times = {name: [] for name in runs}
    for _ in track(range(turns), description="engines"):
        for name, run in runs.items():
            run()
            for _ in range(TURN - 1):
                begun = time.perf_counter(), time.process_time()
                run()
                done = time.perf_counter(), time.process_time()
                ms[name].append(((done[0] - begun[0]) * 1e3, (done[1] - begun[1]) * 1e3))
    return ms


if __name__ == "__main__":
    main()
