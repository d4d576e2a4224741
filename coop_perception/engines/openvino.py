"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines import EngineError, Tensor, TensorSpec, checked
from coop_perception.engines.backends import MAX_BATCH
from coop_perception.engines.cpu import cpu_name, usable_cores
from coop_perception.engines.signal_stack import signal_stack_kept

# OpenVINO imports its model converter where it can, which nothing here needs, and which reports every use to its makers
# over the network, in a thread of its own that is still there when the process is to end.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402

if sys.modules["openvino.tools.ovc"] is None:
    del sys.modules["openvino.tools.ovc"]

VERSION = ov.__version__
Shape = tuple[int, ...]
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""INFERENCE_PRECISION_HINT by precision; without one OpenVINO takes bf16 wherever the CPU has it."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A network for one frame of one size, and memory for outputs that nobody wants."""

    request: ov.InferRequest
    unwanted: Mapping[str, ov.Tensor]


class OpenVinoEngine:
    """An ONNX file compiled by OpenVINO (see `Engine`).

    It is compiled for one frame of each size, and a batch is run frame by frame: with dynamic shapes OpenVINO plans no
    memory ahead and is slower, and one frame keeps all cores busy anyway.

    Args:
        path: the ONNX file.
        threads: of one run; 0: as many as the process may use cores.
        precision: fp32, bf16, or int8, for which the file itself must be quantised.
        sizes: how many sizes of frames it stays compiled for, those that were used last.

    Raises:
        EngineError: the file cannot be loaded, or the CPU does not have that precision.
    """

    backend, on_gpu = "openvino", False

    def __init__(self, path: Path, threads: int = 0, precision: str = "fp32", sizes: int = MAX_BATCH) -> None:
        self._sizes = sizes
        with signal_stack_kept():
            self._load(path, threads, precision)

    def _load(self, path: Path, threads: int, precision: str) -> None:
        self._core = ov.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(f"{path}: precision bf16: {cpu_name()} does not have it; choose fp32 or int8")
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "ENABLE_CPU_PINNING": False,  # DDS and image conversion share the cores
        }
        try:
            self._model: ov.Model | None = self._core.read_model(path)
            self.inputs: Mapping[str, TensorSpec] = {p.any_name: _spec(p) for p in self._model.inputs}
            self.outputs: Mapping[str, TensorSpec] = {p.any_name: _spec(p) for p in self._model.outputs}
        except RuntimeError as error:
            raise EngineError(f"{path}: OpenVINO {ov.__version__} cannot load it: {_first_line(error)}") from error
        self._compiled: dict[tuple[Shape, ...], _Compiled] = {}
        """By the inputs' shapes, those that were used last at the end."""
        self.path = path
        self.precision = precision
        self.device = cpu_name()

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        return checked(self.inputs[name], array)

    def allocate(self, name: str, shape: Shape) -> Tensor:
        return np.empty(shape, self.outputs[name].dtype)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        if self._model is None:
            raise EngineError(f"{self.path}: the engine is closed")
        given = {name: _writable(checked(self.inputs[name], value)) for name, value in feeds.items()}
        batch = len(next(iter(given.values())))
        into = into or {}
        try:
            compiled = self._for({name: (1, *value.shape[1:]) for name, value in given.items()})
            results = {
                name: into[name] if name in into else self.allocate(name, (batch, *compiled.unwanted[name].shape[1:]))
                for name in wanted
            }
            for index in range(batch):
                for name, value in given.items():
                    compiled.request.set_tensor(name, ov.Tensor(value[index : index + 1], shared_memory=True))
                # All of them: what is not wanted now must not be written to memory that was given before.
                for name, unwanted in compiled.unwanted.items():
                    wanted_here = name in results
                    tensor = (
                        ov.Tensor(results[name][index : index + 1], shared_memory=True) if wanted_here else unwanted
                    )
                    compiled.request.set_tensor(name, tensor)
                compiled.request.infer()
        except RuntimeError as error:
            shapes = {name: (str(value.dtype), value.shape) for name, value in given.items()}
            raise EngineError(f"{self.path}: run failed on {shapes}: {_first_line(error)}") from error
        return results

    def prepare(self) -> None:
        pass  # the run itself compiled for its shapes

    def close(self) -> None:
        self._model = None
        self._compiled.clear()

    def _for(self, shapes: Mapping[str, Shape]) -> _Compiled:
        """What runs inputs of these shapes. Raises RuntimeError where the graph does not take them."""
        assert self._model is not None  # it is open
        key = tuple(shapes[name] for name in sorted(shapes))
        compiled = self._compiled.pop(key, None)
        if compiled is None:
            with signal_stack_kept():
                model = self._model.clone()
                model.reshape({name: list(shape) for name, shape in shapes.items()})
                request = self._core.compile_model(model, "CPU", self._options).create_infer_request()
            compiled = _Compiled(request, {name: request.get_tensor(name) for name in self.outputs})
            while len(self._compiled) >= self._sizes:
                del self._compiled[next(iter(self._compiled))]
        self._compiled[key] = compiled
        return compiled


def _writable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """OpenVINO shares no read-only memory, not even for an input."""
    return array if array.flags.writeable else array.copy()


def _spec(port: ov.ConstOutput) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else None for d in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(port.element_type.to_dtype()), shape)


def _first_line(error: Exception) -> str:
    """What went wrong, without the places in OpenVINO's source that it names first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (reasons or lines or [type(error).__name__])[0]
