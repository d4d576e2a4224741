"""OpenVINO on the CPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines import EngineError, Tensor, TensorSpec, checked
from coop_perception.engines.cpu import cpu_name, usable_cores
from coop_perception.engines.signal_stack import signal_stack_kept

# OpenVINO imports its model converter where it can, which nothing here needs, and which reports every use to its makers
# over the network, in a thread of its own that is still there when the process is to end.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]
import openvino as ov  # noqa: E402

if sys.modules["openvino.tools.ovc"] is None:
    del sys.modules["openvino.tools.ovc"]

VERSION = ov.__version__
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""INFERENCE_PRECISION_HINT by precision; without one OpenVINO takes bf16 wherever the CPU has it."""


class OpenVinoEngine:
    """An ONNX file compiled by OpenVINO (see `Engine`).

    It is compiled for one frame, and a batch is run frame by frame: with a dynamic batch OpenVINO plans no memory ahead
    and is slower, and one frame keeps all cores busy anyway.

    Args:
        path: the ONNX file.
        threads: of one run; 0: as many as the process may use cores.
        precision: fp32, bf16, or int8, for which the file itself must be quantised.

    Raises:
        EngineError: the file cannot be loaded, or the CPU does not have that precision.
    """

    backend, on_gpu = "openvino", False

    def __init__(self, path: Path, threads: int = 0, precision: str = "fp32") -> None:
        # OpenVINO gives the thread a stack for signal handlers of the least size there is. A signal that comes while
        # wide registers are in use, by PyTorch say, does not fit on it, and kills the process.
        with signal_stack_kept():
            self._load(path, threads, precision)

    def _load(self, path: Path, threads: int, precision: str) -> None:
        core = ov.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(f"{path}: precision bf16: {cpu_name()} does not have it; choose fp32 or int8")
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "ENABLE_CPU_PINNING": False,  # DDS and image conversion share the cores
        }
        try:
            model = core.read_model(path)
            self.inputs: Mapping[str, TensorSpec] = {p.any_name: _spec(p) for p in model.inputs}
            model.reshape({name: list(spec.sized(1)) for name, spec in self.inputs.items()})
            self.outputs: Mapping[str, TensorSpec] = {p.any_name: _spec(p) for p in model.outputs}
            self._request: ov.InferRequest | None = core.compile_model(model, "CPU", options).create_infer_request()
            self._unwanted = {name: self._request.get_tensor(name) for name in self.outputs}
        except RuntimeError as error:
            raise EngineError(f"{path}: OpenVINO {ov.__version__} cannot load it: {_first_line(error)}") from error
        self._path = path
        self.precision = precision
        self.device = cpu_name()

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        return checked(self.inputs[name], array)

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return np.empty(shape, self.outputs[name].dtype)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        if self._request is None:
            raise EngineError(f"{self._path}: the engine is closed")
        given = {name: _writable(checked(self.inputs[name], value)) for name, value in feeds.items()}
        batch = len(next(iter(given.values())))
        into = into or {}
        results = {
            name: into[name] if name in into else self.allocate(name, self.outputs[name].sized(batch))
            for name in wanted
        }
        try:
            for index in range(batch):
                for name, value in given.items():
                    self._request.set_tensor(name, ov.Tensor(value[index : index + 1], shared_memory=True))
                # All of them: what is not wanted now must not be written to memory that was given before.
                for name, unwanted in self._unwanted.items():
                    wanted_here = name in results
                    tensor = (
                        ov.Tensor(results[name][index : index + 1], shared_memory=True) if wanted_here else unwanted
                    )
                    self._request.set_tensor(name, tensor)
                self._request.infer()
        except RuntimeError as error:
            shapes = {name: (str(value.dtype), value.shape) for name, value in given.items()}
            raise EngineError(f"{self._path}: run failed on {shapes}: {_first_line(error)}") from error
        return results

    def prepare(self) -> None:
        pass  # frames run one after the other, all of one shape

    def close(self) -> None:
        self._request, self._unwanted = None, {}


def _writable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """OpenVINO shares no read-only memory, not even for an input."""
    return array if array.flags.writeable else array.copy()


def _spec(port: ov.ConstOutput) -> TensorSpec:
    shape = tuple(d.get_length() if d.is_static else None for d in port.partial_shape)
    return TensorSpec(port.any_name, np.dtype(port.element_type.to_dtype()), (None, *shape[1:]))


def _first_line(error: Exception) -> str:
    """What went wrong, without the places in OpenVINO's source that it names first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (reasons or lines or [type(error).__name__])[0]
