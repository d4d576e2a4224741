"""ONNX graphs out of PyTorch modules."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import opset18 as op
from onnxscript import optimizer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

OPSET = 18
"""Of every graph of a bundle. For later ones ONNX Runtime has fewer operators on GPUs."""
IR_VERSION = 10
HALVED_FROM = 1024
"""Weights of at least this many elements are stored as float16: half the bundle, and what FP16 engines read anyway."""
HALVED = "_fp16"
"""What the name of such a tensor ends with."""

Axes = Mapping[int, Any]
"""Dimensions (`torch.export.Dim`) of an input by axis; axes that are left out are of one size."""


def export_graph(
    graph: nn.Module, given: Sequence[Tensor], inputs: Mapping[str, Axes], outputs: Sequence[str]
) -> onnx.ModelProto:
    """The ONNX graph of a module.

    Args:
        graph: in evaluation mode.
        given: its arguments, by way of example: along no dynamic axis shorter than 2.
        inputs: names of the graph's inputs, and which of their axes are dynamic.
        outputs: names of the graph's outputs.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # that it has no torchvision, which nothing here needs
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecations inside PyTorch
        program = torch.onnx.export(
            graph,
            tuple(given),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(axes) for axes in inputs.values()),
            custom_translation_table={torch.ops.aten.pixel_unshuffle.default: _pixel_unshuffle},
            optimize=False,
            verbose=False,
        )
        assert program is not None
        with values_withheld(program.model, graph.state_dict().keys()):
            optimizer.optimize_ir(program.model)
    proto = program.model_proto
    feed_casts_alone(proto.graph)
    return proto


@contextmanager
def values_withheld(model: onnx_ir.Model, names: Collection[str]) -> Iterator[None]:
    """Within, initializers of these names have no values that an optimiser could simplify by. It would merge those of
    equal content, leave out biases that are 0 and fold others into constants, and what is trained on from the graph
    would miss them."""
    held = {name: value for name, value in model.graph.initializers.items() if name in names}
    values = {name: value.const_value for name, value in held.items()}
    log = logging.getLogger("onnx_ir.passes.common.initializer_deduplication")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of each
    for value in held.values():
        value.const_value = None
    try:
        yield
    finally:
        log.setLevel(level)
        for name, value in held.items():
            value.const_value = values[name]


def _pixel_unshuffle(x: Any, factor: int) -> Any:
    """As SpaceToDepth of each channel by itself, which puts pixels in the order that PyTorch does, and which needs no
    size. PyTorch's own translation is arithmetic with them."""
    apart: Any = op.Constant(value_ints=[-1, 1, 0, 0])
    together: Any = op.Constant(value_ints=[-1, x.shape[1] * factor**2, 0, 0])
    return op.Reshape(op.SpaceToDepth(op.Reshape(x, apart), blocksize=factor), together)


def feed_casts_alone(graph: onnx.GraphProto) -> None:
    """Let whatever asks a graph's input of bytes for its shape ask the cast behind it: TensorRT takes bytes into
    nothing but casts."""
    for value in graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        takers = [node for node in graph.node if value.name in node.input]
        casts = [node for node in takers if node.op_type == "Cast"]
        if not casts:
            continue  # a variant may make nothing of an input
        for node in takers:
            if node.op_type == "Shape":
                node.input[0] = casts[0].output[0]
        first = min(index for index, node in enumerate(graph.node) if node in takers)
        graph.node.remove(casts[0])
        graph.node.insert(first, casts[0])


def fold_normalisations(network: nn.Module) -> None:
    """Put each batch normalisation behind a convolution into that one's weights, in place, as an exporter would; done
    here, they keep their names (see `coop_training.bundle_weights`) and are rounded as the graph has them."""
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for (place, convolution), (behind, norm) in pairwise(list(module.named_children())):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module.register_module(place, fuse_conv_bn_eval(convolution, norm))
                    module.register_module(behind, nn.Identity())


def halve_weights(network: nn.Module) -> None:
    """Round large weights to float16's grid, in place: PyTorch and graphs then compute with the same numbers."""
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


def save_graph(proto: onnx.ModelProto, path: Path) -> None:
    """Write a graph without what the exporter noted of where its parts come from (source files of this machine among
    it, and most of the bytes), and check it."""
    graph = proto.graph
    graph.ClearField("metadata_props")
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)
