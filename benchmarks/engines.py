"""The networks of a bundle, one frame at a time, by what runs them, to out/bench/engines.json.

Eager PyTorch, ONNX Runtime as it comes, and this product's backends. They take turns of a few frames, so that whatever
else the machine does falls on all alike. A turn's first frame is not counted: threads of the one before may still spin
then, and memory and caches are warm after it. Ratios are those of the fastest frames, as what else the machine does
only ever adds: to PyTorch's times many-fold, whose threads wait for one another.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from support.eager import eager_networks
from support.frames import street
from support.goals import Goal, report

from coop_perception.contracts import FUSED, STAGES, Bundle
from coop_perception.engines import EngineError
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.engines.onnxruntime import ort
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.resources import default_bundle

TURN = 4
"""Frames of a turn, its first one included."""
EAGER, DEFAULTS = "torch eager", "onnxruntime, its defaults"
STAGED = ", staged"
OURS = {
    "onnxruntime fp32": EngineSettings("onnxruntime", "fp32"),
    "openvino fp32": EngineSettings("openvino", "fp32"),
    "openvino bf16": EngineSettings("openvino", "bf16"),
}

Run = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=12, help="of each contestant (default: %(default)s)")
    options = parser.parse_args()
    bundle = load_bundle(options.bundle)
    default, why = default_backend(bundle)
    contestants = OURS | {f"{default.backend} {default.precision}": default}
    image = street(bundle.width, bundle.height)
    runs: dict[str, Run] = {EAGER: eager(bundle, image), DEFAULTS: onnxruntime_defaults(bundle, image)}
    missing = {}
    for name, settings in contestants.items():
        try:
            runs |= pipelines(name, bundle, settings, image)
        except EngineError as error:
            missing[name] = str(error)
    ms = measure(runs, options.turns)
    best = {name: min(times) for name, times in ms.items()}
    taken = best[f"{default.backend} {default.precision}"]
    goals = [
        Goal("frames/s of the default backend over torch eager", best[EAGER] / taken, 2.0),
        Goal("... over ONNX Runtime's defaults", best[DEFAULTS] / taken, 1.2),
        *(
            Goal(f"frames/s fused over staged, {name}", best[name + STAGED] / best[name], None)
            for name in contestants
            if name in best
        ),
    ]
    report(
        "engines",
        goals,
        {
            "bundle": bundle.name,
            "size": [bundle.width, bundle.height],
            "default": why,
            "ms_per_frame": {
                name: {"median": round(statistics.median(times), 1), "min": round(min(times), 1), "frames": len(times)}
                for name, times in ms.items()
            },
            "missing": missing,
            "weights_of_torch_eager": "random, of the same shapes",
            "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino")},
        },
    )
    for name, times in ms.items():
        print(f"{name:30} {statistics.median(times):8.1f} ms, at best {min(times):8.1f} ms")


def default_backend(bundle: Bundle) -> tuple[EngineSettings, str]:
    """What `auto` takes here, measured anew, and why."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as cache:
        engine = load_engines(bundle, (FUSED,), EngineSettings(cache=Path(cache)), lines.append)[FUSED]
    engine.close()
    return EngineSettings(engine.backend, engine.precision), lines[-1]


def eager(bundle: Bundle, image: NDArray[np.uint8]) -> Run:
    network = eager_networks(bundle)[FUSED]

    def run() -> object:
        with torch.inference_mode():
            return [output.numpy() for output in network(torch.from_numpy(image[None]))]

    return run


def onnxruntime_defaults(bundle: Bundle, image: NDArray[np.uint8]) -> Run:
    session = ort.InferenceSession(str(bundle.networks[FUSED].path), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image[None]})


def pipelines(name: str, bundle: Bundle, settings: EngineSettings, image: NDArray[np.uint8]) -> dict[str, Run]:
    """All outputs through the one graph, and through the three.

    Raises:
        EngineError: this machine cannot run it.
    """
    engines = load_engines(bundle, (*STAGES, FUSED), settings)
    fused, staged = Pipeline(bundle, engines), Pipeline(bundle, {stage: engines[stage] for stage in STAGES})
    return {
        name: lambda: fused.run([image], OUTPUTS),
        name + STAGED: lambda: staged.run([image], OUTPUTS),
    }


def measure(runs: dict[str, Run], turns: int) -> dict[str, list[float]]:
    """Milliseconds of the frames of every contestant's turns."""
    ms: dict[str, list[float]] = {name: [] for name in runs}
    for _ in track(range(turns), description="engines"):
        for name, run in runs.items():
            run()
            for _ in range(TURN - 1):
                begun = time.perf_counter()
                run()
                ms[name].append((time.perf_counter() - begun) * 1e3)
    return ms


if __name__ == "__main__":
    main()
