"""ONNX Runtime on the CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from coop_perception.engines import EngineError, TensorSpec

_DTYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


class OnnxRuntimeEngine:
    """An ONNX file in an ONNX Runtime CPU session (see `Engine`).

    Args:
        path: the ONNX file.
        threads: of one run; 0: as many as the process may use cores.

    Raises:
        EngineError: the file cannot be loaded.
    """

    backend = "onnxruntime"
    precision = "fp32"

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
        # Spinning workers would take the cores that DDS and image conversion need between two frames.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no public base class
            raise EngineError(f"{path}: ONNX Runtime {ort.__version__} cannot load it: {_first_line(error)}") from error
        self._path = path
        self._run_options = ort.RunOptions()
        self._run_options.only_execute_path_to_fetches = True
        self.device = _cpu_name()
        self.inputs: Mapping[str, TensorSpec] = {node.name: _spec(path, node) for node in self._session.get_inputs()}
        self.outputs: Mapping[str, TensorSpec] = {node.name: _spec(path, node) for node in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, NDArray[np.generic]], wanted: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        try:
            values = self._session.run(list(wanted), dict(feeds), self._run_options)
        except Exception as error:
            shapes = {name: (str(value.dtype), value.shape) for name, value in feeds.items()}
            raise EngineError(f"{self._path}: run failed on {shapes}: {_first_line(error)}") from error
        return dict(zip(wanted, values, strict=True))


def _spec(path: Path, node: ort.NodeArg) -> TensorSpec:
    if node.type not in _DTYPES:
        raise EngineError(f"{path}: tensor {node.name!r} is {node.type}, expected one of {', '.join(_DTYPES)}")
    return TensorSpec(
        node.name, np.dtype(_DTYPES[node.type]), tuple(d if isinstance(d, int) else None for d in node.shape)
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else "CPU"
