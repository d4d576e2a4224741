"""The modules `tensorrt` and `tensorrt_rtx`, imported when they are first asked for."""

from __future__ import annotations

import importlib
from types import ModuleType

from coop_perception.engines import EngineError
from coop_perception.engines.backends import PACKAGES


def tensorrt_module(backend: str) -> ModuleType:
    """The module of a backend.

    Raises:
        EngineError: it is not installed, or does not load.
    """
    try:
        return importlib.import_module(backend)
    except (ImportError, OSError) as error:  # OSError: a library that it brings cannot be loaded
        raise EngineError(f"{backend} is not there ({error}): pip install {PACKAGES[backend]}") from error
