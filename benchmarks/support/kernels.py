"""Kernels on memory of the GPU, out of whatever library is installed that has some, or NumPy's on a pretended GPU."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class Kernels(Protocol):
    """name: of the library, in words."""

    name: str

    def array(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
        """Memory of the GPU as an array, of which slices are views. dtype: NumPy's name."""
        ...

    def copy(self, to: Any, source: Any, invert: bool, stream: int) -> None:
        """Put the copying of an array, its bits inverted or not, into a stream."""
        ...

    def sleep(self, ms: float, stream: int) -> None:
        """Keep a stream busy for about so long."""
        ...


def kernels(fake: Any = None) -> Kernels | None:
    """Those there are; `fake`: a pretended CUDA runtime, whose memory NumPy works on."""
    if fake is not None:
        return NumPyKernels(fake)
    try:
        import torch

        if torch.cuda.is_available():
            return TorchKernels(torch)
    except ImportError:
        pass
    try:
        import cupy
    except ImportError:
        return None
    return CuPyKernels(cupy)


@dataclass
class _Memory:
    """What both libraries take as an array without a copy."""

    __cuda_array_interface__: dict[str, Any]


class TorchKernels:
    def __init__(self, torch: Any) -> None:
        self._torch, self.name = torch, f"PyTorch {torch.__version__}"
        self._cycles_per_ms = float(getattr(torch.cuda.get_device_properties(0), "clock_rate", 1_000_000))  # it is kHz

    def array(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
        described = {"data": (address, False), "shape": shape, "typestr": np.dtype(dtype).str, "version": 3}
        return self._torch.as_tensor(_Memory(described), device="cuda")

    def copy(self, to: Any, source: Any, invert: bool, stream: int) -> None:
        with self._torch.cuda.stream(self._torch.cuda.ExternalStream(stream)):
            if invert:
                self._torch.bitwise_not(source, out=to)
            else:
                to.copy_(source)

    def sleep(self, ms: float, stream: int) -> None:
        with self._torch.cuda.stream(self._torch.cuda.ExternalStream(stream)):
            self._torch.cuda._sleep(int(ms * self._cycles_per_ms))


class CuPyKernels:
    def __init__(self, cupy: Any) -> None:
        self._cupy, self.name = cupy, f"CuPy {cupy.__version__}"
        code = 'extern "C" __global__ void nap(long long n) { long long b = clock64(); while (clock64() - b < n); }'
        self._nap = cupy.RawKernel(code, "nap")

    def array(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
        described = {"data": (address, False), "shape": shape, "typestr": np.dtype(dtype).str, "version": 3}
        return self._cupy.asarray(_Memory(described))

    def copy(self, to: Any, source: Any, invert: bool, stream: int) -> None:
        with self._cupy.cuda.ExternalStream(stream):
            if invert:
                self._cupy.invert(source, out=to)
            else:
                to[...] = source

    def sleep(self, ms: float, stream: int) -> None:
        with self._cupy.cuda.ExternalStream(stream):
            self._nap((1,), (1,), (np.int64(ms * 1e6),))


class NumPyKernels:
    name = "NumPy, on a pretended GPU"

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def array(self, address: int, shape: tuple[int, ...], dtype: str) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)

    def copy(self, to: Any, source: Any, invert: bool, stream: int) -> None:
        self._cuda.put(lambda: np.copyto(to, np.invert(source) if invert else source, casting="unsafe"), stream)

    def sleep(self, ms: float, stream: int) -> None:
        pass
