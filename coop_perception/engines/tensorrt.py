"""TensorRT and TensorRT for RTX on an NVIDIA GPU: engine files, run through the CUDA runtime."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines import EngineError, Tensor, TensorSpec
from coop_perception.engines.cuda import CudaError, GpuLostError, Resources, Stream
from coop_perception.engines.exclusive import exclusive, free
from coop_perception.engines.gpu_memory import Place, Shape, places
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


def load(
    paths: Mapping[str, Path], backend: str, precision: str, say: Callable[[str], object], cache: Path | None = None
) -> dict[str, TensorRtEngine]:
    """The engines of engine files, which share a stream and memory: tensors of one name lie in one place.

    Args:
        paths: engine files by name of the network.
        backend: `tensorrt` or `tensorrt_rtx`.
        precision: what the engines were built with, in words.
        say: gets a line about what works, but not as well as it could.
        cache: folder of what is compiled at run time where an engine's own cannot be written to.

    Raises:
        EngineError: a package or the GPU is missing, memory is short, or a file is of another GPU or version.
    """
    module = tensorrt_module(backend)
    with exclusive():
        shared = _Shared(module, backend, precision, say, cache)
        try:
            shared.log.clear()
            runtime = made(
                f"{backend} {module.__version__}", lambda: module.Runtime(shared.log.logger), shared.log.text
            )
            deserialized = {name: _deserialize(shared, runtime, path) for name, path in paths.items()}
            # One scratch memory for all: they run one after the other.
            shared.scratch_size = max((engine.device_memory_size_v2 for engine in deserialized.values()), default=0)
            if shared.scratch_size:
                shared.scratch = shared.resources.device_memory(shared.scratch_size)
            engines = {name: TensorRtEngine(shared, paths[name], engine) for name, engine in deserialized.items()}
            shared.place(list(engines.values()))
        except BaseException:
            with contextlib.suppress(CudaError):
                shared.close()
            raise
        shared.users = len(engines)
    return engines


@dataclass(frozen=True, slots=True)
class DeviceTensor:
    """A tensor in its place on the GPU, until an engine that was loaded with the one that gave it writes one of its
    name there."""

    address: int
    dtype: np.dtype[np.generic]
    shape: Shape
    shared: _Shared


class _Shared:
    """What the engines of a bundle have in common: the stream, scratch memory, the places of tensors."""

    def __init__(
        self, module: Any, backend: str, precision: str, say: Callable[[str], object], cache: Path | None
    ) -> None:
        self.module, self.backend, self.precision, self.say, self.cache = module, backend, precision, say, cache
        self.log = log_of(module)
        self.stream = Stream()
        self.resources = Resources()
        self.places: dict[str, Place] = {}
        self.scratch = self.scratch_size = self.users = 0

    def place(self, engines: Sequence[TensorRtEngine]) -> None:
        """Make the places that tensors of these engines have for good."""
        sizes: dict[str, int] = {}
        dtypes: dict[str, np.dtype[np.generic]] = {}
        for engine in engines:
            for name, spec in (*engine.inputs.items(), *engine.outputs.items()):
                sizes[name] = max(sizes.get(name, 0), engine.sizes[name])
                if dtypes.setdefault(name, spec.dtype) != spec.dtype:
                    raise EngineError(
                        f"tensor {name!r} is {dtypes[name]} in one of the engines, {spec.dtype} in another"
                    )
        between = {name for engine in engines for name in engine.outputs if any(name in one.inputs for one in engines)}
        self.places = places(self.resources, sizes, dtypes, between, self.stream.gpu.integrated)

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
class _Context:
    """An execution context, the shapes of the inputs that it is set to, and which of the engine's profiles. With a
    graph it stays as it is: the graph is of its state."""

    context: Any
    shapes: tuple[Shape, ...] = ()
    profile: int = 0
    bound: bool = False
    graph: Any = None


class _Held:
    """What an engine holds of the GPU, to be freed after the engine itself is gone."""

    def __init__(self, shared: _Shared, engine: Any, cache: RtxCache | None) -> None:
        self.shared, self.engine, self.cache = shared, engine, cache
        self.graphs = Resources()
        self.plain: _Context | None = None
        self.prepared: dict[tuple[Shape, ...], _Context] = {}

    def free(self) -> None:
        try:
            self.graphs.close()
        finally:
            self.prepared.clear()
            self.plain = self.cache = self.engine = None
            self.shared.leave()


class TensorRtEngine:
    """An engine (see `Engine`); made by `load`.

    For each choice of input shapes that it was prepared for it has an execution context and a CUDA graph, which gives
    all outputs; what is copied to the host is what is wanted. Other shapes run without a graph, in one more context.
    """

    def __init__(self, shared: _Shared, path: Path, engine: Any) -> None:
        self.backend, self.precision, self.device = shared.backend, shared.precision, shared.stream.gpu.name
        self.on_gpu = True
        self._shared, self._path = shared, path
        self._graphs = self._open = True
        self._last: tuple[Shape, ...] = ()
        rtx = hasattr(shared.module, "IRuntimeCache")
        cache = RtxCache(shared.module, engine, path, shared.stream.gpu, shared.cache, shared.say) if rtx else None
        self._held = _Held(shared, engine, cache)
        is_input = shared.module.TensorIOMode.INPUT
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        specs = {name: self._spec(name) for name in names}
        self.inputs: Mapping[str, TensorSpec] = {n: specs[n] for n in names if engine.get_tensor_mode(n) == is_input}
        self.outputs: Mapping[str, TensorSpec] = {n: specs[n] for n in names if n not in self.inputs}
        self._profiles = [
            [tuple(map(tuple, engine.get_tensor_profile_shape(name, index))) for name in self.inputs]
            for index in range(engine.num_optimization_profiles)
        ]
        self._held.plain = self._new_context(fixed=False)
        self.sizes = self._largest(self._held.plain)
        """The most numbers that each tensor has."""

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        self._check_open()
        self._check_dtype(name, array)
        with self._named():
            place = self._shared.places[name]
            if array.size > self.sizes[name]:
                raise EngineError(f"{self._path}: input {name!r} is {list(array.shape)}, larger than it was built for")
            place.upload(self._shared.stream, array)
            return DeviceTensor(place.address, array.dtype, array.shape, self._shared)

    def allocate(self, name: str, shape: Shape) -> Tensor:
        self._check_open()
        if math.prod(shape) > self.sizes[name]:
            raise EngineError(f"{self._path}: output {name!r} of {list(shape)} was asked for, it is never that large")
        return DeviceTensor(self._shared.places[name].address, self.outputs[name].dtype, shape, self._shared)

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
        for name, tensor in feeds.items():
            self._check_dtype(name, tensor)
        shapes = tuple(tuple(feeds[name].shape) for name in self.inputs)
        stream, found = self._shared.stream, {}
        with self._named():
            context = self._held.prepared.get(shapes) or self._shaped(self._held.plain, shapes)
            given = {name: tuple(context.context.get_tensor_shape(name)) for name in wanted}
            for name, tensor in targets.items():
                self._check_target(name, tensor, given[name])
            try:
                for name, tensor in feeds.items():
                    self._give(name, tensor)
                if context.graph is None:
                    self._enqueue(context)
                else:
                    stream.launch(context.graph)
                for name, shape in given.items():
                    if not isinstance(targets.get(name), DeviceTensor):
                        found[name] = self._shared.places[name].download(stream, shape)
            finally:  # else a failed run's copies go on beside the next one
                stream.wait()
        self._last = shapes
        for name, array in found.items():
            if name in targets:
                np.copyto(targets[name], array)
        return {name: targets[name] if name in targets else found[name].copy() for name in wanted}

    def prepare(self) -> None:
        self._check_open()
        if not self._last or self._last in self._held.prepared:
            return
        with exclusive(), self._named():
            self._held.prepared[self._last] = self._captured(self._last)
        if self._held.cache:
            self._held.cache.save()

    def close(self) -> None:
        if self._open:
            self._open = False
            free(self._held.free)

    def __del__(self) -> None:
        # A bundle that another one replaced is dropped, not closed: a last batch may run through it.
        if getattr(self, "_open", False):
            with contextlib.suppress(CudaError):
                self.close()

    def _spec(self, name: str) -> TensorSpec:
        dtype = self._held.engine.get_tensor_dtype(name).name
        if dtype not in _DTYPES:
            raise EngineError(f"{self._path}: tensor {name!r} is {dtype}, expected one of {', '.join(_DTYPES)}")
        shape = tuple(None if size < 0 else size for size in self._held.engine.get_tensor_shape(name))
        return TensorSpec(name, np.dtype(_DTYPES[dtype]), shape)

    def _largest(self, context: _Context) -> dict[str, int]:
        """How many numbers each tensor has at most: those with the largest inputs of a profile."""
        sizes: dict[str, int] = {}
        for profile in self._profiles:
            self._shaped(context, tuple(most for _, _, most in profile))
            for name in (*self.inputs, *self.outputs):
                shape = tuple(context.context.get_tensor_shape(name))
                if any(size < 0 for size in shape):
                    raise EngineError(
                        f"{self._path}: how large output {name!r} is depends on the input's values: not supported"
                    )
                sizes[name] = max(sizes.get(name, 0), math.prod(shape))
        return sizes

    def _new_context(self, fixed: bool) -> _Context:
        """A context; `fixed`: for one choice of shapes."""
        shared, engine = self._shared, self._held.engine
        shared.log.clear()
        if self._held.cache:
            context = engine.create_execution_context(runtime_config=self._held.cache.config(fixed))
        else:
            strategy = shared.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = engine.create_execution_context(strategy=strategy)
        if context is None:
            raise EngineError(f"{self._path}: {shared.backend} cannot prepare it to run: {shared.log.text()}")
        if shared.scratch_size:
            context.set_device_memory(shared.scratch, shared.scratch_size)
        return _Context(context)

    def _shaped(self, context: _Context | None, shapes: tuple[Shape, ...]) -> _Context:
        """The context, set to input shapes."""
        assert context is not None  # it is open
        if context.shapes == shapes:
            return context
        context.shapes = ()  # whatever fails below
        self._shared.log.clear()
        profile = self._profile(shapes)
        if profile != context.profile:
            if not context.context.set_optimization_profile_async(profile, int(self._shared.stream)):
                raise EngineError(f"{self._path}: profile {profile} is refused: {self._shared.log.text()}")
            context.profile = profile
            self._shared.stream.wait()
        for name, shape in zip(self.inputs, shapes, strict=True):
            if not context.context.set_input_shape(name, shape):
                raise EngineError(f"{self._path}: input {name!r} cannot be {shape}: {self._shared.log.text()}")
        context.shapes = shapes
        return context

    def _profile(self, shapes: tuple[Shape, ...]) -> int:
        """Of the engine's profiles the first that holds these shapes."""
        for index, profile in enumerate(self._profiles):
            if all(_within(shape, least, most) for shape, (least, _, most) in zip(shapes, profile, strict=True)):
                return index
        ranges = [
            f"{name} {list(shape)} (built for "
            + " or ".join(dict.fromkeys(f"{list(p[at][0])} to {list(p[at][2])}" for p in self._profiles))
            + ")"
            for at, (name, shape) in enumerate(zip(self.inputs, shapes, strict=True))
        ]
        raise EngineError(f"{self._path}: the engine was not built for inputs {', '.join(ranges)}")

    def _give(self, name: str, tensor: Tensor) -> None:
        place = self._shared.places[name]
        if not isinstance(tensor, DeviceTensor):
            place.upload(self._shared.stream, tensor)
        elif tensor.address != place.address:
            size = math.prod(tensor.shape) * tensor.dtype.itemsize
            self._shared.stream.copy(place.address, tensor.address, size)

    def _enqueue(self, context: _Context) -> None:
        log = self._shared.log
        log.clear()
        if not context.bound:
            for name in (*self.inputs, *self.outputs):
                if not context.context.set_tensor_address(name, self._shared.places[name].address):
                    raise EngineError(f"{self._path}: tensor {name!r} cannot lie where it is put: {log.text()}")
            context.bound = True
        if not context.context.execute_async_v3(int(self._shared.stream)):
            raise EngineError(f"{self._path}: {self.backend} cannot run it: {log.text()}")

    def _captured(self, shapes: tuple[Shape, ...]) -> _Context:
        """A context of its own for these shapes, with a graph of its run; where that is refused, it is said once.

        Whoever waits for the whole GPU in another thread, a library say, breaks a capture: it is tried once more, with
        another context, for that one's state belongs to the graph that was lost.
        """
        refused = ""
        for last in (False, True):
            context = self._run_once(shapes)
            if not self._graphs:
                return context
            try:
                context.graph = self._graph(context)
                return context
            except GpuLostError:
                raise
            except EngineError as error:
                refused = str(error)
                self._graphs = not last
        self._shared.say(f"{self._path}: runs without a CUDA graph, which costs some time per frame: {refused}")
        return self._run_once(shapes)

    def _run_once(self, shapes: tuple[Shape, ...]) -> _Context:
        """A context of its own for these shapes, whose first run is done: it allocates, and compiles kernels, which
        cannot be captured."""
        context = self._shaped(self._new_context(fixed=True), shapes)
        try:
            self._enqueue(context)
        finally:
            self._shared.stream.wait()
        return context

    def _graph(self, context: _Context) -> Any:
        stream = self._shared.stream
        # TensorRT has no such question to ask: it only refuses.
        if hasattr(context.context, "is_stream_capturable") and not context.context.is_stream_capturable(int(stream)):
            raise EngineError("TensorRT takes memory of its own while it runs")
        return stream.capture(lambda: self._enqueue(context), self._held.graphs)

    def _check_open(self) -> None:
        if not self._open:
            raise EngineError(f"{self._path}: the engine was closed")

    def _check_dtype(self, name: str, tensor: Tensor) -> None:
        spec = self.inputs[name]
        if tensor.dtype != spec.dtype:
            raise EngineError(f"{self._path}: input {name!r} is {tensor.dtype}, expected {spec.dtype} {spec.shape}")
        self._check_ours(name, tensor)

    def _check_target(self, name: str, tensor: Tensor, shape: Shape) -> None:
        spec = self.outputs[name]
        if tensor.dtype != spec.dtype or tensor.shape != shape:
            raise EngineError(
                f"{self._path}: output {name!r} is {spec.dtype} {list(shape)}, it was given {tensor.dtype} "
                f"{list(tensor.shape)} to write into"
            )
        self._check_ours(name, tensor)
        if isinstance(tensor, DeviceTensor) and tensor.address != self._shared.places[name].address:
            raise EngineError(f"{self._path}: output {name!r} was given memory that is another tensor's")

    def _check_ours(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, DeviceTensor) and tensor.shared is not self._shared:
            raise EngineError(f"{self._path}: tensor {name!r} is memory of engines that were not loaded with this one")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except CudaError as error:
            raise type(error)(f"{self._path}: {error}") from error


def _within(shape: Shape, least: Shape, most: Shape) -> bool:
    return len(shape) == len(least) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )


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
