"""INT8 graphs: convolutions quantised after training, on what their inputs are in calibration frames. Needs onnx."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from coop_perception.engines.frame_pass import Feed

PERCENTILE = 99.99
"""Share of a tensor's values, in percent, that its range holds: rare large ones would coarsen all others. Of a
segmenter's masks it changed 0.07 to 0.44 % of the pixels on four frames, the whole range 0.09 to 0.57 %."""
LEAST_CHANNELS = 16
"""That a convolution adds up, to be quantised."""


def quantize(model: onnx.ModelProto, feeds: Sequence[Feed], symmetric: bool) -> onnx.ModelProto:
    """The graph with its dense convolutions in INT8, weights per channel, quantisation nodes (QDQ) around them.

    Depthwise and 1x1 convolutions stay as they are, and those that read an image. In a segmenter with a mobile network
    for encoder, which is made of these, INT8 changed 2 to 15 % of a mask's pixels with them, and 0.1 to 0.5 % without.

    Args:
        model: `load_graph`'s.
        feeds: inputs of the graph that ranges are taken from, one run each.
        symmetric: zero points at zero, signed activations and float biases, all that TensorRT takes; otherwise
            `backends.INT8_SCHEME`, the fast one on CPUs.
    """
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    dense = _dense(model.graph)
    if not dense:
        return model
    # TensorRT also knows quantised additions and poolings, but places their scales better by itself.
    options: dict[str, Any] = {"CalibPercentile": PERCENTILE, "CalibStridedMinMax": 1}  # a frame's tensors at a time
    if symmetric:
        options |= {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
        # A convolution and the Relu or Add behind it are one kernel where nothing stands between them.
        options |= {"OpTypesToExcludeOutputQuantization": ["Conv"]}
        _raise_opset(model)
    else:
        _part_pads(model.graph)
    add_pre_process_metadata(model)  # it would ask for what `load_graph` has done
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints a line for each frame
            quantize_static(
                given,
                result,
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=not symmetric,
                nodes_to_exclude=[name for name in convolutions if name not in dense],
                calibrate_method=CalibrationMethod.Percentile,
                extra_options=options,
            )
        return onnx.load(result)


def _dense(graph: onnx.GraphProto) -> set[str]:
    """Names of convolutions of several pixels and LEAST_CHANNELS or more."""
    weights = {tensor.name: tensor.dims for tensor in graph.initializer}
    found = set()
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in weights:
            _, channels, *kernel = weights[node.input[1]]
            if channels >= LEAST_CHANNELS and math.prod(kernel) > 1:
                found.add(node.name)
    return found


def _raise_opset(model: onnx.ModelProto) -> None:
    """Scales in FP16, which the rest of a graph for TensorRT is in, there are from opset 19 on; its operators take all
    that those of 18 take."""
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = max(opset.version, 19)


def _part_pads(graph: onnx.GraphProto) -> None:
    """Put the larger of x and x in front of each Pad. OpenVINO 2026.4, once a graph has quantisation nodes, takes any
    subtraction for one, moves padding in front of it, and then pads with other values than the graph says."""
    for index, node in enumerate(list(graph.node)):
        if node.op_type == "Pad":
            given, name = node.input[0], f"{node.input[0]}_before_pad_{index}"
            at = list(graph.node).index(node)
            graph.node.insert(at, onnx.helper.make_node("Max", [given, given], [name], name=name))
            node.input[0] = name


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds = feeds
        self._next = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Feed | None:
        return next(self._next, None)
