"""ONNX Runtime: on a CUDA GPU where the package has its provider and one is there, on the CPU otherwise."""

from __future__ import annotations

import functools
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from coop_perception.engines import EngineError, Tensor, TensorSpec, checked
from coop_perception.engines.cpu import cpu_name, usable_cores
from coop_perception.engines.cuda import LOST, GpuLostError, gpu
from coop_perception.engines.exclusive import exclusive

VERSION = ort.__version__
CUDA = "CUDAExecutionProvider"
_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


class OnnxRuntimeEngine:
    """An ONNX file in an ONNX Runtime session (see `Engine`). Any number of threads may run it at once.

    Args:
        path: the ONNX file.
        threads: of one run on the CPU; 0: as many as the process may use cores.
        precision: of the file's arithmetic.
        cuda: run on the first CUDA GPU instead.
        whole: shapes of the inputs for which every node has to run on the GPU, instead of on the CPU where the GPU
            cannot; the session is for these alone, as what computes open sizes belongs on the CPU.

    Raises:
        EngineError: the file cannot be loaded, or not on a GPU.
    """

    backend = "onnxruntime"

    def __init__(
        self,
        path: Path,
        threads: int = 0,
        precision: str = "fp32",
        cuda: bool = False,
        whole: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads or usable_cores()
        # Spinning workers would take the cores that DDS and image conversion need between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        # FP32 is to be FP32: TF32, the default, keeps 10 bits of its 23.
        provider, of_provider = (CUDA, {"use_tf32": "0"}) if cuda else ("CPUExecutionProvider", {})
        try:
            if whole:
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
                for name, size in _open_sizes(path, whole).items():
                    options.add_free_dimension_override_by_name(name, size)
            with exclusive():
                if cuda and _one_arena():
                    options.add_session_config_entry("session.use_env_allocators", "1")
                session = ort.InferenceSession(str(path), options, providers=[(provider, of_provider)])
        except Exception as error:  # its errors share no public base class
            raise _error(f"{path}: ONNX Runtime {ort.__version__} cannot load it", error) from error
        if provider not in session.get_providers():  # it only warns of that
            raise EngineError(
                f"{path}: ONNX Runtime {ort.__version__} cannot use its {provider}; its log says which library or "
                "driver is missing"
            )
        self._session: ort.InferenceSession | None = session
        self.path = path
        self.precision = precision
        self._memory = "cuda" if cuda else "cpu"
        self.on_gpu = cuda
        self.device = gpu().name if cuda else cpu_name()
        self.inputs: Mapping[str, TensorSpec] = {node.name: _spec(path, node) for node in session.get_inputs()}
        self.outputs: Mapping[str, TensorSpec] = {node.name: _spec(path, node) for node in session.get_outputs()}

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        array = checked(self.inputs[name], array)
        if self._memory == "cpu":
            return array
        try:
            return ort.OrtValue.ortvalue_from_numpy(array, self._memory, 0)
        except Exception as error:
            raise _error(f"{self.path}: {name} {array.shape} cannot be copied to the GPU", error) from error

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self._memory == "cpu":
            return np.empty(shape, self.outputs[name].dtype)
        try:
            return ort.OrtValue.ortvalue_from_shape_and_type(
                list(shape), self.outputs[name].dtype.type, self._memory, 0
            )
        except Exception as error:
            raise _error(f"{self.path}: no memory for {name} {shape}", error) from error

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        if self._session is None:
            raise EngineError(f"{self.path}: the engine is closed")
        into = into or {}
        try:
            binding = self._session.io_binding()
            for name, value in feeds.items():
                if isinstance(value, ort.OrtValue):
                    binding.bind_ortvalue_input(name, value)
                else:
                    binding.bind_cpu_input(name, np.ascontiguousarray(value))
            for name in wanted:
                if name in into:
                    target = into[name]
                    shared = ort.OrtValue.ortvalue_from_numpy(target) if isinstance(target, np.ndarray) else target
                    binding.bind_ortvalue_output(name, shared)
                else:
                    binding.bind_output(name)
            self._session.run_with_iobinding(binding)
            values = dict(zip(wanted, binding.get_outputs(), strict=True))
            return {name: into[name] if name in into else value.numpy() for name, value in values.items()}
        except Exception as error:
            shapes = {
                name: (str(value.dtype), value.shape) for name, value in feeds.items() if isinstance(value, np.ndarray)
            }
            raise _error(f"{self.path}: run failed on {shapes}", error) from error

    def prepare(self) -> None:
        pass  # the run itself chose the kernels for its shapes

    def close(self) -> None:
        with exclusive() if self.on_gpu else nullcontext():  # freeing breaks a capture that is under way
            self._session = None


def has_cuda() -> bool:
    """Whether the installed package runs on CUDA GPUs and there is one.

    Raises:
        EngineError: the package does, but the GPU cannot be used; the message says why.
    """
    if CUDA not in ort.get_available_providers():
        if _installed("onnxruntime-gpu"):
            raise EngineError(
                "the packages onnxruntime and onnxruntime-gpu are both installed, and the former's files are there: "
                "pip uninstall both, then pip install onnxruntime-gpu alone"
            )
        return False
    gpu()
    if hasattr(ort, "preload_dlls"):  # from 1.21 on
        ort.preload_dlls(msvc=False)  # CUDA's and cuDNN's out of pip's packages, which the loader does not find
    return True


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def _one_arena() -> bool:
    """Have sessions on the GPU take their memory of one arena, which grows by what is needed: else each has its own,
    and doubles it. Whether that works: where it does not, loading the session says what is missing."""
    memory = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    try:
        ort.create_and_register_allocator_v2(CUDA, memory, {}, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    except RuntimeError:
        return False
    return True


def _open_sizes(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """How large a graph's open dimensions, by name, are in these shapes of its inputs."""
    inputs = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_inputs()
    named = [pair for node in inputs for pair in zip(node.shape, shapes[node.name], strict=True)]
    return {name: size for name, size in named if isinstance(name, str)}


def _error(what: str, error: Exception) -> EngineError:
    """What ONNX Runtime raised, in words; whether the GPU is lost stands only in its text."""
    number = re.search(r"\bCUDA (?:failure|error) (\d+)", str(error))
    kind = GpuLostError if number and int(number[1]) in LOST else EngineError
    return kind(f"{what}: {_first_line(error)}")


def _spec(path: Path, node: ort.NodeArg) -> TensorSpec:
    if node.type not in _DTYPES:
        raise EngineError(f"{path}: tensor {node.name!r} is {node.type}, expected one of {', '.join(_DTYPES)}")
    return TensorSpec(
        node.name, np.dtype(_DTYPES[node.type]), tuple(d if isinstance(d, int) else None for d in node.shape)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
