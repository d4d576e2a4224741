"""TensorRT for RTX compiles an engine's kernels when it first runs: what it compiled, kept in a file for next time."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BufferedWriter
from pathlib import Path
from typing import Any

from coop_perception.engines.private_files import distrusted, open_own


class RtxCache:
    """The runtime cache of one engine, in a file beside it, and the configuration of its execution contexts.

    What the file holds for another GPU, driver or version is refused by TensorRT, and replaced by `save`.

    Args:
        module: tensorrt_rtx.
        engine: deserialised.
        path: the engine's file.
        say: gets a line where the cache cannot be read or written.
    """

    def __init__(self, module: Any, engine: Any, path: Path, say: Callable[[str], object]) -> None:
        self._path, self._say = path.with_name(path.name + ".kernels"), say
        self._saved = self._read()
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Else kernels for the shape are compiled in the background, and a graph captured before keeps the slow ones.
        eager = module.DynamicShapesKernelSpecializationStrategy.EAGER
        self.config.dynamic_shapes_kernel_specialization_strategy = eager
        self._cache = self.config.create_runtime_cache()
        if self._saved:
            self._cache.deserialize(self._saved)
        self.config.set_runtime_cache(self._cache)

    def _read(self) -> bytes:
        if reason := distrusted(self._path):
            self._say(f"{self._path}: compiled kernels are not taken and are compiled again: {reason}")
            return b""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._say(f"{self._path}: compiled kernels cannot be read and are compiled again: {error}")
            return b""

    def save(self) -> None:
        """Write the file if there is more in the cache than in it."""
        held = self._cache.serialize()
        content = bytes(held) if held is not None else b""
        if not content or content == self._saved:
            return
        self._saved = content
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            temporary.unlink(missing_ok=True)
            with BufferedWriter(open_own(temporary, os.O_EXCL)) as file:
                file.write(content)
            temporary.replace(self._path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            self._say(f"{self._path}: compiled kernels cannot be kept for the next start: {error}")
