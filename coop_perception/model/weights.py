"""Files that a graph takes its weights from: those that the manifest lists, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from coop_perception.shown import shown

WEIGHTS_SHA256 = "weights_sha256"
"""Key of a graph's metadata: checksum of the file that its weights are in, so that a graph's own changes with them."""


def refused_weights(graph: Path, listed: Mapping[Path, str]) -> str | None:
    """Why the files that an ONNX graph takes its weights from cannot be taken; None where they can, or it has none.

    Args:
        graph: the ONNX file. One that is none is left for the runtimes to refuse.
        listed: sha256 of the files that the manifest lists, by path.
    """
    try:
        model = onnx.load(graph, load_external_data=False)
    except DecodeError:
        return None
    said = next((entry.value for entry in model.metadata_props if entry.key == WEIGHTS_SHA256), None)
    for place in sorted({_place(tensor) for tensor in _external(model)}):
        sha256 = listed.get(graph.parent / place)
        if sha256 is None:
            return f"takes weights from {shown(place)}, which the manifest does not list"
        if said not in (None, sha256):
            return f"was made with weights of sha256 {shown(said, 12)}, those of {place} have {shown(sha256, 12)}"
    return None


def _place(tensor: onnx.TensorProto) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")


def _external(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Tensors whose values are in another file, wherever in the model they are."""
    waiting: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        tensors: list[onnx.TensorProto] = []
        if isinstance(part, onnx.GraphProto):
            tensors += part.initializer
            tensors += [t for sparse in part.sparse_initializer for t in (sparse.values, sparse.indices)]
        attributes = [attribute for node in part.node for attribute in node.attribute]
        if isinstance(part, onnx.FunctionProto):
            attributes += part.attribute_proto
        for attribute in attributes:
            tensors += [attribute.t, *attribute.tensors]
            sparse_ones = (attribute.sparse_tensor, *attribute.sparse_tensors)
            tensors += [t for sparse in sparse_ones for t in (sparse.values, sparse.indices)]
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        yield from (t for t in tensors if t.external_data or t.data_location == onnx.TensorProto.EXTERNAL)
