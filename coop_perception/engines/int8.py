"""INT8 graphs: convolutions quantised after training, on what their inputs are in calibration frames. Needs onnx."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from coop_perception.engines.half import Feeds


def quantize(model: onnx.ModelProto, feeds: Feeds, symmetric: bool) -> onnx.ModelProto:
    """The graph with its convolutions in INT8, weights per channel, quantisation nodes (QDQ) around them.

    Args:
        model: `load_graph`'s.
        feeds: inputs of the graph that ranges are taken from, one run each.
        symmetric: zero points at zero, signed activations and float biases, all that TensorRT takes; otherwise
            unsigned activations, which are the fast ones on CPUs.
    """
    # TensorRT also knows quantised additions and poolings, but places their scales better by itself.
    kinds: dict[str, Any] = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    if symmetric:
        kinds["activation_type"] = QuantType.QInt8
        kinds["extra_options"] = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    add_pre_process_metadata(model)  # it would ask for what `load_graph` has done
    with tempfile.TemporaryDirectory() as folder:
        given, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, given)
        quantize_static(
            given,
            result,
            _Reader(iter(feeds)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv"],
            **kinds,
        )
        return onnx.load(result)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[Mapping[str, NDArray[np.generic]]]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        return next((dict(feed) for feed in self._feeds), None)
