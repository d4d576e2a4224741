"""The first NVIDIA GPU through its CUDA runtime: what it is, memory, a stream, captured graphs. No PyTorch.

Which GPU is the first one the environment says (CUDA_VISIBLE_DEVICES). The package is imported when it is first asked
for, so that machines without it lack nothing until then.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from coop_perception.engines import EngineError

OLDEST_BINDINGS = (12, 9, 1)
"""Of cuda-bindings: those before hold Python's interpreter lock while they wait for the GPU."""
LOST = frozenset((214, 226, 700, 702, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911))
"""cudaError_t of which NVIDIA says that the process must be terminated and relaunched: illegal address (700), launch
timeout, assert, invalid instructions and addresses, launch failure (719) and so on; and uncorrectable memory (214)."""
BOARD = Path("/proc/device-tree/model")
"""Where a Jetson says which board it is: the GPUs of all Orin boards have one name."""


class CudaError(EngineError):
    """A call of the CUDA runtime failed; the message gives its name and the error's."""


class GpuLostError(CudaError):
    """The GPU cannot be used by this process any more, whatever it does: only a new process can."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: its name, on a Jetson with the board's, its compute capability such as "8.9", its memory in bytes, how
    many multiprocessors it has, and whether its memory is the processor's, too."""

    name: str
    compute_capability: str
    memory: int
    multiprocessors: int = 0
    integrated: bool = False

    @property
    def model(self) -> str:
        """What tells it from others of its compute capability, for which engines are tuned otherwise."""
        return f"{self.name}, {self.multiprocessors} multiprocessors"


def gpu() -> Gpu:
    """The GPU of this machine.

    Raises:
        EngineError: there is none, its driver or the Python package is missing or does not fit; the message says which.
    """
    runtime = _runtime()
    _check_version(importlib.import_module("cuda.bindings"))
    error, count = _answer("cudaGetDeviceCount")
    if error == runtime.cudaError_t.cudaErrorInsufficientDriver:
        raise EngineError(_too_old(call("cudaDriverGetVersion"), call("cudaRuntimeGetVersion")))
    if error == runtime.cudaError_t.cudaErrorNoDevice or (error == runtime.cudaError_t.cudaSuccess and count == 0):
        raise EngineError("the NVIDIA driver finds no GPU, or CUDA_VISIBLE_DEVICES hides it")
    _check("cudaGetDeviceCount", error)
    properties = call("cudaGetDeviceProperties", 0)
    name, integrated = properties.name.decode(errors="replace").rstrip("\0"), bool(properties.integrated)
    return Gpu(
        f"{name} of {board}" if integrated and (board := _board()) else name,
        f"{properties.major}.{properties.minor}",
        properties.totalGlobalMem,
        properties.multiProcessorCount,
        integrated,
    )


def memory_in_use() -> tuple[int, int]:
    """Bytes of the GPU's memory: those that all its users hold together, and all there are.

    Raises:
        EngineError: the runtime does not say.
    """
    free, total = call("cudaMemGetInfo")
    return total - free, total


def call(function: str, *arguments: Any) -> Any:
    """Call a function of `cuda.bindings.runtime` and return its values without the status.

    Raises:
        CudaError: the function failed.
        EngineError: there is no driver, or the Python package is missing or does not fit.
    """
    status, *values = _answer(function, *arguments)
    _check(function, status)
    return values[0] if len(values) == 1 else tuple(values)


class Resources:
    """What was taken of the runtime: `close` gives back each thing exactly once, the newest first."""

    def __init__(self) -> None:
        self._held: list[tuple[str, Any]] = []

    def hold(self, release: str, handle: Any) -> Any:
        """Give `handle` to the function `release` when closing; returns the handle."""
        self._held.append((release, handle))
        return handle

    def adopt(self, others: Resources) -> None:
        """Hold what the others do, who do not any more."""
        self._held += others._held
        others._held = []

    def device_memory(self, size: int) -> int:
        """The address of `size` new bytes on the GPU.

        Raises:
            CudaError: there is not enough; the message says how much was asked for, and how much is free.
        """
        return int(self.hold("cudaFree", _allocate("cudaMalloc", size, "the GPU")))

    def pinned_memory(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """A new array, of undefined content, that the GPU copies from and to by itself. Gone when this is closed.

        Raises:
            CudaError: there is not enough memory.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        address = self.hold("cudaFreeHost", _allocate("cudaMallocHost", size, "the host, pinned"))
        memory: Any = (ctypes.c_uint8 * size).from_address(address)
        array: NDArray[Any] = np.frombuffer(memory, dtype).reshape(shape)
        return array

    def close(self) -> None:
        """Give back everything. May be called again.

        Raises:
            CudaError: something was not taken back; everything else was given back all the same.
        """
        failures = []
        while self._held:
            try:
                call(*self._held.pop())
            except CudaError as error:
                failures.append(error)
        if failures:
            raise failures[0]


class Stream:
    """Work that the GPU does in order, beside the processor.

    Raises:
        EngineError: there is no GPU that can be used.
    """

    def __init__(self) -> None:
        self.gpu = gpu()
        runtime = self._runtime = _runtime()
        self._resources = Resources()
        try:
            self._handle = self._resources.hold(
                "cudaStreamDestroy", call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)
            )
            # Waiting threads sleep: a spinning one would take the core that image conversion needs meanwhile.
            self._done = self._resources.hold(
                "cudaEventDestroy",
                call("cudaEventCreateWithFlags", runtime.cudaEventBlockingSync | runtime.cudaEventDisableTiming),
            )
        except CudaError:
            with contextlib.suppress(CudaError):
                self._resources.close()
            raise

    def __int__(self) -> int:
        """The handle, as other libraries take it."""
        # int() of cuda-bindings' own types is deprecated.
        return int(importlib.import_module("cuda.bindings.utils").get_cuda_native_handle(self._handle))

    def upload(self, address: int, pinned: NDArray[Any]) -> None:
        """Copy contiguous pinned memory to the GPU, once all earlier work is done."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", address, pinned.ctypes.data, pinned.nbytes, kind, self._handle)

    def download(self, pinned: NDArray[Any], address: int) -> None:
        """Copy memory of the GPU to contiguous pinned memory, once all earlier work is done."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", pinned.ctypes.data, address, pinned.nbytes, kind, self._handle)

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy bytes within the GPU's memory, once all earlier work is done."""
        call("cudaMemcpyAsync", to, source, size, self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice, self._handle)

    def wait(self) -> None:
        """Sleep until all work so far is done.

        Raises:
            CudaError: some of it failed.
        """
        call("cudaEventRecord", self._done, self._handle)
        call("cudaEventSynchronize", self._done)

    def capture(self, work: Callable[[], None], resources: Resources) -> Any:
        """A graph of what `work` puts into this stream, none of which is done now; `resources` are to hold it.

        To be called in `exclusive`. Garbage is not collected meanwhile: it could free memory of the GPU in this thread.

        Raises:
            EngineError: `work` raised it, or cannot be captured.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with _garbage_kept():
            call("cudaStreamBeginCapture", self._handle, mode)
            try:
                work()
            except BaseException:
                with contextlib.suppress(CudaError):
                    call("cudaGraphDestroy", call("cudaStreamEndCapture", self._handle))
                raise
            graph = call("cudaStreamEndCapture", self._handle)
        try:
            return resources.hold("cudaGraphExecDestroy", call("cudaGraphInstantiate", graph, 0))
        finally:
            call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        """Do what a graph holds, once all earlier work is done."""
        call("cudaGraphLaunch", graph, self._handle)

    def close(self) -> None:
        """Free it. May be called again."""
        self._resources.close()


def _runtime() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"the CUDA runtime for Python is not there ({error}): pip install 'cuda-bindings>={_dotted()}', of the "
            "major version that the NVIDIA driver knows"
        ) from error


def _check_version(bindings: ModuleType) -> None:
    found = tuple(int(number) for number in re.findall(r"\d+", bindings.__version__)[:3])
    if found < OLDEST_BINDINGS:
        raise EngineError(
            f"cuda-bindings {bindings.__version__} is installed: pip install 'cuda-bindings>={_dotted()}'"
        )


def _dotted() -> str:
    return ".".join(map(str, OLDEST_BINDINGS))


def _answer(function: str, *arguments: Any) -> Any:
    """Status and values. Without a driver some versions raise a bare RuntimeError, or cannot find a library."""
    runtime = _runtime()
    try:
        return getattr(runtime, function)(*arguments)
    except (RuntimeError, OSError) as error:
        raise EngineError(f"{function}: {error}; is an NVIDIA driver installed and loaded?") from error


def _check(function: str, status: Any) -> None:
    runtime = _runtime()
    if status == runtime.cudaError_t.cudaSuccess:
        return
    runtime.cudaGetLastError()  # or whoever asks next, TensorRT say, takes this failure for its own
    text = runtime.cudaGetErrorString(status)[1].decode()
    kind = GpuLostError if int(status) in LOST else CudaError
    raise kind(f"{function}: {runtime.cudaGetErrorName(status)[1].decode()} ({text})")


def _too_old(driver: int, needed: int) -> str:
    if driver == 0:
        return "no NVIDIA driver is loaded on this machine: install NVIDIA's, 580 or later for CUDA 13"
    words = (
        f"the NVIDIA driver knows CUDA up to {_version(driver)}, the installed cuda-bindings need {_version(needed)}"
    )
    if "Jetson" in _board():
        return f"{words}: a Jetson needs JetPack 7"
    if driver < 12000 or driver // 1000 == needed // 1000:
        return f"{words}: update the driver"
    return f"{words}: update the driver, or pip install 'cuda-bindings>={_dotted()},<{driver // 1000 + 1}'"


def _board() -> str:
    """Name of the board, where there is one."""
    try:
        return BOARD.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


@contextlib.contextmanager
def _garbage_kept() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _allocate(function: str, size: int, where: str) -> Any:
    try:
        return call(function, size)
    except GpuLostError:
        raise
    except CudaError as error:
        try:
            used, total = memory_in_use()
        except CudaError:
            raise error from None
        raise CudaError(
            f"no {size / 2**20:.1f} MiB of memory on {where} ({(total - used) / 2**20:.0f} of the GPU's "
            f"{total / 2**20:.0f} MiB are free): {error}"
        ) from error


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
