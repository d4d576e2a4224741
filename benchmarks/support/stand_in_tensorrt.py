"""A TensorRT made of copying kernels, for a GPU without TensorRT: the product drives it as the real one, and what must
come out is known.

Two networks of changing batch, height and width. An "engine file" holds the network's name.

    segmenter    image uint8 [N,H,W,3] → mask uint8 [N,H,W], the first channel; scores float [N,2,H,W], the other two
    restoration  frame uint8 [N,h,w,3], scores, presence float [N,4] → restored uint8 [N,h,w,3], the frame inverted;
                 guide uint8 [N,H,W], the first of the scores; level float [N,4], presence
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from support.kernels import Kernels

MAX_BATCH = 4
SCRATCH = 1 << 20
"""Bytes."""
TENSORS: Mapping[str, tuple[str, tuple[str | int, ...]]] = {
    "image": ("uint8", ("N", "H", "W", 3)),
    "frame": ("uint8", ("N", "h", "w", 3)),
    "presence": ("float32", ("N", 4)),
    "mask": ("uint8", ("N", "H", "W")),
    "guide": ("uint8", ("N", "H", "W")),
    "scores": ("float32", ("N", 2, "H", "W")),
    "restored": ("uint8", ("N", "h", "w", 3)),
    "level": ("float32", ("N", 4)),
}
View = Callable[[Any], Any]


@dataclass(frozen=True)
class Step:
    """One kernel: where from, where to, and whether bits are inverted."""

    source: str
    output: str
    of_source: View = lambda array: array
    of_output: View = lambda array: array
    invert: bool = False


NETWORKS: Mapping[str, tuple[tuple[str, ...], tuple[Step, ...]]] = {
    "segmenter": (
        ("image",),
        (
            Step("image", "mask", lambda image: image[..., 0]),
            Step("image", "scores", lambda image: image[..., 1], lambda scores: scores[:, 0]),
            Step("image", "scores", lambda image: image[..., 2], lambda scores: scores[:, 1]),
        ),
    ),
    "restoration": (
        ("frame", "scores", "presence"),
        (
            Step("frame", "restored", invert=True),
            Step("scores", "guide", lambda scores: scores[:, 0]),
            Step("presence", "level"),
        ),
    ),
}


def expected(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What both networks, one after the other, give of image, frame and presence."""
    image = feeds["image"]
    return {
        "mask": image[..., 0],
        "guide": image[..., 1],
        "scores": np.stack([image[..., 1], image[..., 2]], 1).astype(np.float32),
        "restored": 255 - feeds["frame"],
        "level": feeds["presence"],
    }


class _Logger:
    Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


_MODE = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")


def stand_in(kernels: Kernels, height: int, width: int) -> ModuleType:
    """For the module `tensorrt`; `nap_ms` of it is how long each run takes besides.

    Args:
        kernels: that compute.
        height, width: the largest of images and frames.
    """
    module: Any = ModuleType("tensorrt")
    module.largest = {"H": height, "W": width, "h": height, "w": width}
    module.__version__, module.ILogger, module.TensorIOMode, module.nap_ms = "10.3.0", _Logger, _MODE, 0.0
    module.ExecutionContextAllocationStrategy = enum.Enum("Strategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED")
    module.Runtime = lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda content: _Engine(module, kernels, content.decode())
    )
    made: ModuleType = module
    return made


class _Engine:
    num_optimization_profiles = 2

    def __init__(self, module: Any, kernels: Kernels, name: str) -> None:
        self.module, self.kernels = module, kernels
        self.inputs, self.steps = NETWORKS[name]
        self.names = list(dict.fromkeys([*self.inputs, *(step.output for step in self.steps)]))
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Any:
        return _MODE.INPUT if name in self.inputs else _MODE.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name={"uint8": "UINT8", "float32": "FLOAT"}[TENSORS[name][0]])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in TENSORS[name][1])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        least, most = ((1, 1), (2, MAX_BATCH))[profile]
        largest = self.module.largest

        def shape(batch: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
            return tuple(s if isinstance(s, int) else batch if s == "N" else sizes[s] for s in TENSORS[name][1])

        return [shape(least, dict.fromkeys(largest, 1)), shape(most, largest), shape(most, largest)]

    def create_execution_context(self, strategy: Any) -> _Context:
        return _Context(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._arrays: dict[tuple[str, int, tuple[int, ...]], Any] = {}

    def set_device_memory(self, memory: int, size: int) -> None:
        assert size >= SCRATCH

    def update_device_memory_size_for_shapes(self) -> int:
        return SCRATCH

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[str | int, int] = {}
        for given, shape in self.shapes.items():
            sizes |= dict(zip(TENSORS[given][1], shape, strict=True))
        return tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in TENSORS[name][1])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        if engine.module.nap_ms:
            engine.kernels.sleep(engine.module.nap_ms, stream)
        for step in engine.steps:
            to, source = step.of_output(self._array(step.output)), step.of_source(self._array(step.source))
            engine.kernels.copy(to, source, step.invert, stream)
        return True

    def _array(self, name: str) -> Any:
        """Made in a first run, for libraries ask the runtime about the memory, which a capture may forbid."""
        key = (name, self.addresses[name], self.get_tensor_shape(name))
        if key not in self._arrays:
            self._arrays[key] = self.engine.kernels.array(key[1], key[2], TENSORS[name][0])
        return self._arrays[key]
