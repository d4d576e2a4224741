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
from coop_perception.engines.gpu_memory import Places, Scratch, Shape
from coop_perception.engines.modules import made, tensorrt_module
from coop_perception.engines.private_files import read_trusted
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
    """The engines of engine files, which share a stream and memory: tensors of one name and size lie in one place.

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
            engines = {name: TensorRtEngine(shared, paths[name], engine) for name, engine in deserialized.items()}
            shared.places = _places(shared, list(engines.values()))
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

    places: Places

    def __init__(
        self, module: Any, backend: str, precision: str, say: Callable[[str], object], cache: Path | None
    ) -> None:
        self.module, self.backend, self.precision, self.say, self.cache = module, backend, precision, say, cache
        self.log = log_of(module)
        self.stream = Stream()
        self.resources = Resources()
        self.scratch = Scratch(self.resources)
        self.users = 0

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


def _places(shared: _Shared, engines: Sequence[TensorRtEngine]) -> Places:
    """The places that tensors of these engines have."""
    dtypes: dict[str, np.dtype[np.generic]] = {}
    for engine in engines:
        for name, spec in (*engine.inputs.items(), *engine.outputs.items()):
            if dtypes.setdefault(name, spec.dtype) != spec.dtype:
                raise EngineError(f"tensor {name!r} is {dtypes[name]} in one of the engines, {spec.dtype} in another")
    between = {name for engine in engines for name in engine.outputs if any(name in one.inputs for one in engines)}
    most = max(engine.most for engine in engines)
    return Places(shared.resources, most, dtypes, between, shared.stream.gpu.integrated)


@dataclass(slots=True)
class _Context:
    """An execution context, the shapes of the inputs that it is set to, which of the engine's profiles, and after how
    many moves of places it was given its tensors' addresses (-1: never). With a graph it stays as it is: the graph is
    of its state."""

    context: Any
    shapes: tuple[Shape, ...] = ()
    profile: int = 0
    bound: int = -1
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
        self._shared, self.path = shared, path
        self._open = False  # until there is something to free
        self._graphs = True
        self._last: tuple[Shape, ...] = ()
        rtx = hasattr(shared.module, "IRuntimeCache")
        cache = RtxCache(shared.module, engine, path, shared.stream.gpu, shared.cache, shared.say) if rtx else None
        self._held, self._open = _Held(shared, engine, cache), True
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
        self.most = max(profile[0][2][0] for profile in self._profiles)
        """Frames of the largest batch."""

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        self._check_open()
        self._check_dtype(name, array)
        at = list(self.inputs).index(name)
        if not any(_within(array.shape, least, most) for least, _, most in (one[at] for one in self._profiles)):
            raise EngineError(f"{self.path}: the engine was not built for input {self._beyond(at, array.shape)}")
        with self._named():
            place = self._shared.places.at(name, array.shape)
            place.upload(self._shared.stream, array)
            return DeviceTensor(place.address, array.dtype, array.shape, self._shared)

    def allocate(self, name: str, shape: Shape) -> Tensor:
        self._check_open()
        if shape[0] > self.most:
            raise EngineError(
                f"{self.path}: output {name!r} of {list(shape)} was asked for, it was built for batches of up to "
                f"{self.most}"
            )
        with self._named():
            place = self._shared.places.at(name, shape)
        return DeviceTensor(place.address, self.outputs[name].dtype, shape, self._shared)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        self._check_open()
        targets = {name: into[name] for name in wanted if name in into} if into else {}
        if set(feeds) != set(self.inputs) or not set(wanted) <= set(self.outputs):
            raise EngineError(
                f"{self.path}: given {sorted(feeds)} and asked for {sorted(wanted)}, but it takes "
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
                        found[name] = self._shared.places.at(name, shape).download(stream, shape)
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
            raise EngineError(f"{self.path}: tensor {name!r} is {dtype}, expected one of {', '.join(_DTYPES)}")
        shape = tuple(None if size < 0 else size for size in self._held.engine.get_tensor_shape(name))
        return TensorSpec(name, np.dtype(_DTYPES[dtype]), shape)

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
            raise EngineError(f"{self.path}: {shared.backend} cannot prepare it to run: {shared.log.text()}")
        return _Context(context)

    def _shaped(self, context: _Context | None, shapes: tuple[Shape, ...]) -> _Context:
        """The context, set to input shapes."""
        assert context is not None  # it is open
        if context.shapes == shapes:
            return context
        context.shapes, context.bound = (), -1  # whatever fails below
        self._shared.log.clear()
        profile = self._profile(shapes)
        if profile != context.profile:
            if not context.context.set_optimization_profile_async(profile, int(self._shared.stream)):
                raise EngineError(f"{self.path}: profile {profile} is refused: {self._shared.log.text()}")
            context.profile = profile
            self._shared.stream.wait()
        for name, shape in zip(self.inputs, shapes, strict=True):
            if not context.context.set_input_shape(name, shape):
                raise EngineError(f"{self.path}: input {name!r} cannot be {shape}: {self._shared.log.text()}")
        for name in self.outputs:
            if -1 in context.context.get_tensor_shape(name):
                raise EngineError(
                    f"{self.path}: how large output {name!r} is depends on the input's values: not supported"
                )
        if needed := context.context.update_device_memory_size_for_shapes():
            context.context.set_device_memory(*self._shared.scratch.of(needed))
        context.shapes = shapes
        return context

    def _profile(self, shapes: tuple[Shape, ...]) -> int:
        """Of the engine's profiles the first that holds these shapes."""
        for index, profile in enumerate(self._profiles):
            if all(_within(shape, least, most) for shape, (least, _, most) in zip(shapes, profile, strict=True)):
                return index
        inputs = ", ".join(self._beyond(at, shape) for at, shape in enumerate(shapes))
        raise EngineError(f"{self.path}: the engine was not built for inputs {inputs}")

    def _beyond(self, at: int, shape: Shape) -> str:
        """An input and its shape, and what the engine was built for."""
        built = dict.fromkeys(f"{list(profile[at][0])} to {list(profile[at][2])}" for profile in self._profiles)
        return f"{list(self.inputs)[at]} {list(shape)} (built for {' or '.join(built)})"

    def _give(self, name: str, tensor: Tensor) -> None:
        place = self._shared.places.at(name, tensor.shape)
        if not isinstance(tensor, DeviceTensor):
            place.upload(self._shared.stream, tensor)
        elif tensor.address != place.address:
            size = math.prod(tensor.shape) * tensor.dtype.itemsize
            self._shared.stream.copy(place.address, tensor.address, size)

    def _enqueue(self, context: _Context) -> None:
        log = self._shared.log
        log.clear()
        if context.bound != self._shared.places.moves:
            for name in (*self.inputs, *self.outputs):
                place = self._shared.places.at(name, tuple(context.context.get_tensor_shape(name)))
                if not context.context.set_tensor_address(name, place.address):
                    raise EngineError(f"{self.path}: tensor {name!r} cannot lie where it is put: {log.text()}")
            context.bound = self._shared.places.moves  # which asking for them may have changed
        if not context.context.execute_async_v3(int(self._shared.stream)):
            raise EngineError(f"{self.path}: {self.backend} cannot run it: {log.text()}")

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
        self._shared.say(f"{self.path}: runs without a CUDA graph, which costs some time per frame: {refused}")
        return self._run_once(shapes)

    def _run_once(self, shapes: tuple[Shape, ...]) -> _Context:
        """A context of its own for these shapes, whose first run is done: it allocates, and compiles kernels, which
        cannot be captured."""
        context = self._shaped(self._new_context(fixed=True), shapes)
        for name in (*self.inputs, *self.outputs):
            self._shared.places.keep(name, tuple(context.context.get_tensor_shape(name)))
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
            raise EngineError(f"{self.path}: the engine was closed")

    def _check_dtype(self, name: str, tensor: Tensor) -> None:
        spec = self.inputs[name]
        if tensor.dtype != spec.dtype:
            raise EngineError(f"{self.path}: input {name!r} is {tensor.dtype}, expected {spec.dtype} {spec.shape}")
        self._check_ours(name, tensor)

    def _check_target(self, name: str, tensor: Tensor, shape: Shape) -> None:
        spec = self.outputs[name]
        if tensor.dtype != spec.dtype or tensor.shape != shape:
            raise EngineError(
                f"{self.path}: output {name!r} is {spec.dtype} {list(shape)}, it was given {tensor.dtype} "
                f"{list(tensor.shape)} to write into"
            )
        self._check_ours(name, tensor)
        if isinstance(tensor, DeviceTensor) and tensor.address != self._shared.places.at(name, shape).address:
            raise EngineError(f"{self.path}: output {name!r} was given memory that is another tensor's")

    def _check_ours(self, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, DeviceTensor) and tensor.shared is not self._shared:
            raise EngineError(f"{self.path}: tensor {name!r} is memory of engines that were not loaded with this one")

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except CudaError as error:
            raise type(error)(f"{self.path}: {error}") from error


def _within(shape: Shape, least: Shape, most: Shape) -> bool:
    return len(shape) == len(least) and all(
        low <= size <= high for low, size, high in zip(least, shape, most, strict=True)
    )


def _deserialize(shared: _Shared, runtime: Any, path: Path) -> Any:
    try:
        content = read_trusted(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror}") from error
    shared.log.clear()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(
            f"{path}: {shared.backend} {shared.module.__version__} cannot load it on {shared.stream.gpu.name}, compute "
            f"capability {shared.stream.gpu.compute_capability}: {shared.log.text()}. An engine file is good for one "
            "version and kind of GPU: build it again with build_engines"
        )
    return engine
