"""TensorRT and TensorRT for RTX on an NVIDIA GPU: engine files, run through the CUDA runtime."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines import EngineError, Tensor, TensorSpec
from coop_perception.engines.cuda import CudaError, Resources, Stream
from coop_perception.engines.modules import made, tensorrt_module
from coop_perception.engines.rtx_cache import RtxCache
from coop_perception.engines.tensorrt_log import log_of

_DTYPES: dict[str, type[np.generic]] = {
    "UINT8": np.uint8,
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT32": np.int32,
    "INT64": np.int64,
}

Shape = tuple[int, ...]


def load(
    paths: Mapping[str, Path], backend: str, precision: str, say: Callable[[str], object]
) -> dict[str, TensorRtEngine]:
    """The engines of engine files, which share a stream and scratch memory and take each other's tensors.

    Args:
        paths: engine files by name of the network.
        backend: `tensorrt` or `tensorrt_rtx`.
        precision: what the engines were built with, in words.
        say: gets a line about what works, but not as well as it could.

    Raises:
        EngineError: a package or the GPU is missing, memory is short, or a file is of another GPU or version.
    """
    module = tensorrt_module(backend)
    shared = _Shared(module, backend, precision, say)
    try:
        shared.log.clear()
        runtime = made(f"{backend} {module.__version__}", lambda: module.Runtime(shared.log.logger), shared.log.text)
        deserialized = {name: _deserialize(shared, runtime, path) for name, path in paths.items()}
        # One scratch memory for all: they run one after the other.
        shared.scratch_size = max((engine.device_memory_size_v2 for engine in deserialized.values()), default=0)
        if shared.scratch_size:
            shared.scratch = shared.resources.device_memory(shared.scratch_size)
        engines = {name: TensorRtEngine(shared, paths[name], engine) for name, engine in deserialized.items()}
    except BaseException:
        with contextlib.suppress(CudaError):
            shared.close()
        raise
    shared.users = len(engines)
    return engines


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """Memory of the GPU that holds a tensor; valid for the engines that were loaded with the one that gave it."""

    address: int
    dtype: np.dtype[np.generic]
    shape: Shape
    shared: _Shared


class _Shared:
    """What the engines of a bundle have in common: the stream, scratch memory, inputs placed on the GPU."""

    def __init__(self, module: Any, backend: str, precision: str, say: Callable[[str], object]) -> None:
        self.module, self.backend, self.precision, self.say = module, backend, precision, say
        self.log = log_of(module)
        self.stream = Stream()
        self.resources = Resources()
        self.scratch = self.scratch_size = self.users = 0
        self._placed: dict[tuple[str, np.dtype[np.generic], Shape], tuple[NDArray[Any], int]] = {}

    def place(self, name: str, array: NDArray[Any], largest: Shape) -> DeviceTensor:
        key = (name, array.dtype, largest)
        if key not in self._placed:
            pinned = self.resources.pinned_memory((math.prod(largest),), array.dtype)
            self._placed[key] = pinned, self.resources.device_memory(pinned.nbytes)
        pinned, address = self._placed[key]
        content = pinned[: array.size].reshape(array.shape)
        np.copyto(content, array)  # a copy of earlier content may be under way: the one below comes after it
        self.stream.upload(address, content)
        return DeviceTensor(address, array.dtype, array.shape, self)

    def leave(self) -> None:
        """One engine less; the last one frees all."""
        self.users -= 1
        if not self.users:
            self.close()

    def close(self) -> None:
        try:
            self.resources.close()
        finally:
            self.stream.close()


@dataclass(slots=True)
class _Job:
    """A run with certain shapes, outputs and addresses: what is copied, and the graph of it once it was captured."""

    context: Any
    addresses: dict[str, int]
    uploads: dict[str, NDArray[Any]] = field(default_factory=dict)
    downloads: dict[str, NDArray[Any]] = field(default_factory=dict)
    graph: Any = None


class TensorRtEngine:
    """An engine (see `Engine`); made by `load`.

    The first run with a batch size, choice of outputs or tensors of the GPU is slower: it is captured as a CUDA graph,
    the copies included, which later ones launch.
    """

    def __init__(self, shared: _Shared, path: Path, engine: Any) -> None:
        self.backend, self.precision, self.device = shared.backend, shared.precision, shared.stream.gpu.name
        self._shared, self._path, self._engine = shared, path, engine
        self._resources = Resources()
        self._pinned: dict[str, NDArray[Any]] = {}
        self._memory: dict[str, int] = {}
        self._contexts: dict[tuple[Shape, ...], Any] = {}
        self._jobs: dict[Any, _Job] = {}
        self._graphs = self._open = True
        is_input = shared.module.TensorIOMode.INPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        self.inputs: Mapping[str, TensorSpec] = {n: specs[n] for n in names if engine.get_tensor_mode(n) == is_input}
        self.outputs: Mapping[str, TensorSpec] = {n: specs[n] for n in names if n not in self.inputs}
        profiles = {name: engine.get_tensor_profile_shape(name, 0) for name in self.inputs}
        self._least: dict[str, Shape] = {name: tuple(profile[0]) for name, profile in profiles.items()}
        self._largest: dict[str, Shape] = {name: tuple(profile[2]) for name, profile in profiles.items()}
        self._cache = (
            RtxCache(shared.module, engine, path, shared.say) if hasattr(shared.module, "IRuntimeCache") else None
        )
        self._spare = self._new_context()
        self._shape_context(self._spare, tuple(self._largest.values()))
        for name in self.outputs:
            shape = tuple(self._spare.get_tensor_shape(name))
            if any(size < 0 for size in shape):
                raise EngineError(f"{path}: how large output {name!r} is depends on the input's values: not supported")
            self._largest[name] = shape

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        self._check_open()
        self._check_input(name, array)
        with self._named():
            return self._shared.place(name, array, self._largest[name])

    def allocate(self, name: str, batch: int) -> Tensor:
        self._check_open()
        spec, largest = self.outputs[name], self._largest[name]
        if not 1 <= batch <= largest[0]:
            raise EngineError(f"{self._path}: a batch of {batch} was asked for, it was built for 1 to {largest[0]}")
        shape = (batch, *largest[1:])
        with self._named():
            # Not this engine's own: who reads it may be closed later.
            address = self._shared.resources.device_memory(math.prod(shape) * spec.dtype.itemsize)
        return DeviceTensor(address, spec.dtype, shape, self._shared)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        self._check_open()
        targets = {name: into[name] for name in wanted if name in into} if into else {}
        if set(feeds) != set(self.inputs) or not set(wanted) <= set(self.outputs):
            raise EngineError(
                f"{self._path}: given {sorted(feeds)} and asked for {sorted(wanted)}, but it takes "
                f"{sorted(self.inputs)} and gives {sorted(self.outputs)}"
            )
        for name in self.inputs:
            self._check_input(name, feeds[name])
        shapes = tuple(feeds[name].shape for name in self.inputs)
        resident = {
            name: tensor.address
            for name, tensor in (*feeds.items(), *targets.items())
            if isinstance(tensor, DeviceTensor)
        }
        key = (shapes, frozenset(wanted), frozenset(resident.items()))
        with self._named():
            job = self._jobs.get(key) or self._job(shapes, wanted, resident)
            for name, tensor in targets.items():
                self._check_target(name, tensor, tuple(job.context.get_tensor_shape(name)))
            for name, pinned in job.uploads.items():
                np.copyto(pinned, feeds[name])
            try:
                if job.graph is None:
                    self._enqueue(job)
                else:
                    self._shared.stream.launch(job.graph)
            finally:  # else a failed run's copies go on beside the next one
                self._shared.stream.wait()
            if key not in self._jobs:
                self._jobs[key] = job
                self._capture(job)
        for name, tensor in targets.items():
            if name in job.downloads:
                np.copyto(tensor, job.downloads[name])
        return {name: targets[name] if name in targets else job.downloads[name].copy() for name in wanted}

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._jobs.clear()
        self._contexts.clear()
        self._spare = self._cache = self._engine = None
        try:
            self._resources.close()
        finally:
            self._shared.leave()

    def __del__(self) -> None:
        # A bundle that another one replaced is dropped, not closed: a last batch may run through it.
        if getattr(self, "_open", False):
            with contextlib.suppress(CudaError):
                self.close()

    def _spec(self, name: str) -> TensorSpec:
        dtype = self._engine.get_tensor_dtype(name).name
        if dtype not in _DTYPES:
            raise EngineError(f"{self._path}: tensor {name!r} is {dtype}, expected one of {', '.join(_DTYPES)}")
        shape = tuple(None if size < 0 else size for size in self._engine.get_tensor_shape(name))
        return TensorSpec(name, np.dtype(_DTYPES[dtype]), shape)

    def _new_context(self) -> Any:
        shared = self._shared
        shared.log.clear()
        if self._cache:
            context = self._engine.create_execution_context(runtime_config=self._cache.config)
        else:
            strategy = shared.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = self._engine.create_execution_context(strategy=strategy)
        if context is None:
            raise EngineError(f"{self._path}: {shared.backend} cannot prepare it to run: {shared.log.text()}")
        if shared.scratch_size:
            context.set_device_memory(shared.scratch, shared.scratch_size)
        return context

    def _shape_context(self, context: Any, shapes: tuple[Shape, ...]) -> None:
        self._shared.log.clear()
        for name, shape in zip(self.inputs, shapes, strict=True):
            if not context.set_input_shape(name, shape):
                raise EngineError(f"{self._path}: input {name!r} cannot be {shape}: {self._shared.log.text()}")

    def _context(self, shapes: tuple[Shape, ...]) -> Any:
        """One for each choice of shapes: a captured graph holds for the state that its context is in."""
        if shapes not in self._contexts:
            context, self._spare = self._spare or self._new_context(), None
            self._shape_context(context, shapes)
            self._contexts[shapes] = context
        return self._contexts[shapes]

    def _job(self, shapes: tuple[Shape, ...], wanted: Sequence[str], resident: Mapping[str, int]) -> _Job:
        job = _Job(self._context(shapes), dict(resident))
        for name in (*self.inputs, *self.outputs):
            if name in resident:
                continue
            job.addresses[name] = self._own_memory(name)
            if name in self.inputs or name in wanted:
                copies = job.uploads if name in self.inputs else job.downloads
                copies[name] = self._own_pinned(name, tuple(job.context.get_tensor_shape(name)))
        return job

    def _own_memory(self, name: str) -> int:
        if name not in self._memory:
            spec = self.inputs.get(name) or self.outputs[name]
            self._memory[name] = self._resources.device_memory(math.prod(self._largest[name]) * spec.dtype.itemsize)
        return self._memory[name]

    def _own_pinned(self, name: str, shape: Shape) -> NDArray[Any]:
        if name not in self._pinned:
            spec = self.inputs.get(name) or self.outputs[name]
            self._pinned[name] = self._resources.pinned_memory((math.prod(self._largest[name]),), spec.dtype)
        return self._pinned[name][: math.prod(shape)].reshape(shape)

    def _enqueue(self, job: _Job) -> None:
        stream, log = self._shared.stream, self._shared.log
        for name, address in job.addresses.items():
            job.context.set_tensor_address(name, address)
        for name, pinned in job.uploads.items():
            stream.upload(job.addresses[name], pinned)
        log.clear()
        if not job.context.execute_async_v3(int(stream)):
            raise EngineError(f"{self._path}: {self.backend} cannot run it: {log.text()}")
        for name, pinned in job.downloads.items():
            stream.download(pinned, job.addresses[name])

    def _capture(self, job: _Job) -> None:
        """Make later runs of a job, which ran once, the launch of a graph; where that is refused, say so once."""
        stream = self._shared.stream
        if self._graphs:
            try:
                # TensorRT has no such question to ask: it only refuses.
                if hasattr(job.context, "is_stream_capturable") and not job.context.is_stream_capturable(int(stream)):
                    raise EngineError("TensorRT takes memory of its own while it runs")
                job.graph = stream.capture(lambda: self._enqueue(job), self._resources)
            except EngineError as error:
                self._graphs = False
                self._shared.say(f"{self._path}: runs without a CUDA graph, which costs some time per frame: {error}")
        if self._cache:
            self._cache.save()

    def _check_open(self) -> None:
        if not self._open:
            raise EngineError(f"{self._path}: the engine was closed")

    def _check_input(self, name: str, tensor: Tensor) -> None:
        spec, least, largest = self.inputs[name], self._least[name], self._largest[name]
        fits = len(tensor.shape) == len(least) and all(
            low <= size <= high for low, size, high in zip(least, tensor.shape, largest, strict=True)
        )
        if tensor.dtype != spec.dtype or not fits:
            raise EngineError(
                f"{self._path}: input {name!r} is {tensor.dtype} {list(tensor.shape)}, the engine was built for "
                f"{spec.dtype} {list(least)} to {list(largest)}"
            )
        self._check_ours(name, tensor)

    def _check_target(self, name: str, tensor: Tensor, shape: Shape) -> None:
        spec = self.outputs[name]
        if tensor.dtype != spec.dtype or tensor.shape != shape:
            raise EngineError(
                f"{self._path}: output {name!r} is {spec.dtype} {list(shape)}, it was given {tensor.dtype} "
                f"{list(tensor.shape)} to write into"
            )
        self._check_ours(name, tensor)

    def _check_ours(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, DeviceTensor) and tensor.shared is not self._shared:
            raise EngineError(f"{self._path}: tensor {name!r} is memory of engines that were not loaded with this one")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except CudaError as error:
            raise EngineError(f"{self._path}: {error}") from error


def _deserialize(shared: _Shared, runtime: Any, path: Path) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error}") from error
    shared.log.clear()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(
            f"{path}: {shared.backend} {shared.module.__version__} cannot load it on {shared.stream.gpu.name}, compute "
            f"capability {shared.stream.gpu.compute_capability}: {shared.log.text()}. An engine file is good for one "
            "version and kind of GPU: build it again with build_engines"
        )
    return engine
