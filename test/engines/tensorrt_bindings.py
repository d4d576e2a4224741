"""Run by test_tensorrt_bindings.py in a process of its own: real bindings of TensorRT, without its libraries.

Arguments: folder of the bindings, folder of the stub libraries, which are loaded first.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import _Context, _Engine

import coop_perception.engines
from coop_perception.engines import EngineError, tensorrt
from coop_perception.engines.build import _monitor, build, builds_for_named
from coop_perception.engines.modules import tensorrt_module
from coop_perception.engines.tensorrt_log import log_of

ENGINES = Path(coop_perception.engines.__file__).parent
DRIVERS = ("tensorrt", "build", "tensorrt_log", "modules")
"""The files that drive TensorRT; rtx_cache.py drives what only tensorrt_rtx has."""

CALLS: dict[str, dict[str, tuple[str, ...]]] = {
    "Runtime": {"deserialize_cuda_engine": ("serialized_engine",)},
    "ICudaEngine": {
        "get_tensor_name": ("index",),
        "get_tensor_mode": ("name",),
        "get_tensor_dtype": ("name",),
        "get_tensor_shape": ("name",),
        "get_tensor_profile_shape": ("name", "profile_index"),
        "create_execution_context": ("strategy",),
    },
    "IExecutionContext": {
        "set_device_memory": ("memory", "size"),
        "update_device_memory_size_for_shapes": (),
        "set_optimization_profile_async": ("profile_index", "stream_handle"),
        "set_input_shape": ("name", "shape"),
        "get_tensor_shape": ("name",),
        "set_tensor_address": ("name", "memory"),
        "execute_async_v3": ("stream_handle",),
    },
    "Builder": {
        "create_network": ("flags",),
        "create_builder_config": (),
        "create_optimization_profile": (),
        "build_serialized_network": ("network", "config"),
    },
    "OnnxParser": {"parse": ("model", "path"), "get_error": ("index",)},
    "ParserError": {"desc": (), "node_name": (), "node_operator": ()},
    "IBuilderConfig": {
        "set_flag": ("flag",),
        "clear_flag": ("flag",),
        "set_memory_pool_limit": ("pool", "pool_size"),
        "create_timing_cache": ("serialized_timing_cache",),
        "set_timing_cache": ("cache", "ignore_mismatch"),
        "add_optimization_profile": ("profile",),
    },
    "ITimingCache": {"serialize": ()},
    "IOptimizationProfile": {"set_shape": ("input", "min", "opt", "max")},
    "INetworkDefinition": {"get_input": ("index",), "get_output": ("index",)},
}
"""What is called, with the arguments in their order."""

PROPERTIES: dict[str, tuple[str, ...]] = {
    "ICudaEngine": ("num_io_tensors", "num_optimization_profiles"),
    "OnnxParser": ("num_errors",),
    "IBuilderConfig": ("progress_monitor",),
    "INetworkDefinition": ("num_inputs", "num_outputs"),
    "ITensor": ("name", "shape", "dtype"),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "TensorIOMode": ("INPUT",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "MemoryPoolType": ("WORKSPACE",),
    "DataType": ("UINT8", "FLOAT", "HALF", "INT32", "INT64"),
}
MODULE = ("ILogger", "IProgressMonitor", "Runtime", "Builder", "OnnxParser", "BuilderFlag", "nptype", "__version__")
ASKED_FOR = {
    *("IRuntimeCache", "is_stream_capturable", "set_compute_capability", "num_compute_capabilities"),
    *("ComputeCapability", "TF32", "REQUIRE_USER_ALLOCATION", "Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "log"),
    *("phase_start", "phase_finish", "step_complete"),
}
"""Used where `hasattr` finds it, or a class of ours that is tried below."""
OTHERS = {
    *("__name__", "append", "clear", "pop", "size", "itemsize", "float16", "float32", "int32", "int64", "uint8"),
    *("device_memory", "engine", "logger", "precision"),
}
"""Names of Python's, NumPy's and our own objects, too."""


def signatures(member: Any) -> list[list[str]]:
    """Argument names of every overload, self left out."""
    found = re.findall(r"^\s*(?:\d+\. )?\w+\(self: [\w.]+(?:, (.*))?\) ->", member.__doc__ or "", re.MULTILINE)
    return [re.findall(r"(\w+): ", arguments) for arguments in found]


def check_names(module: ModuleType) -> None:
    for name in MODULE:
        assert hasattr(module, name), name
    for owner, members in PROPERTIES.items():
        for member in members:
            assert hasattr(getattr(module, owner), member), f"{owner}.{member}"
    for owner, calls in CALLS.items():
        for name, arguments in calls.items():
            overloads = signatures(getattr(getattr(module, owner), name))
            fits = any(tuple(overload[: len(arguments)]) == arguments for overload in overloads)
            assert fits, f"{owner}.{name}{arguments}: {overloads}"


def check_nothing_else_is_used(module: ModuleType) -> None:
    """Every attribute in the files that drive it which one of its classes has stands in the tables."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    theirs = {name for one in classes for name in dir(one) if not name.startswith("_")} | set(dir(module))
    trees = [ast.parse((ENGINES / f"{file}.py").read_text()) for file in DRIVERS]
    used = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    known = {name for calls in CALLS.values() for name in calls} | {one for many in PROPERTIES.values() for one in many}
    unknown = (used & theirs) - known - set(MODULE) - ASKED_FOR - OTHERS - set(CALLS) - set(PROPERTIES)
    assert not unknown, f"not in the tables: {sorted(unknown)}"
    never = {name for calls in CALLS.values() for name in calls} - used
    assert not never, f"in the tables, and not used: {sorted(never)}"


def check_fakes(module: ModuleType) -> None:
    def public(fake: type) -> set[str]:
        return {name for name in vars(fake) if not name.startswith("_")}

    assert public(_Engine) - {"context"} <= set(dir(module.ICudaEngine))
    assert public(_Context) - {"cache", "strategy"} <= set(dir(module.IExecutionContext))


def check_own_classes(module: ModuleType) -> None:
    log = log_of(module)
    log.logger.log(module.ILogger.Severity.ERROR, "said")
    assert log.text() == "said"
    steps: list[tuple[str, int, int]] = []
    monitor = _monitor(module, lambda *step: steps.append(step))
    monitor.phase_start("build", None, 2)
    monitor.phase_start("inner", "build", 7)
    assert monitor.step_complete("build", 0)
    monitor.phase_finish("build")
    assert steps == [("build", 0, 2), ("build", 1, 2), ("build", 2, 2)]
    assert np.dtype(module.nptype(module.DataType.UINT8)) == np.uint8
    assert not builds_for_named(module)


def check_without_a_gpu(folder: Path) -> None:
    """As far as it comes where nothing can be made."""
    module = tensorrt_module("tensorrt")
    path = folder / "network.engine"
    path.write_bytes(b"")
    cuda = FakeCuda()
    sys.modules |= cuda.modules()
    for work in (
        lambda: tensorrt.load({"network": path}, "tensorrt", "fp16", print),
        lambda: build(module, path, b"", "8.9", lambda inputs: []),
    ):
        with pytest.raises(EngineError, match=rf"{module.__version__} does not start"):
            work()
    assert cuda.left() == []


def main() -> None:
    bindings, stubs = map(Path, sys.argv[1:])
    for library in sorted(stubs.glob("*.so*")):
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    sys.path.insert(0, str(bindings))
    module = sys.modules["tensorrt"] = importlib.import_module("tensorrt_bindings")
    check_names(module)
    check_nothing_else_is_used(module)
    check_fakes(module)
    check_own_classes(module)
    check_without_a_gpu(stubs)
    print(module.__version__)


if __name__ == "__main__":
    main()
