"""TensorRT for RTX compiles an engine's kernels when it first runs: what it compiled, kept in a file for next time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coop_perception.engines.cuda import Gpu
from coop_perception.engines.private_files import make_folder, read_trusted, write_own


class RtxCache:
    """The runtime cache of one engine, in a file beside it, and the configurations of its execution contexts.

    The file is of one model of GPU. What it holds for another driver or version is refused by TensorRT, and replaced by
    `save`.

    Args:
        module: tensorrt_rtx.
        engine: deserialised.
        path: the engine's file.
        gpu: what it runs on.
        cache: folder of the file where the engine's own cannot be written to; None: there is none.
        say: gets a line where the cache cannot be read or written.
    """

    def __init__(
        self, module: Any, engine: Any, path: Path, gpu: Gpu, cache: Path | None, say: Callable[[str], object]
    ) -> None:
        name = f"{path.name}.{re.sub('[^0-9A-Za-z]+', '_', gpu.model)}.kernels"
        self._module, self._engine, self._say = module, engine, say
        self._paths = [path.with_name(name), *([cache / name] if cache and cache != path.parent else [])]
        self._saved = next(filter(None, map(self._read, self._paths)), b"")
        self._cache = engine.create_runtime_config().create_runtime_cache()
        if self._saved:
            self._cache.deserialize(self._saved)

    def config(self, fixed: bool) -> Any:
        """Of a new execution context; `fixed`: for one choice of shapes."""
        module, config = self._module, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(module.ExecutionContextAllocationStrategy.USER_MANAGED)
        # Kernels for a choice of shapes are compiled before the first run with it, or a graph captured then keeps the
        # slower ones; or in the background, so that shapes that come while frames are served hold nothing up.
        strategies = module.DynamicShapesKernelSpecializationStrategy
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER if fixed else strategies.LAZY
        config.set_runtime_cache(self._cache)
        return config

    def _read(self, path: Path) -> bytes:
        try:
            return read_trusted(path)
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._say(f"{path}: compiled kernels are not taken and are compiled again: {error.strerror}")
            return b""

    def save(self) -> None:
        """Write the file if there is more in the cache than in it."""
        held = self._cache.serialize()
        content = bytes(held) if held is not None else b""
        if not content or content == self._saved:
            return
        self._saved = content
        failures = []
        for path in self._paths:
            try:
                make_folder(path.parent)
                write_own(path, content)
            except OSError as error:
                failures.append(f"{path}: {error.strerror}")
            else:
                return
        self._say(f"compiled kernels cannot be kept for the next start: {'; '.join(failures)}")
