"""FP16 graphs: what float16 can hold is computed in it, the rest and the graph's ends stay as they are.

TensorRT's networks are strongly typed: the precision of every operation is the graph's. Needs the package onnx.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers import float16
from onnxruntime.transformers.onnx_model import OnnxModel

from coop_perception.engines.onnx_graphs import element_types

KEPT_KINDS = (
    *("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "GlobalAveragePool"),
    *("InstanceNormalization", "LayerNormalization", "GroupNormalization", "BatchNormalization"),
    *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal"),
)
"""Sums of a whole image leave half's range on some hardware even where their results do not; the others are steep."""
MARGIN = 8.0
"""Frames to come may hold values that much larger than any measured."""
PLACING = {"GridSample": 1}
"""Inputs that say where in an image a value is read: half's digits do not tell pixels apart from 2,048 on."""
ROUNDING = 1e-3
"""Relative error of a tensor in float16 from which it is said not to fit: its own rounding gives a quarter of that."""

Feeds = Iterable[Mapping[str, NDArray[np.generic]]]


def beyond_half(model: onnx.ModelProto, feeds: Feeds) -> set[str]:
    """Names of nodes that take or give values which float16 cannot hold: too large, or so small that they lose digits.

    Args:
        model: `load_graph`'s.
        feeds: inputs of the graph, one run each.
    """
    tensors = [name for name, kind in element_types(model).items() if kind == TensorProto.FLOAT]
    measured = onnx.ModelProto()
    measured.CopyFrom(model)
    for index, name in enumerate(tensors):
        _measure(measured.graph, name, index)
    session = ort.InferenceSession(measured.SerializeToString(), _quiet(), providers=["CPUExecutionProvider"])
    names = [f"measured_{kind}" for kind in ("largest", "length", "lost")]
    wanted = [f"{name}_{index}" for index in range(len(tensors)) for name in names]
    beyond: set[str] = set()
    for feed in feeds:
        values = np.array(session.run(wanted, dict(feed)), np.float64).reshape(-1, 3)
        beyond |= {name for name, (a, b, c) in zip(tensors, values, strict=True) if not _fits(a, b, c)}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            exact = numpy_helper.to_array(tensor).astype(np.float64)
            with np.errstate(over="ignore"):
                lost = exact - exact.astype(np.float16)
            largest = float(np.abs(exact).max(initial=0.0))
            if not _fits(largest / MARGIN, float(np.linalg.norm(exact)), float(np.linalg.norm(lost))):
                beyond.add(tensor.name)
    return {node.name for node in model.graph.node if beyond & {*node.input, *node.output}}


def to_half(model: onnx.ModelProto, kept: Collection[str] = ()) -> tuple[onnx.ModelProto, int]:
    """The graph with float16 inside. Inputs and outputs keep their types.

    Args:
        model: `load_graph`'s, which is changed and not to be used any more.
        kept: names of nodes that stay float32, besides those of KEPT_KINDS and what PLACING's inputs are computed by.

    Returns:
        The graph, and how many of its nodes compute in float32.
    """
    types = element_types(model)
    kept = {*kept, *placing(model.graph)}
    initializers = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    blocked = set(float16.DEFAULT_OP_BLOCK_LIST) | set(KEPT_KINDS)
    full = [
        node
        for node in model.graph.node
        if (node.op_type in blocked or node.name in kept)
        and any((types | initializers).get(name) == TensorProto.FLOAT for name in (*node.input, *node.output))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights too small for float16, which `beyond_half` has judged
        half = float16.convert_float_to_float16(
            model, keep_io_types=True, op_block_list=sorted(blocked), node_block_list=sorted(kept)
        )
    _skip_half_between(half.graph)
    del half.graph.value_info[:]  # says float16 of what stayed float32
    OnnxModel(half).topological_sort()  # the casts that were put in stand at the end
    onnx.checker.check_model(half, full_check=True)
    return half, len(full)


def placing(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that PLACING's inputs are computed by, and of those that read there."""
    makers = {name: node for node in graph.node for name in node.output}
    names: set[str] = set()
    wanted = []
    for node in graph.node:
        if node.op_type in PLACING:
            names.add(node.name)
            wanted.append(node.input[PLACING[node.op_type]])
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.name not in names:
            names.add(node.name)
            wanted += node.input
    return names


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph with float16 inside as ONNX Runtime's CPU runs it truly: in float32, every float16 result rounded to it.

    For float16 graphs themselves it puts casts around each operation and drops those that meet, and with them any
    overflow or loss of digits between.
    """
    types = element_types(model)
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.value_info[:], shown.graph.node[:]
    for tensor in shown.graph.initializer:
        _widen(tensor)
    for original in model.graph.node:
        node = shown.graph.node.add()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            _widen(attribute.t)
        for index, name in enumerate(original.output):
            if types.get(name) == TensorProto.FLOAT16:
                node.output[index] = f"{name}_unrounded"
                pair = ((f"{name}_unrounded", f"{name}_half", "FLOAT16"), (f"{name}_half", name, "FLOAT"))
                shown.graph.node.extend(
                    helper.make_node("Cast", [a], [b], to=TensorProto.DataType.Value(kind)) for a, b, kind in pair
                )
    return shown


def _skip_half_between(graph: onnx.GraphProto) -> None:
    """Let float32 go to float32 straight where the converter put casts to float16 and back between two kept nodes."""

    def casts(kind: int) -> list[onnx.NodeProto]:
        return [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == kind]

    to_half = {node.output[0]: node for node in casts(TensorProto.FLOAT16)}
    for node in casts(TensorProto.FLOAT):
        if node.input[0] in to_half:
            node.input[0] = to_half[node.input[0]].input[0]
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for name, node in to_half.items():
        if name not in used:
            graph.node.remove(node)


def _measure(graph: onnx.GraphProto, tensor: str, index: int) -> None:
    """Give the graph three more outputs: largest magnitude, length, and the length of what rounding takes."""
    names = {key: f"measured_{key}_{index}" for key in ("size", "half", "back", "rest", "largest", "length", "lost")}
    graph.node.extend(
        [
            helper.make_node("Abs", [tensor], [names["size"]]),
            helper.make_node("ReduceMax", [names["size"]], [names["largest"]], keepdims=0),
            helper.make_node("ReduceL2", [tensor], [names["length"]], keepdims=0),
            helper.make_node("Cast", [tensor], [names["half"]], to=TensorProto.FLOAT16),
            helper.make_node("Cast", [names["half"]], [names["back"]], to=TensorProto.FLOAT),
            helper.make_node("Sub", [tensor, names["back"]], [names["rest"]]),
            helper.make_node("ReduceL2", [names["rest"]], [names["lost"]], keepdims=0),
        ]
    )
    for key in ("largest", "length", "lost"):
        graph.output.append(helper.make_tensor_value_info(names[key], TensorProto.FLOAT, []))


def _fits(largest: float, length: float, lost: float) -> bool:
    return largest * MARGIN <= float(np.finfo(np.float16).max) and lost <= ROUNDING * length  # not for NaN


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _quiet() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return options
