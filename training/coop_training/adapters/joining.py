"""ONNX graphs, one behind the other, into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import TensorProto, compose, helper


def join(name: str, parts: Mapping[str, onnx.ModelProto], outputs: Sequence[str]) -> onnx.ModelProto:
    """Graphs into one, connected where an output of one has the name of another's input.

    Args:
        name: of the joined graph.
        parts: by a prefix for the names of their inner tensors, each after those whose outputs it takes. An input that
            no earlier part gives is one of the joined graph.
        outputs: those of the parts' outputs that the joined graph gives.

    Returns:
        A model of the highest IR version among the parts, whose batch is the first part's.
    """
    graph = onnx.GraphProto(name=name)
    opsets: dict[str, int] = {}
    found: dict[str, onnx.ValueInfoProto] = {}
    for prefix, part in parts.items():
        opsets |= {entry.domain: entry.version for entry in part.opset_import}
        part = compose.add_prefix(part, f"{prefix}/", rename_inputs=False, rename_outputs=False)
        graph.input.extend(value for value in part.graph.input if value.name not in found)
        found |= {value.name: value for value in part.graph.output}
        graph.node.extend(part.graph.node)
        graph.initializer.extend(part.graph.initializer)
        graph.sparse_initializer.extend(part.graph.sparse_initializer)
    graph.output.extend(found[output] for output in outputs)
    skip_bytes_between(graph, set(found))
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=max(part.ir_version for part in parts.values()),
    )


def skip_bytes_between(graph: onnx.GraphProto, between: set[str]) -> None:
    """Where a cast to uint8 gives a tensor out of `between`, let casts that take it take what that cast takes.

    TensorRT knows uint8 at a graph's ends only. Right where nothing is lost: for values that are whole, 0..255.
    """
    casts = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Cast"
        and node.output[0] in between
        and any(a.name == "to" and a.i == TensorProto.UINT8 for a in node.attribute)
    }
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in casts:
            node.input[0] = casts[node.input[0]].input[0]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name, node in casts.items():
        if name not in used:
            graph.node.remove(node)
