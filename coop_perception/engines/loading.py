"""A bundle's networks as engines of the backend that was asked for, or of the best one that works here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from coop_perception.bundle import Bundle
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.cpu_choice import faster_on_cpu

AUTO = "auto"
PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("fp32",),
    "openvino": ("fp32", "bf16"),
}
"""What each backend has; its first one is what `auto` means there."""
PACKAGES: Mapping[str, str] = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
"""The module, and the package to install, that a backend needs."""

Say = Callable[[str], object]


def say_nothing(_: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is to run the networks.

    backend: one of PRECISIONS, or AUTO. precision: one of the backend's, or AUTO. threads: on the CPU; 0: one per core.
    cache: folder of what is measured or built once; None: `cache_directory`'s.
    """

    backend: str = AUTO
    precision: str = AUTO
    threads: int = 0
    cache: Path | None = None


def load_engines(
    bundle: Bundle, networks: Collection[str], settings: EngineSettings, say: Say = say_nothing
) -> dict[str, Engine]:
    """Load these networks of a bundle.

    Args:
        say: gets a line per network, and one that says which backend was taken and why no better one was.

    Raises:
        EngineError: the backend that was asked for is not installed, has no such precision or cannot load a network.
    """
    backend, why = chosen(bundle, settings)
    precision = PRECISIONS[backend][0] if settings.precision == AUTO else settings.precision
    say(f"backend {backend}, {precision}{why}")
    engines: dict[str, Engine] = {}
    try:
        for name in networks:
            begun = time.perf_counter()
            engines[name] = load_on_cpu(backend, bundle.networks[name].path, settings.threads, precision)
            say(f"loaded {name} in {time.perf_counter() - begun:.1f} s")
    except BaseException:
        for engine in engines.values():
            engine.close()
        raise
    return engines


def chosen(bundle: Bundle, settings: EngineSettings) -> tuple[str, str]:
    """The backend to take, and why where that is to be said."""
    check(settings)
    if settings.backend != AUTO:
        return settings.backend, ""
    able = [
        name for name, precisions in PRECISIONS.items() if settings.precision in (AUTO, *precisions) and installed(name)
    ]
    missing = "".join(f"; {name} is not installed" for name in PRECISIONS if not installed(name))
    if len(able) == 1:
        return able[0], missing
    backend, why = faster_on_cpu(bundle, settings.threads, settings.cache or cache_directory(), load_on_cpu)
    return backend, f": {why}{missing}"


def check(settings: EngineSettings) -> None:
    """Raises EngineError where there is no such backend or precision, or the backend is not installed."""
    if settings.backend not in (AUTO, *PRECISIONS):
        raise EngineError(f"backend is {settings.backend!r}, expected one of {', '.join((AUTO, *PRECISIONS))}")
    known = PRECISIONS if settings.backend == AUTO else {settings.backend: PRECISIONS[settings.backend]}
    having = [name for name, precisions in known.items() if settings.precision in (AUTO, *precisions)]
    if not having:
        names = dict.fromkeys(name for precisions in known.values() for name in precisions)
        raise EngineError(
            f"precision is {settings.precision!r}, backend {settings.backend} has {', '.join((AUTO, *names))}"
        )
    if not any(installed(name) for name in having):
        packages = " or ".join(PACKAGES[name] for name in having)
        raise EngineError(f"backend {' or '.join(having)} is not installed; pip install {packages}, or take another")


def installed(backend: str) -> bool:
    return find_spec(PACKAGES[backend]) is not None


def load_on_cpu(backend: str, path: Path, threads: int, precision: str) -> Engine:
    """Raises EngineError, as the backends' engines."""
    if backend == "openvino":
        from coop_perception.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(path, threads, precision)
    from coop_perception.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine(path, threads, precision)


def cache_directory() -> Path:
    """$COOP_PERCEPTION_CACHE, else coop_perception in $XDG_CACHE_HOME, else in ~/.cache."""
    named = os.environ.get("COOP_PERCEPTION_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coop_perception"
