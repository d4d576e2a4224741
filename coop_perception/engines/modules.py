"""Backends' Python modules, imported when they are first asked for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from coop_perception.engines import EngineError
from coop_perception.engines.backends import PACKAGES

OLDEST_TENSORRT = (10, 3)


def cpu_module(backend: str) -> ModuleType:
    """The module of this package that runs a backend of ON_CPU; its `VERSION` is the backend's.

    Raises:
        EngineError: what it needs is not installed, or does not load.
    """
    return _imported(f"coop_perception.engines.{backend}", backend)


def tensorrt_module(backend: str) -> ModuleType:
    """The module `tensorrt` or `tensorrt_rtx`.

    Raises:
        EngineError: it is not installed, does not load, or is too old.
    """
    module = _imported(backend, backend)
    found = tuple(int(number) for number in re.findall(r"\d+", module.__version__)[:2])
    if backend == "tensorrt" and found < OLDEST_TENSORRT:
        raise EngineError(f"tensorrt {module.__version__} is installed: pip install {PACKAGES[backend]}")
    return module


def made(what: str, make: Callable[[], Any], why: Callable[[], str]) -> Any:
    """What `make` makes, one of TensorRT's objects. It raises TypeError where CUDA cannot be initialised.

    Raises:
        EngineError: it cannot be made, and why.
    """
    try:
        return make()
    except TypeError as error:
        raise EngineError(f"{what} does not start: {why()}") from error


def _imported(name: str, backend: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # ImportError, OSError of a library that it brings, a bare RuntimeError without a driver
        raise EngineError(f"{backend} is not there ({error}): pip install {PACKAGES[backend]}") from error
