"""TensorRT without a GPU, beside fake_cuda: an "engine file" is an ONNX file, and ONNX Runtime computes.

Only what the product uses is there, by the names of the real modules (which a test compares).
"""

from __future__ import annotations

import ctypes
import enum
import functools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
from fake_cuda import FakeCuda

MAX_BATCH = 4
SCRATCH = 3
"""Bytes for each number of the inputs."""
KERNELS = b"compiled"
TYPES = {"tensor(uint8)": ("UINT8", np.uint8), "tensor(float)": ("FLOAT", np.float32)}


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True


TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)
DynamicShapesKernelSpecializationStrategy = enum.Enum("DynamicShapesKernelSpecializationStrategy", "LAZY EAGER NONE")


class FakeTensorRt:
    """Stands for the module `tensorrt`, or with `rtx` for `tensorrt_rtx`.

    refuse: what fails, out of "context", "shape", "run", "capture", "address", "profile". contexts: how many were made.
    enqueued: how often execute_async_v3 was called. profiles: of dimensions that are dynamic, by their ONNX names, the
    least and the largest size.
    """

    __version__ = "10.3.0"

    def __init__(self, cuda: FakeCuda, rtx: bool = False) -> None:
        self.cuda, self.refuse, self.contexts, self.enqueued = cuda, set[str](), 0, 0
        sizes = {"H": (32, 64), "W": (32, 128), "H/4": (8, 16), "W/4": (8, 32), "h": (8, 64), "w": (8, 128)}
        self.profiles: list[dict[str, tuple[int, int]]] = [{"N": (1, 1), **sizes}, {"N": (2, MAX_BATCH), **sizes}]
        self.ILogger, self.TensorIOMode = ILogger, TensorIOMode
        self.ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
        if rtx:
            self.IRuntimeCache = _RuntimeCache
            self.DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        assert logger.ready, "the logger's own constructor was not called"
        self.logger = logger
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._deserialize(content))

    def _deserialize(self, content: bytes) -> Any:
        try:
            session = _session(content)
        except Exception:
            self.logger.log(Severity.ERROR, "magicTag assertion failed")
            self.logger.log(Severity.INFO, "nobody asked")
            return None
        return (_RtxEngine if hasattr(self, "IRuntimeCache") else _Engine)(self, session)


@functools.cache
def _session(content: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(content, options)


class _Engine:
    def __init__(self, module: FakeTensorRt, session: ort.InferenceSession) -> None:
        self.module, self.session = module, session
        self.inputs = {node.name: node for node in session.get_inputs()}
        self.nodes = {node.name: node for node in (*session.get_inputs(), *session.get_outputs())}
        self.num_io_tensors = len(self.nodes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=TYPES[self.nodes[name].type][0])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in self.nodes[name].shape)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.module.profiles)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert name in self.inputs
        ranges = self.module.profiles[profile]
        shape = self.nodes[name].shape
        return [tuple(size if isinstance(size, int) else ranges[size][end] for size in shape) for end in (0, 0, 1)]

    def create_execution_context(self, strategy: Any) -> Any:
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return self.context()

    def context(self) -> Any:
        if "context" in self.module.refuse:
            self.module.logger.log(Severity.ERROR, "no context")
            return None
        self.module.contexts += 1
        return _Context(self)


class _RtxEngine(_Engine):
    def create_runtime_config(self) -> Any:
        return _RuntimeConfig()

    def create_execution_context(self, runtime_config: Any) -> Any:
        assert runtime_config.strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.context()
        if context is not None:
            context.strategy = runtime_config.dynamic_shapes_kernel_specialization_strategy
            assert context.strategy is not None
            assert runtime_config.cache is not None
            context.is_stream_capturable = lambda stream: "user allocation" not in self.module.refuse
            context.cache = runtime_config.cache
        return context


class _RuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = strategy = cache = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> Any:
        return _RuntimeCache()

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class _RuntimeCache:
    content = b""

    def deserialize(self, content: bytes) -> bool:
        if content.startswith(KERNELS):
            self.content = content
        return content.startswith(KERNELS)

    def serialize(self) -> bytes:
        return self.content


class _Context:
    cache: Any = None
    strategy: Any = None

    def __init__(self, engine: _Engine) -> None:
        self.profile, self.captures = 0, 0
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_device_memory(self, memory: int, size: int) -> None:
        assert not self.captures, "a captured graph is of the context's state"
        self.scratch = (memory, size)

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shapes.keys() == self.engine.inputs.keys()
        return SCRATCH * sum(map(math.prod, self.shapes.values()))

    def set_optimization_profile_async(self, profile: int, stream_handle: int) -> bool:
        assert not self.captures
        if "profile" in self.engine.module.refuse:
            self.engine.module.logger.log(Severity.ERROR, "no such profile")
            return False
        self.profile, self.shapes = profile, {}
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert not self.captures, "a captured graph is of the context's state"
        least, _, most = self.engine.get_tensor_profile_shape(name, self.profile)
        fits = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        if "shape" in self.engine.module.refuse or not fits:
            self.engine.module.logger.log(Severity.ERROR, "no such shape")
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[Any, int] = {}
        for given, shape in self.shapes.items():
            sizes |= dict(zip(self.engine.nodes[given].shape, shape, strict=True))
        sizes = {f"{size}/4": length // 4 for size, length in sizes.items() if size in ("H", "W")} | sizes
        return tuple(size if isinstance(size, int) else sizes.get(size, -1) for size in self.engine.nodes[name].shape)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert name in self.engine.nodes
        assert not self.captures, "a captured graph is of the context's state"
        self.addresses[name] = memory
        return "address" not in self.engine.module.refuse

    def execute_async_v3(self, stream_handle: int) -> bool:
        module, cuda = self.engine.module, self.engine.module.cuda
        cuda._handles[stream_handle]
        module.enqueued += 1
        capturing = cuda.captures_here()
        if "run" in module.refuse or ("capture" in module.refuse and capturing):
            module.logger.log(Severity.ERROR, "cannot run")
            return False
        self.captures += capturing and not cuda.invalidated
        assert self.captures < 2, "one context, one graph"
        if self.cache is not None and self.strategy is DynamicShapesKernelSpecializationStrategy.EAGER:
            self.cache.content = KERNELS
        addresses, scratch = dict(self.addresses), self.scratch
        assert scratch[1] >= self.update_device_memory_size_for_shapes()
        shapes = {name: self.get_tensor_shape(name) for name in self.engine.nodes}

        def tensor(name: str) -> Any:
            dtype = np.dtype(TYPES[self.engine.nodes[name].type][1])
            size = int(np.prod(shapes[name])) * dtype.itemsize
            memory = (ctypes.c_uint8 * size).from_address(cuda.pointer(addresses[name], size, "device"))
            return np.frombuffer(memory, dtype).reshape(shapes[name])

        def work() -> None:
            cuda.pointer(*scratch, "device")
            feeds = {name: tensor(name) for name in self.engine.inputs}
            outputs = [node.name for node in self.engine.session.get_outputs()]
            for name, value in zip(outputs, self.engine.session.run(outputs, feeds), strict=True):
                tensor(name)[...] = value

        cuda.put(work, stream_handle)
        return True
