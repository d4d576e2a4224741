"""TensorRT engines out of ONNX graphs: one way for tensorrt 10.3 and later, 11, and tensorrt_rtx.

Networks are strongly typed: the graph says what is computed in which precision. Needs no GPU where the module can be
given a compute capability, as tensorrt_rtx can; tensorrt builds for the GPU that is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from coop_perception.engines import EngineError
from coop_perception.engines.cuda import memory_in_use
from coop_perception.engines.exclusive import exclusive
from coop_perception.engines.modules import made
from coop_perception.engines.profiles import Profile, Shape
from coop_perception.engines.tensorrt_log import log_of

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase of the build, steps done and steps of it."""


@dataclass(frozen=True, slots=True)
class Built:
    """An engine file's content, its tensors: dictionaries of name, side (input, output), dtype and shape, what is to be
    given to the next build of any network, empty where there is no such thing, and the profiles that it was built for.
    """

    data: bytes
    tensors: list[dict[str, Any]]
    timings: bytes = b""
    profiles: Sequence[Profile] = ()


def builds_for_named(module: ModuleType) -> bool:
    """Whether the module builds for a named compute capability, without a GPU; else for the GPU that is there."""
    return hasattr(module.IBuilderConfig, "set_compute_capability")


def build(
    module: ModuleType,
    source: Path,
    graph: bytes,
    compute_capability: str,
    profiles: Callable[[Mapping[str, Shape]], Sequence[Profile]],
    progress: Progress | None = None,
    timings: bytes = b"",
) -> Built:
    """Build an engine.

    Args:
        module: of `tensorrt_module`.
        source: the ONNX file that the graph comes from, for messages and for weights that lie beside it.
        graph: serialised ONNX model.
        compute_capability: as "8.9"; without effect where the module builds for the GPU that is there.
        profiles: gives what to build for, one profile or more, for the graph's inputs by name, whose dynamic dimensions
            are -1; not asked where none is dynamic.
        progress: called along the build.
        timings: a former build's, of the same module and GPU: how long kernels took.

    Raises:
        EngineError: operators that TensorRT has not, named; a shape that `profiles` refuses; a compute capability that
            the module does not build for; the build failed.
    """
    with exclusive():
        return _build(module, source, graph, compute_capability, profiles, progress, timings)


def _build(
    module: ModuleType,
    source: Path,
    graph: bytes,
    compute_capability: str,
    profiles: Callable[[Mapping[str, Shape]], Sequence[Profile]],
    progress: Progress | None,
    timings: bytes,
) -> Built:
    log = log_of(module)
    log.clear()
    builder = made(_named(module), lambda: module.Builder(log.logger), log.text)
    network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = module.OnnxParser(network, log.logger)
    if not parser.parse(graph, str(source)):
        raise EngineError(f"{source}: {_named(module)} cannot take this graph: {_parser_errors(parser) or log.text()}")
    config = builder.create_builder_config()
    if builds_for_named(module):
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(capability(module, compute_capability), 0):
            raise EngineError(f"{_named(module)} refused compute capability {compute_capability}: {log.text()}")
    if hasattr(module.BuilderFlag, "TF32"):  # which is on by default, and keeps 10 bits of FP32's 23
        config.clear_flag(module.BuilderFlag.TF32)
    if hasattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # else it may refuse to be captured as a CUDA graph
        config.set_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION)
    cache = None
    if not builds_for_named(module):  # tensorrt_rtx tries no kernels
        # What they may take while they are tried. On an integrated GPU the default is all of the machine's memory.
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, memory_in_use()[1] // 2)
        cache = config.create_timing_cache(timings)
        if not config.set_timing_cache(cache, False):  # of another GPU or version
            cache = config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
    given = {tensor.name: tuple(tensor.shape) for tensor in map(network.get_input, range(network.num_inputs))}
    chosen: Sequence[Profile] = ()
    if any(-1 in shape for shape in given.values()):
        try:
            chosen = profiles(given)
            _add_profiles(builder, config, chosen)
        except EngineError as error:
            raise EngineError(f"{source}: {error}") from error
    if progress is not None and hasattr(config, "progress_monitor"):
        monitor = _monitor(module, progress)
        config.progress_monitor = monitor
    data = builder.build_serialized_network(network, config)
    if data is None:
        raise EngineError(f"{source}: {_named(module)} did not build it: {log.text()}")
    inputs = [_tensor(module, "input", network.get_input(i)) for i in range(network.num_inputs)]
    outputs = [_tensor(module, "output", network.get_output(i)) for i in range(network.num_outputs)]
    return Built(bytes(data), inputs + outputs, bytes(cache.serialize()) if cache else b"", chosen)


def _named(module: ModuleType) -> str:
    return f"{module.__name__} {module.__version__}"


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    operators: dict[str, list[str]] = {}
    others = []
    for error in errors:
        reason = error.desc()
        if reason == "false" or "Plugin not found" in reason:  # all that it says of an operator it has not
            operators.setdefault(error.node_operator(), []).append(error.node_name() or "without a name")
        else:
            node = f"{error.node_operator()} {error.node_name()}".strip()
            others.append(f"{node}: {reason}" if node else reason)
    unsupported = [f"operator {kind} is not supported (nodes {', '.join(nodes)})" for kind, nodes in operators.items()]
    return "; ".join(unsupported + others)


def capability(module: ModuleType, named: str) -> Any:
    """The module's member for a compute capability as "8.9".

    Raises:
        EngineError: it does not build for that one.
    """
    members = {
        f"{int(member) // 10}.{int(member) % 10}": member
        for name, member in module.ComputeCapability.__members__.items()
        if name.startswith("SM")
    }
    if named not in members:
        raise EngineError(
            f"{_named(module)} does not build for compute capability {named}, only for {', '.join(members)}; "
            "such a GPU needs backend tensorrt"
        )
    return members[named]


def _add_profiles(builder: Any, config: Any, profiles: Sequence[Profile]) -> None:
    for wanted in profiles:
        profile = builder.create_optimization_profile()
        for name, (least, tuned, most) in wanted.items():
            profile.set_shape(name, least, tuned, most)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"a profile is refused: {wanted}")


def _tensor(module: ModuleType, side: str, tensor: Any) -> dict[str, Any]:
    shape = [None if size == -1 else int(size) for size in tensor.shape]
    return {"name": tensor.name, "side": side, "dtype": np.dtype(module.nptype(tensor.dtype)).name, "shape": shape}


def _monitor(module: ModuleType, progress: Progress) -> Any:
    """The module's progress monitor. Phases nest; only the outermost are reported."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)  # pybind's classes want it so
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._steps[phase_name] = num_steps
                progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._steps:
                progress(phase_name, step + 1, self._steps[phase_name])
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self._steps:
                steps = self._steps.pop(phase_name)
                progress(phase_name, steps, steps)

    return Monitor()
