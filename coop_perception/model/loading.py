"""A bundle's networks, loaded and warmed up, with progress to say on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from coop_perception.contracts import FUSED, STAGES
from coop_perception.engines import Engine
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import load_bundle
from coop_perception.model.memory import returnable
from coop_perception.model.pipeline import Pipeline


def load_pipeline(
    directory: Path, settings: EngineSettings, fused: bool, cameras: int, say: Callable[[str], object]
) -> Pipeline:
    """Load a bundle until it is ready for its first frame.

    Args:
        directory: of the bundle.
        settings: what is to run it.
        fused: load the graph of all three networks, too.
        cameras: how many share it, the largest batch.
        say: gets a line about each step.

    Raises:
        BundleError, EngineError: as `load_bundle`, `Pipeline`.
    """
    begun = time.perf_counter()
    say(f"loading bundle {directory}")
    bundle = load_bundle(directory)
    pipelines: list[Pipeline] = []

    def warm_up(engines: Mapping[str, Engine]) -> None:
        started = time.perf_counter()
        pipeline = Pipeline(bundle, engines)
        pipeline.warm_up(cameras)
        pipelines.append(pipeline)  # and no other: engines are prepared for the memory that it holds
        say(f"warmed up in {time.perf_counter() - started:.1f} s")

    with returnable():
        load_engines(bundle, (*STAGES, *([FUSED] if fused else [])), settings, say, warm_up)
    (pipeline,) = pipelines
    engine = pipeline.engines["segmenter"]
    say(
        f"bundle {bundle.name}: {len(bundle.classes)} classes at {bundle.width}x{bundle.height}, {engine.backend} "
        f"{engine.precision} on {engine.device}, ready in {time.perf_counter() - begun:.1f} s"
    )
    return pipeline
