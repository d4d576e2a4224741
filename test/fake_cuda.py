"""A CUDA runtime without a GPU: it really holds memory and moves bytes, and does nothing before it is waited for.

What a program may not do fails the test at once: a copy past the end of a buffer or between the wrong kinds of memory,
memory given back twice, a wait or freeing in the thread that captures. A thread that waits for the whole GPU breaks
another's capture. `fail_at` lets one call fail.
"""

# ruff: noqa: N801, N802, N815  (the real names)

from __future__ import annotations

import ctypes
import enum
import sys
import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

Work = Callable[[], None]


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorNotSupported = 801
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


OK = cudaError_t.cudaSuccess
UNCOUNTED = ("cudaGetLastError", "cudaGetErrorName", "cudaGetErrorString", "cudaMemGetInfo", "cudaDriverGetVersion")


class FakeCuda:
    """Stands for the module `cuda.bindings.runtime`.

    calls: the names of all calls. copies: (direction, bytes) of the copies that were done, "in" to the GPU, "out", or
    "within". during_capture: called when the next captures begin, one each. integrated: what is pinned is the GPU's,
    too.
    """

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode
    cudaEventBlockingSync, cudaEventDisableTiming, cudaStreamNonBlocking = 1, 2, 1

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.copies: list[tuple[str, int]] = []
        self.counted = 0
        self.fail_at: int | None = None
        self.failed: str | None = None
        self.error = cudaError_t.cudaErrorNotSupported
        self.integrated = False
        self.device_count, self.no_device = 1, OK
        self.driver = 13000
        self.capacity = 1 << 30
        self.queue: list[Work] = []
        self.during_capture: list[Callable[[], object]] = []
        self.captured: list[Work] = []
        self.capturing: tuple[int, int] | None = None  # thread and stream
        self.invalidated = False
        self._memory: dict[int, tuple[str, Any, int]] = {}
        self._handles: dict[int, tuple[str, Any]] = {}
        self._next = 1000

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if not name.startswith("cuda") or not callable(found) or isinstance(found, type):
            return found

        def called(*arguments: Any) -> Any:
            self.calls.append(name)
            self.counted += name not in UNCOUNTED
            if self.fail_at is None or self.counted != self.fail_at or name in UNCOUNTED:
                return found(*arguments)
            self.failed, self.fail_at = name, None
            self.invalidated = self.invalidated or name == "cudaStreamEndCapture"
            if name.endswith(("Destroy", "EndCapture")) or name.startswith("cudaFree"):
                found(*arguments)  # real ones do it too, and report what failed before
            count = 1 if name.startswith(("cudaGet", "cudaMalloc", "cudaStreamEnd")) or "Create" in name else 0
            return (self.error, *[None] * count)

        return called

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, version: str = "13.0.0") -> None:
        """For the module, in a package of that version."""
        for name, module in self.modules(version).items():
            monkeypatch.setitem(sys.modules, name, module)

    def modules(self, version: str = "13.0.0") -> dict[str, Any]:
        """What stands for what in sys.modules."""
        package = ModuleType("cuda.bindings")
        package.__version__ = version  # type: ignore[attr-defined]
        utils = SimpleNamespace(get_cuda_native_handle=int)
        return {"cuda.bindings": package, "cuda.bindings.runtime": self, "cuda.bindings.utils": utils}

    def left(self) -> list[str]:
        """Whatever was not given back."""
        return [f"{kind} memory of {size}" for kind, _, size in self._memory.values()] + [
            kind for kind, _ in self._handles.values()
        ]

    def bytes_on_the_gpu(self) -> int:
        """That are taken."""
        return sum(size for kind, _, size in self._memory.copy().values() if kind == "device")

    def copied(self) -> list[tuple[str, int]]:
        """`copies` since the last call."""
        copies, self.copies = self.copies, []
        return copies

    def put(self, work: Work, stream: int) -> None:
        """Work for a stream."""
        capturing = self.capturing is not None and self.capturing[1] == stream
        (self.captured if capturing else self.queue).append(work)

    def captures_here(self) -> bool:
        return self.capturing is not None and self.capturing[0] == threading.get_ident()

    def pointer(self, address: int, size: int, kind: str) -> int:
        """The address, if `size` bytes from it on are within one live allocation of that kind."""
        for start, (found, _, length) in self._memory.copy().items():  # other threads allocate meanwhile
            if start <= address and address + size <= start + length:
                bound = self.integrated and found == "pinned"
                assert found == kind or bound, f"{found} memory where {kind} memory belongs"
                return address
        raise AssertionError(f"{size} bytes at {address:#x} are in no {kind} allocation")

    def cudaGetDeviceCount(self) -> Any:
        return self.no_device, self.device_count

    def cudaDriverGetVersion(self) -> Any:
        return OK, self.driver

    def cudaRuntimeGetVersion(self) -> Any:
        return OK, 13050

    def cudaGetDeviceProperties(self, device: int) -> Any:
        assert device == 0
        return OK, SimpleNamespace(
            name=b"Fake GPU",
            major=8,
            minor=9,
            totalGlobalMem=self.capacity,
            multiProcessorCount=16,
            integrated=int(self.integrated),
        )

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def cudaGetErrorName(self, error: cudaError_t) -> Any:
        return OK, error.name.encode()

    def cudaGetErrorString(self, error: cudaError_t) -> Any:
        return OK, b"in words"

    def cudaMemGetInfo(self) -> Any:
        return OK, self.capacity - self.bytes_on_the_gpu(), self.capacity

    def cudaMalloc(self, size: int) -> Any:
        return self._allocate("device", size)

    def cudaMallocHost(self, size: int) -> Any:
        return self._allocate("pinned", size)

    def cudaFree(self, address: int) -> Any:
        return self._free("device", address)

    def cudaFreeHost(self, address: int) -> Any:
        return self._free("pinned", address)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self.cudaStreamNonBlocking
        return OK, self._create("stream")

    def cudaStreamDestroy(self, stream: int) -> Any:
        return self._destroy("stream", stream)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        assert flags & self.cudaEventBlockingSync, "a waiting thread would spin"
        return OK, self._create("event")

    def cudaEventDestroy(self, event: int) -> Any:
        return self._destroy("event", event)

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        assert not self.captures_here()
        self._handles[event], self._handles[stream]
        return (OK,)

    def cudaEventSynchronize(self, event: int) -> Any:
        assert not self.captures_here()
        self._handles[event]
        self._work()
        return (OK,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: cudaMemcpyKind, stream: int) -> Any:
        self._handles[stream]
        direction, kinds = {
            cudaMemcpyKind.cudaMemcpyHostToDevice: ("in", ("device", "pinned")),
            cudaMemcpyKind.cudaMemcpyDeviceToHost: ("out", ("pinned", "device")),
            cudaMemcpyKind.cudaMemcpyDeviceToDevice: ("within", ("device", "device")),
        }[kind]

        def copy() -> None:
            ctypes.memmove(self.pointer(to, size, kinds[0]), self.pointer(source, size, kinds[1]), size)
            self.copies.append((direction, size))

        self.pointer(to, size, kinds[0]), self.pointer(source, size, kinds[1])
        self.put(copy, stream)
        return (OK,)

    def cudaDeviceSynchronize(self) -> Any:
        assert not self.captures_here()
        if self.capturing is not None:
            self.invalidated = True
            return (cudaError_t.cudaErrorStreamCaptureInvalidated,)
        self._work()
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: cudaStreamCaptureMode) -> Any:
        self._handles[stream]
        assert self.capturing is None
        self.capturing, self.captured, self.invalidated = (threading.get_ident(), stream), [], False
        if self.during_capture:
            self.during_capture.pop(0)()
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        assert self.capturing == (threading.get_ident(), stream)
        works, self.captured, self.capturing = self.captured, [], None
        if self.invalidated:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        return OK, self._create("graph", works)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        return OK, self._create("executable graph", self._handles[graph][1])

    def cudaGraphDestroy(self, graph: int) -> Any:
        return self._destroy("graph", graph)

    def cudaGraphExecDestroy(self, graph: int) -> Any:
        return self._destroy("executable graph", graph)

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        self._handles[stream]
        self.queue += self._handles[graph][1]
        return (OK,)

    def _work(self) -> None:
        queue, self.queue = self.queue, []
        for work in queue:
            work()

    def _allocate(self, kind: str, size: int) -> Any:
        assert not self.captures_here()
        if kind == "device" and size > self.cudaMemGetInfo()[1]:
            return cudaError_t.cudaErrorMemoryAllocation, None
        buffer = ctypes.create_string_buffer(b"\xa5" * size, size)
        address = ctypes.addressof(buffer)
        self._memory[address] = kind, buffer, size
        return OK, address

    def _free(self, kind: str, address: int) -> Any:
        assert not self.captures_here()
        self._work()  # freeing waits, really
        assert self._memory.pop(address)[0] == kind
        return (OK,)

    def _create(self, kind: str, content: Any = None) -> int:
        self._next += 1
        self._handles[self._next] = kind, content
        return self._next

    def _destroy(self, kind: str, handle: int) -> Any:
        assert self._handles.pop(handle)[0] == kind
        return (OK,)
