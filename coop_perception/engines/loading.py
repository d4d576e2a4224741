"""A bundle's networks as engines of the backend that was asked for, or of the best one that works here."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from coop_perception.contracts import Bundle
from coop_perception.engines import Engine, EngineError, close_all
from coop_perception.engines.backends import AUTO, BACKENDS, MAX_BATCH, ON_CPU, PACKAGES, PRECISIONS, TENSORRT
from coop_perception.engines.cache import default_directory
from coop_perception.engines.cpu_choice import faster_on_cpu
from coop_perception.engines.cuda import GpuLostError
from coop_perception.engines.modules import cpu_module
from coop_perception.shown import plain

Say = Callable[[str], object]
Try = Callable[[Mapping[str, Engine]], object]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is to run the networks.

    backend: one of BACKENDS, or AUTO. precision: one of the backend's, or AUTO. threads: on the CPU; 0: one per core.
    cache: folder of what is built or measured once; None: `default_directory`'s. max_batch: the most frames of one run.
    network_height: of the image that the choice is measured and engines are warmed up with; 0: the bundle's.
    """

    backend: str = AUTO
    precision: str = AUTO
    threads: int = 0
    cache: Path | None = None
    max_batch: int = MAX_BATCH
    network_height: int = 0


def load_engines(
    bundle: Bundle,
    networks: Collection[str],
    settings: EngineSettings,
    say: Say = lambda _: None,
    try_out: Try = lambda _: None,
) -> dict[str, Engine]:
    """Load these networks of a bundle.

    Where AUTO is asked for: TensorRT, then ONNX Runtime on a GPU, then the faster one on the CPU, if OpenVINO in INT8
    where that is built, costs little and is faster still. A named backend is taken or nothing is.

    Args:
        say: gets a line about what takes long, and one that says which backend was taken and why no better one was.
        try_out: given a backend's engines before they are taken; raises EngineError where they do not run after all,
            as memory may be short only then.

    Raises:
        EngineError: the backend that was asked for is not installed, has no such precision, or cannot load a network.
    """
    candidates = _candidates(settings)
    on_gpu, refused = _onnxruntime_on_gpu(candidates, settings)
    why = [f"onnxruntime not on a GPU: {refused}"] if refused else []

    def attempt(backend: str, cuda: bool = False, int8: bool = False) -> dict[str, Engine]:
        try:
            engines = _load(backend, bundle, networks, settings, say, cuda, int8)
        except EngineError:
            raise
        except (
            RuntimeError,
            OSError,
        ) as error:  # libraries raise them bare where a driver or another library is missing
            raise EngineError(
                f"{backend} does not work here ({plain(error, 200)}): is all of pip install {PACKAGES[backend]} there?"
            ) from error
        try:
            try_out(engines)
        except BaseException:
            close_all(engines)
            raise
        return engines

    if settings.backend == AUTO:
        engines = _best(candidates, bundle, settings, attempt, on_gpu, why, say)
    else:
        engines = attempt(settings.backend, on_gpu)
    one = next(iter(engines.values()))
    say("; ".join([f"backend {one.backend}, {one.precision}, on {one.device}", *why]))
    return engines


def _best(
    candidates: Collection[str],
    bundle: Bundle,
    settings: EngineSettings,
    attempt: Callable[..., dict[str, Engine]],
    on_gpu: bool,
    why: list[str],
    say: Say,
) -> dict[str, Engine]:
    """The engines; `why` gets why they are these."""

    def tried(backend: str, words: str, **how: bool) -> dict[str, Engine] | None:
        try:
            return attempt(backend, **how)
        except GpuLostError:
            raise  # nothing in this process can use the GPU again, but a new process can
        except EngineError as error:
            why.append(f"not {words}: {error}")
            return None

    why += [f"{backend} is not installed" for backend in candidates if not installed(backend)]
    able = [backend for backend in candidates if installed(backend)]
    for backend in able:
        if backend in TENSORRT and (engines := tried(backend, backend)):
            return engines
    if on_gpu and (engines := tried("onnxruntime", "onnxruntime on the GPU", cuda=True)):
        return engines
    on_cpu = [backend for backend in able if backend in ON_CPU]
    first = ""
    if len(on_cpu) > 1 and settings.precision in (AUTO, "fp32"):
        try:
            cache = settings.cache or default_directory(say)
            first, reason = faster_on_cpu(bundle, settings.threads, cache, load_file, settings.network_height)
            why.insert(0, reason)
        except EngineError as error:
            why.append(f"which is faster on the CPU cannot be measured: {error}")
    int8 = first == "openvino" and settings.precision == AUTO
    if int8 and (engines := tried(first, "in int8", int8=True)):
        return engines
    for backend in sorted(on_cpu, key=lambda one: one != first):
        if engines := tried(backend, backend):
            return engines
    raise EngineError(f"no backend runs the bundle in precision {settings.precision} here: {'; '.join(why)}")


def _candidates(settings: EngineSettings) -> list[str]:
    """The backends to look at. Raises EngineError where there is none, or the one asked for is not installed."""
    if settings.backend not in (AUTO, *BACKENDS):
        raise EngineError(f"backend is {settings.backend!r}, expected one of {', '.join((AUTO, *BACKENDS))}")
    named = list(BACKENDS) if settings.backend == AUTO else [settings.backend]
    having = [backend for backend in named if settings.precision in (AUTO, *BACKENDS[backend])]
    if not having:
        known = PRECISIONS if settings.backend == AUTO else BACKENDS[settings.backend]
        raise EngineError(
            f"precision is {settings.precision!r}, backend {settings.backend} has {', '.join((AUTO, *known))}"
        )
    if not any(installed(backend) for backend in having):
        packages = " or ".join(PACKAGES[backend] for backend in having)
        raise EngineError(f"backend {' or '.join(having)} is not installed; pip install {packages}, or take another")
    return having


def installed(backend: str) -> bool:
    return find_spec(backend) is not None


def _load(
    backend: str,
    bundle: Bundle,
    networks: Collection[str],
    settings: EngineSettings,
    say: Say,
    cuda: bool,
    int8: bool,
) -> dict[str, Engine]:
    """int8: unasked, where it is built and costs little."""
    precision = BACKENDS[backend][0] if settings.precision == AUTO else settings.precision
    precision = "int8" if int8 else precision
    if backend in TENSORRT:
        return _load_tensorrt(backend, bundle, networks, precision, settings, say)
    paths = {name: bundle.networks[name].path for name in networks}
    if precision == "int8":
        from coop_perception.engines.files import built_for_cpu, ensure, handed_over

        given = [handed_over(bundle.directory)]
        if int8:
            paths = built_for_cpu(bundle, networks, backend, settings.cache or default_directory(say), given)
        else:
            paths = ensure(bundle, networks, backend, None, precision, settings.cache, say, also=given)
    engines: dict[str, Engine] = {}
    try:
        for name, path in paths.items():
            begun = time.perf_counter()
            engines[name] = load_file(backend, path, settings.threads, precision, cuda, settings.max_batch)
            say(f"loaded {name} in {time.perf_counter() - begun:.1f} s")
        if precision == "int8":
            from coop_perception.engines.int8_check import check_int8

            exact = partial(load_file, backend, threads=settings.threads, precision="fp32")
            check_int8(bundle, engines, paths, settings.cache or default_directory(say), exact, say, unasked=int8)
    except BaseException:
        close_all(engines)
        raise
    return engines


def _load_tensorrt(
    backend: str, bundle: Bundle, networks: Collection[str], precision: str, settings: EngineSettings, say: Say
) -> dict[str, Engine]:
    from coop_perception.engines.cuda import gpu
    from coop_perception.engines.files import ensure, handed_over
    from coop_perception.engines.tensorrt import load

    given = [handed_over(bundle.directory)]
    files = ensure(bundle, networks, backend, gpu(), precision, settings.cache, say, settings.max_batch, also=given)
    return {**load(files, backend, precision, say, settings.cache or default_directory(say))}


def load_file(
    backend: str, path: Path, threads: int, precision: str, cuda: bool = False, cameras: int = MAX_BATCH
) -> Engine:
    """An ONNX file as an engine of a backend of ON_CPU; with `cuda` ONNX Runtime's on the first GPU. `cameras`: so many
    sizes of frames may come in turn.

    Raises:
        EngineError: the backend does not load, or as the backends' engines.
    """
    module = cpu_module(backend)
    engine: Engine
    if backend == "openvino":
        engine = module.OpenVinoEngine(path, threads, precision, max(cameras, MAX_BATCH))
    else:
        engine = module.OnnxRuntimeEngine(path, threads, precision, cuda)
    return engine


def _onnxruntime_on_gpu(candidates: Collection[str], settings: EngineSettings) -> tuple[bool, str]:
    """Whether ONNX Runtime, where it is to be looked at, runs on a GPU; if not though its package could, why."""
    fits = "onnxruntime" in candidates and settings.precision in (AUTO, "fp32") and installed("onnxruntime")
    try:
        return fits and cpu_module("onnxruntime").has_cuda(), ""
    except EngineError as error:
        return False, str(error)
