"""ONNX graphs: out of PyTorch modules, and joined into one."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, compose, external_data_helper, helper, numpy_helper
from torch import Tensor, nn

from coop_training.graph_optimization import optimize

OPSET = 20
"""Of every graph of a bundle: graphs of different ones cannot be joined."""
IR_VERSION = 10
SHARED_FROM = 4096
"""Bytes from which a tensor goes into the weights' file, and to a multiple of which it is aligned there."""
HALVED_FROM = 1024
"""Weights of at least this many elements are stored as float16: half the bundle, and what FP16 engines read anyway."""
HALVED = "_fp16"
"""What the name of such a tensor ends with."""


def export_graph(
    graph: nn.Module, given: Sequence[Tensor], inputs: Sequence[str], outputs: Sequence[str], any_size: bool = False
) -> onnx.ModelProto:
    """The ONNX graph of a module.

    Args:
        graph: in evaluation mode.
        given: its arguments for an example batch of at least two, the batch first in each.
        inputs: names of the graph's inputs.
        outputs: names of the graph's outputs.
        any_size: whether height and width, axes 2 and 3 of the inputs, are dynamic as the batch is.
    """
    axes = {0: torch.export.Dim("batch", min=1, max=64)}
    if any_size:
        axes |= dict.fromkeys((2, 3), torch.export.Dim.DYNAMIC)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that it has no torchvision, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside PyTorch
        program = torch.onnx.export(
            graph,
            tuple(given),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=(axes,) * len(given),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        optimize(program.model)
    return program.model_proto


def share_weights(graphs: Collection[onnx.ModelProto], path: Path) -> None:
    """Write the graphs' large tensors into one file, equal ones once, and let the graphs refer to it.

    The file's checksum goes into each graph's metadata, so that a graph's own changes with the weights.
    """
    weights = bytearray()
    places: dict[bytes, int] = {}
    found: list[tuple[onnx.TensorProto, bytes]] = []
    for proto in graphs:
        for tensor in proto.graph.initializer:
            raw = numpy_helper.to_array(tensor).tobytes()
            if len(raw) < SHARED_FROM:
                continue
            if raw not in places:
                weights += bytes(-len(weights) % SHARED_FROM)  # aligned for whoever maps the file into memory
                places[raw] = len(weights)
                weights += raw
            found.append((tensor, raw))
    for tensor, raw in found:
        tensor.raw_data = raw
        external_data_helper.set_external_data(tensor, path.name, places[raw], len(raw))
        tensor.ClearField("raw_data")
        for field in ("float_data", "int32_data", "int64_data"):
            tensor.ClearField(field)
    path.write_bytes(weights)
    for proto in graphs:
        helper.set_model_props(proto, {"weights_sha256": hashlib.sha256(weights).hexdigest()})


def save_graph(proto: onnx.ModelProto, path: Path) -> None:
    """Write a graph, beside its weights' file, without what the exporter noted of where its parts come from (source
    files of this machine among it, and most of the bytes), and check it."""
    graph = proto.graph
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)


def halve_weights(network: nn.Module) -> None:
    """Round large weights to float16's grid, in place: PyTorch and graphs then compute with nearly the same numbers.

    Nearly, as the exporter folds the segmenter's batch normalisations into them, and these products are rounded too.
    """
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() >= HALVED_FROM:
                parameter.copy_(parameter.half().float())


def store_weights_halved(proto: onnx.ModelProto, weights: Collection[str]) -> None:
    """Replace large float32 initializers that are weights, by their names, by float16 ones with a Cast behind, which
    runtimes fold away at load. Others, such as filters that are computed, stay as exact as they are."""
    for tensor in list(proto.graph.initializer):
        if tensor.name not in weights or np.prod(tensor.dims) < HALVED_FROM:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + HALVED)
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(half)
        proto.graph.node.insert(
            0, helper.make_node("Cast", [half.name], [name], name=name + "_cast", to=TensorProto.FLOAT)
        )


def join(name: str, parts: Mapping[str, onnx.ModelProto], outputs: Sequence[str]) -> onnx.ModelProto:
    """Graphs into one, connected where an output of one has the name of another's input.

    Args:
        name: of the joined graph.
        parts: by a prefix for the names of their inner tensors, each after those whose outputs it takes. An input that
            no earlier part gives is one of the joined graph; parts that name the same one share it.
        outputs: those of the parts' outputs that the joined graph gives.

    Returns:
        A model of the highest IR version among the parts, whose batch is the first part's.
    """
    graph = onnx.GraphProto(name=name)
    opsets: dict[str, int] = {}
    given: set[str] = set()
    found: dict[str, onnx.ValueInfoProto] = {}
    for prefix, part in parts.items():
        opsets |= {entry.domain: entry.version for entry in part.opset_import}
        part = compose.add_prefix(part, f"{prefix}/", rename_inputs=False, rename_outputs=False)
        graph.input.extend(value for value in part.graph.input if value.name not in given | found.keys())
        given |= {value.name for value in graph.input}
        found |= {value.name: value for value in part.graph.output}
        graph.node.extend(part.graph.node)
        graph.initializer.extend(part.graph.initializer)
        graph.value_info.extend(part.graph.value_info)  # that shapes are equal lets runtimes fuse what they would not
        graph.sparse_initializer.extend(part.graph.sparse_initializer)
    graph.output.extend(found[output] for output in outputs)
    graph.value_info.extend(value for name, value in found.items() if name not in outputs)
    skip_bytes_between(graph, given | found.keys())
    produced = {name for node in graph.node for name in node.output} - set(outputs)
    known = [value for value in graph.value_info if value.name in produced]
    del graph.value_info[:]
    graph.value_info.extend(known)
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
