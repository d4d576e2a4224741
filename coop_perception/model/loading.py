"""A bundle's networks, loaded and warmed up, with progress to say on the way."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from coop_perception.contracts import STAGES
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.model.memory import returnable
from coop_perception.model.pipeline import Pipeline
from coop_perception.model.snapshot import take_snapshot
from coop_perception.model.trial import try_bundle


def load_pipeline(
    directory: Path,
    settings: EngineSettings,
    say: Callable[[str], object],
    limit_s: float | None = None,
) -> Pipeline:
    """Load a bundle until it is ready for its first frame, from a copy of what was checked.

    Args:
        directory: of the bundle.
        settings: what is to run it, and with which batches and height of the networks' image it is warmed up.
        say: gets a line about each step.
        limit_s: the bundle is one that may not end to load: it is loaded in a process of its own first, which is given
            so many seconds.

    Raises:
        BundleError, EngineError: as `load_bundle`, `take_snapshot`, `try_bundle`, `Pipeline`.
    """
    say(f"loading bundle {directory}")
    with tempfile.TemporaryDirectory(prefix="coop_perception-bundle-") as folder:
        copy = Path(folder, "bundle")
        if limit_s is None:
            take_snapshot(directory, copy)
        else:
            try_bundle(directory, copy, settings, limit_s)
        return load_snapshot(directory, copy, settings, say)


def load_snapshot(directory: Path, copy: Path, settings: EngineSettings, say: Callable[[str], object]) -> Pipeline:
    """As `load_pipeline`, of a copy that has been taken already."""
    begun = time.perf_counter()
    pipelines: list[Pipeline] = []

    def warm_up(engines: Mapping[str, Engine]) -> None:
        started = time.perf_counter()
        pipeline = Pipeline(bundle, engines)
        pipeline.warm_up(settings.max_batch, settings.network_height)
        pipelines.append(pipeline)  # and no other: engines are prepared for the memory that it holds
        say(f"warmed up in {time.perf_counter() - started:.1f} s")

    try:
        bundle = replace(load_bundle(copy), directory=directory)
        with returnable():
            load_engines(bundle, STAGES, settings, say, warm_up)
    except (BundleError, EngineError) as error:
        raise type(error)(str(error).replace(str(copy), str(directory))) from error
    (pipeline,) = pipelines
    for engine in pipeline.engines.values():
        if engine.path.is_relative_to(copy):  # which will be gone when it says of a frame that it cannot run it
            engine.path = directory / engine.path.relative_to(copy)
    engine = pipeline.engines["segmenter"]
    say(
        f"bundle {bundle.name}: {len(bundle.classes)} classes at a height of {bundle.input.height}, {engine.backend} "
        f"{engine.precision} on {engine.device}, ready in {time.perf_counter() - begun:.1f} s"
    )
    return pipeline
