"""Engine files of a bundle's networks: those that are there and fit, the others built."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from coop_perception.contracts import Bundle
from coop_perception.engines import EngineError, cache
from coop_perception.engines.backends import INT8_SCHEME, MAX_BATCH, ON_CPU, TENSORRT
from coop_perception.engines.build import Progress, build, builds_for_named, capability
from coop_perception.engines.cuda import Gpu
from coop_perception.engines.modules import tensorrt_module
from coop_perception.engines.precisions import Graphs
from coop_perception.engines.private_files import read_own
from coop_perception.engines.profiles import profiles, words


def ensure(
    bundle: Bundle,
    names: Collection[str],
    backend: str,
    gpu: Gpu | str | None,
    precision: str,
    directory: Path | None,
    say: Callable[[str], object],
    max_batch: int = MAX_BATCH,
    graphs: Graphs | None = None,
    progress: Progress | None = None,
    also: Sequence[Path] = (),
) -> dict[str, Path]:
    """Files of networks for a backend, built where there is none or it does not fit.

    Args:
        bundle: checked.
        names: of networks.
        backend: out of TENSORRT; out of ON_CPU for precision int8, whose files are ONNX.
        gpu: the one to build for, or a compute capability as "8.9"; None for ON_CPU.
        precision: fp32, fp16 or int8.
        directory: where engines are looked for and written; None: the cache.
        say: gets a line about each engine that is built, and why.
        max_batch: the most frames of one run.
        graphs: the bundle's in this precision, where several calls share them.
        progress: called along a build.
        also: directories that are looked at first, and not written to.

    Raises:
        EngineError: the backend is missing or does not build for the GPU, operators are not supported, a build
            failed, or the directory cannot be written to.
        DatasetError: the graphs' calibration images cannot be used.
    """
    if backend in ON_CPU and precision != "int8":
        raise EngineError(f"{backend} loads a bundle's ONNX files as they are in {precision}: nothing needs building")
    module = tensorrt_module(backend) if backend in TENSORRT else None
    if module is not None and isinstance(gpu, str) and not builds_for_named(module):
        raise EngineError(
            f"{backend} {module.__version__} builds for the GPU it runs on alone: build there, and name no compute "
            "capability; tensorrt_rtx builds ahead of time"
        )
    if module is not None and builds_for_named(module):
        capability(module, gpu.compute_capability if isinstance(gpu, Gpu) else str(gpu))  # before graphs are converted
    graphs = graphs or Graphs(bundle, precision, for_tensorrt=backend in TENSORRT)
    places = [*also, directory or cache.default_directory(say)]
    files: dict[str, Path] = {}
    for name in names:
        key = _key(graphs, name, backend, module, gpu, max_batch)
        candidates = [place / file_name(bundle.name, key) for place in places]
        reasons = {file: cache.find(file, key) for file in candidates}
        fitting = [file for file, reason in reasons.items() if reason is None]
        if not fitting:
            for file, reason in reasons.items():
                if file != candidates[-1] and not str(reason).startswith(cache.NONE_YET):
                    say(f"{file}: not used: {reason}")
            _build_once(candidates[-1], key, module, graphs, say, progress)
        files[name] = (fitting or candidates[-1:])[0]
    return files


def built_for_cpu(
    bundle: Bundle, names: Collection[str], backend: str, directory: Path, also: Sequence[Path] = ()
) -> dict[str, Path]:
    """INT8 files of networks that are there and fit, as `ensure` finds them, which builds what this one misses.

    Raises:
        EngineError: there is none of a network.
    """
    graphs = Graphs(bundle, "int8", for_tensorrt=False)
    files: dict[str, Path] = {}
    for name in names:
        key = _key(graphs, name, backend, None, None, MAX_BATCH)
        places = [place / file_name(bundle.name, key) for place in (*also, directory)]
        found = [place for place in places if cache.find(place, key) is None]
        if not found:
            raise EngineError(f"it is not built (build_engines --backend {backend} --precision int8)")
        files[name] = found[0]
    return files


def handed_over(bundle: Path) -> Path:
    """Where engines lie that were handed over with a bundle's directory: beside it."""
    bundle = bundle.resolve()
    return bundle.with_name(f"{bundle.name}.engines")


def file_name(bundle: str, key: cache.Key) -> str:
    """Of an engine file: one place for each network, backend, GPU and precision."""
    own = re.sub(r"[^\w.-]", "_", bundle)
    suffix = "engine" if key.compute_capability else "onnx"
    return f"{own}-{key.network}-{key.backend}-{_target(key)}-{key.precision}.{suffix}"


def _target(key: cache.Key) -> str:
    """What a file is for, without a hyphen."""
    card = re.sub(r"[^0-9A-Za-z]+", "_", f" {key.gpu}") if key.gpu else ""
    return f"{key.compute_capability or 'cpu'}{card}"


def _timings(key: cache.Key) -> str:
    """Name of the file that all builds on this GPU share: how long kernels took there."""
    version = re.sub(r"[^\w.]", "_", key.version or "")
    return f"{key.backend}-{version}-{_target(key)}.timings"


def _key(
    graphs: Graphs, name: str, backend: str, module: ModuleType | None, gpu: Gpu | str | None, max_batch: int
) -> cache.Key:
    return cache.Key(
        network=name,
        onnx_sha256=graphs.source(name)[1],
        backend=backend,
        version=INT8_SCHEME if module is None else str(module.__version__),
        compute_capability=gpu.compute_capability if isinstance(gpu, Gpu) else gpu,
        gpu=gpu.model if isinstance(gpu, Gpu) and module is not None and not builds_for_named(module) else None,
        precision=graphs.precision,
        max_batch=None if module is None else max_batch,
        sizes=None if module is None else words(graphs.bundle.input),
        calibration=graphs.calibration,
    )


def _build_once(
    file: Path,
    key: cache.Key,
    module: ModuleType | None,
    graphs: Graphs,
    say: Callable[[str], object],
    progress: Progress | None,
) -> None:
    with cache.lock(file, say):
        reason = cache.find(file, key)
        if reason is None:
            return  # another process has built it while this one waited
        say(f"building {file}: {reason}")
        begun = time.perf_counter()
        graph = graphs.graph(key.network)
        facts: dict[str, Any] = {"float32_nodes": graph.kept}
        if module is None:
            data = graph.data
        else:
            assert key.compute_capability is not None
            assert key.max_batch is not None
            source, timings = graphs.source(key.network)[0], file.with_name(_timings(key))
            ranges = partial(profiles, sizes=graphs.bundle.input, max_batch=key.max_batch)
            built = build(module, source, graph.data, key.compute_capability, ranges, progress, read_own(timings))
            data = built.data
            facts |= {"tensors": built.tensors, "profiles": built.profiles}
            if built.timings:
                cache.store_private(timings, built.timings)
        facts["build_seconds"] = round(time.perf_counter() - begun, 2)
        cache.store(file, replace(key, calibration=graphs.rests_on(key.network)), data, facts)


def facts(file: Path) -> Mapping[str, Any]:
    """What the JSON beside an engine file says of it."""
    content: Mapping[str, Any] = cache.read_sidecar(file)["facts"]
    return content
