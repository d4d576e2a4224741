"""ONNX graphs as precision conversions need them. Needs the package onnx, which only building engines does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper


def load_graph(path: Path) -> onnx.ModelProto:
    """A model with its weights in it, a name for every node, and float32 weights where float16 ones had a cast behind.

    Raises:
        OSError: the file or its weights' file cannot be read.
    """
    model = onnx.load(path)
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in initializers]:
        halved = initializers[node.input[0]]
        if halved.data_type == TensorProto.FLOAT16 and node.attribute[0].i == TensorProto.FLOAT:
            values = numpy_helper.to_array(halved).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    for index, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """TensorProto's element type of every tensor of the graph that has a name, initializers left out."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values}
