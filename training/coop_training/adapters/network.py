"""A user's ONNX network, opened: what its description leaves unsaid is read from it, and what is said is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import inliner, version_converter
from onnx_ir.passes import common as passes

from coop_training.adapters.description import Adapter, AdapterError
from coop_training.onnx_graphs import OPSET

INPUT, OUTPUT = "network_input", "network_output"
INPUT_TYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.UINT8)
SAME_VALUES = 0.999


class Network:
    """An ONNX file with one image input, and of its outputs the one that is described, made fit to be joined.

    `graph` goes from INPUT to OUTPUT, in opset OPSET, without functions of its own, with a dynamic batch.

    Args:
        adapter: the file's description.

    Raises:
        AdapterError: the file cannot be read, is not as described, or is of an opset that cannot be converted.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.path = path = adapter.onnx
        try:
            proto = onnx.load(path)
            onnx.checker.check_model(proto)
            model = ir.from_proto(_in_opset(path, inliner.inline_local_functions(proto)))
        except AdapterError:
            raise
        except Exception as error:  # protobuf's, the checker's and the file system's errors share no base class
            raise AdapterError(f"{path}: cannot be read as ONNX: {first_line(error)}") from error
        image, output = _image_input(path, adapter, model), _described_output(path, adapter, model)
        self._names = image.name, output.name
        self._tolerance = 0.0 if adapter.output.kind == "labels" else 0.01
        self.dtype = image.dtype
        self.size = _fixed_size(path, adapter, image)
        """Height and width in pixels, where it takes no other."""
        model.graph.outputs[:] = [output]
        passes.RemoveUnusedNodesPass()(model)
        image.name, output.name = INPUT, OUTPUT
        _open_batch(model)
        self.graph = ir.to_proto(model)

    def verify(self, images: NDArray[Any]) -> NDArray[Any]:
        """Run `graph` on a batch and the file as it is on its images one by one; what comes out of the batch.

        Args:
            images: in the network's own layout and type.

        Raises:
            AdapterError: the network cannot be run, or the two do not agree.
        """
        image, output = self._names
        try:
            original = session(self.path)
            single = np.concatenate([original.run([output], {image: images[i : i + 1]})[0] for i in range(len(images))])
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise AdapterError(
                f"{self.path}: fails on {images.dtype} {[1, *images.shape[1:]]} in ONNX Runtime {ort.__version__}: "
                f"{first_line(error)}; if it takes another size, say which one in input.size"
            ) from error
        if not np.isfinite(single).all():
            raise AdapterError(f"{self.path}: gives infinite values, or such that are no numbers, on an image of noise")
        try:
            (batch,) = session(self.graph).run(None, {INPUT: images})
            ours, theirs = batch.astype(np.float32), single.astype(np.float32)
            off = self._tolerance * float(theirs.std())
            same = float(np.isclose(ours, theirs, rtol=self._tolerance, atol=off).mean())
            problem = "" if same >= SAME_VALUES else f"agrees with images one by one in {same:.1%} of its values only"
        except Exception as error:
            problem = f"fails: {first_line(error)}"
        if problem:
            raise AdapterError(
                f"{self.path}: with a dynamic batch, and in opset {OPSET}, it {problem} (batch of {len(images)}); "
                f"export it so (torch.onnx.export: dynamic_shapes, opset_version={OPSET})"
            )
        return np.asarray(batch)


def session(graph: onnx.ModelProto | Path) -> ort.InferenceSession:
    """ONNX Runtime on a graph, on a GPU where it can."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Spinning workers would take the cores that PyTorch needs for the rest of a training step.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in wanted if name in ort.get_available_providers()]
    return ort.InferenceSession(graph if isinstance(graph, Path) else graph.SerializeToString(), options, providers)


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _in_opset(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    if version == OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise AdapterError(
            f"{path}: its operators are of opset {version}, which cannot be converted to {OPSET}, that of a bundle's "
            f"graphs: {first_line(error)}; export it with opset_version={OPSET}"
        ) from error


def _image_input(path: Path, adapter: Adapter, model: ir.Model) -> ir.Value:
    inputs = model.graph.inputs
    inputs[:] = [value for value in inputs if value.name not in model.graph.initializers]
    if len(inputs) != 1:
        raise AdapterError(f"{path}: has inputs {[value.name for value in inputs]}, expected one, the image")
    (image,) = inputs
    if image.dtype not in INPUT_TYPES:
        known = ", ".join(map(str, INPUT_TYPES))
        raise AdapterError(f"{path}: input {image.name!r} is {image.dtype}, expected one of {known}")
    given = adapter.input
    if image.dtype == ir.DataType.UINT8 and (given.scale, given.mean, given.std) != (255, (0, 0, 0), (1, 1, 1)):
        raise AdapterError(f"{path}: input {image.name!r} takes bytes: set input.scale to 255, and no mean nor std")
    shape, channels = image.shape, 1 if given.layout == "NCHW" else 3
    if (
        shape is None
        or len(shape) != 4
        or not _may_be(shape[channels], 3)
        or shape[channels] != 3 == shape[4 - channels]
    ):
        raise AdapterError(
            f"{path}: input {image.name!r} has shape {shape}, but input.layout is {given.layout}, with 3 channels"
        )
    return image


def _described_output(path: Path, adapter: Adapter, model: ir.Model) -> ir.Value:
    outputs = {value.name: value for value in model.graph.outputs}
    name = adapter.output.name
    if name is None and len(outputs) > 1:
        raise AdapterError(f"{path}: has outputs {', '.join(map(str, outputs))}; say in output.name which one segments")
    if name is not None and name not in outputs:
        raise AdapterError(f"{path}: has no output {name!r}, which output.name is, but {', '.join(map(str, outputs))}")
    return outputs[name] if name is not None else model.graph.outputs[0]


def _fixed_size(path: Path, adapter: Adapter, image: ir.Value) -> tuple[int, int] | None:
    assert image.shape is not None
    height, width = image.shape[2:] if adapter.input.layout == "NCHW" else image.shape[1:3]
    wanted = adapter.input.size
    if wanted is not None and not (_may_be(height, wanted[0]) and _may_be(width, wanted[1])):
        raise AdapterError(f"{path}: takes images of {height}x{width}, and input.size is {wanted[0]}x{wanted[1]}")
    if isinstance(height, int) and isinstance(width, int):
        return height, width
    return None


def _may_be(found: int | ir.SymbolicDim, wanted: int) -> bool:
    return not isinstance(found, int) or found == wanted


def _open_batch(model: ir.Model) -> None:
    """Let the batch be of any size, as far as declared shapes say; shapes inside are for runtimes to find out."""
    for value in (model.graph.inputs[0], model.graph.outputs[0]):
        if value.shape is not None and len(value.shape):
            value.shape = ir.Shape(["batch", *value.shape[1:]])
    for node in model.graph:
        for value in node.outputs:
            if value is not model.graph.outputs[0]:
                value.shape = None
