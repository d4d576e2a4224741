"""What goes before and behind a user's network in the joined graph, as its description says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from coop_perception.classes import IGNORE_ID
from coop_perception.contracts import QUARTER
from coop_training.adapters.description import InputDescription, OutputDescription
from coop_training.adapters.network import INPUT, OUTPUT
from coop_training.onnx_graphs import IR_VERSION, OPSET

SIZE = "image_size"
"""int64 [2]: height and width of the image, which goes around the network."""

LABEL_CERTAINTY = 0.9
"""What a label map's word counts for: it holds no probability, and refinement must be able to overrule it."""
EVEN = 1e-6
"""Added to given probabilities, so that they are even where all went to classes that go nowhere. Not less: float16."""


class _Operations(ir.tape.Tape):
    """Operators in the order in which they are asked for."""

    def constant(self, values: NDArray[np.float32] | NDArray[np.int64]) -> ir.Value:
        return self.initializer(ir.tensor(values), f"constant_{len(self.initializers)}")

    def number(self, value: float) -> ir.Value:
        return self.constant(np.array(value, np.float32))

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        return self.op("Cast", [x], {"to": dtype})

    def resize(self, x: ir.Value, size: ir.Value, mode: str) -> ir.Value:
        """[N,C,h,w] → [N,C,*size], pixel centres to pixel centres, not smoothed. size: int64 [2]."""
        batch = self.op("Shape", [x], {"start": 0, "end": 2})
        sizes = self.op("Concat", [batch, size], {"axis": 0})
        attributes = {"mode": mode, "nearest_mode": "round_prefer_floor"} if mode == "nearest" else {"mode": mode}
        return self.op("Resize", [x, None, None, sizes], attributes)

    def model(self, given: Sequence[ir.Value], outputs: Mapping[ir.Value, ir.Value]) -> onnx.ModelProto:
        """The graph from `given`; outputs: what each value found is declared as."""
        for value, declared in outputs.items():
            value.name, value.type, value.shape = declared.name, declared.type, declared.shape
        graph = ir.Graph(
            given, list(outputs), nodes=self.nodes, initializers=self.initializers, opset_imports={"": OPSET}, name=""
        )
        return ir.to_proto(ir.Model(graph, ir_version=IR_VERSION))


def before(given: InputDescription, dtype: ir.DataType, size: tuple[int, int] | None) -> onnx.ModelProto:
    """image uint8 [N,H,W,3] RGB of any H, W → INPUT, what the network takes, and SIZE.

    Args:
        given: how that is described.
        dtype: its type.
        size: height and width that images are resized to, bilinearly, without smoothing first; None: they stay.
    """
    ops = _Operations()
    image = ir.val("image", ir.DataType.UINT8, ["batch", "height", "width", 3])
    x = ops.cast(image, ir.DataType.FLOAT)
    own_size = ops.op("Shape", [x], {"start": 1, "end": 3})
    x = ops.op("Transpose", [x], {"perm": [0, 3, 1, 2]})
    if given.channels == "bgr":
        x = ops.op("Gather", [x, ops.constant(np.array([2, 1, 0]))], {"axis": 1})
    if size is not None:
        x = ops.resize(x, ops.constant(np.array(size)), "linear")
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (given.mean, given.std))
    factor = np.float32(given.scale / 255) / std
    if (factor != 1).any():
        x = ops.op("Mul", [x, ops.constant(factor)])
    if mean.any():
        x = ops.op("Sub", [x, ops.constant(mean / std)])
    if given.layout == "NHWC":
        x = ops.op("Transpose", [x], {"perm": [0, 2, 3, 1]})
    if dtype == ir.DataType.UINT8:
        x = ops.op("Round", [x])  # resized bytes are within 0..255 still
    if dtype != ir.DataType.FLOAT:
        x = ops.cast(x, dtype)
    fed = size or ("height", "width")
    shape: list[int | str] = ["batch", 3, *fed] if given.layout == "NCHW" else ["batch", *fed, 3]
    return ops.model([image], {x: ir.val(INPUT, dtype, shape), own_size: ir.val(SIZE, ir.DataType.INT64, [2])})


def behind(output: OutputDescription, rank: int, table: Mapping[int, int], classes: int) -> onnx.ModelProto:
    """OUTPUT, what the network gives, and SIZE, H and W → probabilities float [N,C,H/4,W/4] of the bundle's classes,
    and mask_raw uint8 [N,H,W].

    Scores: those of classes that go to one of the bundle's are summed as probabilities, and what classes that go
    nowhere had is shared out in proportion. They are resized to the resolution that refinement works at. One channel,
    with a background, is the score of one class.

    A label map: mask_raw has its own labels, resized to the nearest, and IGNORE_ID where a class goes nowhere. The
    probabilities are each label's share in cells of 4x4 pixels, held for right with
    LABEL_CERTAINTY; the rest is even over all classes.

    Args:
        output: how OUTPUT is described.
        rank: its number of axes.
        table: the network's class ids to the bundle's.
        classes: number of the bundle's, C.
    """
    ops = _Operations()
    found, size = ir.val(OUTPUT), ir.val(SIZE, ir.DataType.INT64, [2])
    x = ops.cast(found, ir.DataType.FLOAT)
    if output.kind == "labels" and rank == 3:
        x = ops.op("Unsqueeze", [x, ops.constant(np.array([1]))])
    elif output.layout == "NHWC":
        x = ops.op("Transpose", [x], {"perm": [0, 3, 1, 2]})
    if output.kind == "labels":
        ids = _of_labels(ops, x, table, size)
        mask, probabilities = ops.op("Squeeze", [ids, ops.constant(np.array([1]))]), _shares(ops, ids, classes)
    else:
        logits = output.kind == "logits"
        if output.background is not None:
            x = ops.op("Sigmoid", [x]) if logits else x
            x, logits = ops.op("Concat", [x, ops.op("Sub", [ops.number(1), x])], {"axis": 1}), False
        probabilities = _of_scores(ops, x, logits, table, classes)
        mask = ops.op("ArgMax", [ops.resize(probabilities, size, "linear")], {"axis": 1, "keepdims": 0})
        quarter = ops.op("Div", [size, ops.constant(np.array([QUARTER]))])
        probabilities = ops.resize(probabilities, quarter, "linear")
    of_quarter: list[int | str] = ["batch", classes, "height/4", "width/4"]
    return ops.model(
        [found, size],
        {
            probabilities: ir.val("probabilities", ir.DataType.FLOAT, of_quarter),
            ops.cast(mask, ir.DataType.UINT8): ir.val("mask_raw", ir.DataType.UINT8, ["batch", "height", "width"]),
        },
    )


def _of_scores(ops: _Operations, scores: ir.Value, logits: bool, table: Mapping[int, int], classes: int) -> ir.Value:
    """[N,their C,h,w] → probabilities."""
    # In the bundle's order: classes that agree one to one then need no merging.
    taken = np.array(sorted(table, key=lambda number: (table[number], number)))
    merging = np.zeros((classes, len(taken)), np.float32)
    merging[[table[number] for number in taken], np.arange(len(taken))] = 1
    x = ops.op("Gather", [scores, ops.constant(taken)], {"axis": 1})
    if logits:
        x = ops.op("Softmax", [x], {"axis": 1})
    if not np.array_equal(merging, np.eye(classes)):
        x = ops.op("Conv", [x, ops.constant(merging[:, :, None, None])])
    if not logits:
        x = ops.op("Add", [x, ops.number(EVEN)])
        x = ops.op("Div", [x, ops.op("ReduceSum", [x, ops.constant(np.array([1]))])])
    return x


def _of_labels(ops: _Operations, labels: ir.Value, table: Mapping[int, int], size: ir.Value) -> ir.Value:
    """[N,1,h,w] of their ids → [N,1,H,W] of the bundle's, or IGNORE_ID."""
    highest = max(table)
    ids = np.full(highest + 3, IGNORE_ID, np.float32)  # one more at either end: an id that nothing is said about
    ids[[number + 1 for number in table]] = list(table.values())
    x = ops.op("Clip", [labels, ops.number(-1), ops.number(highest + 1)])
    x = ops.cast(ops.op("Add", [x, ops.number(1)]), ir.DataType.INT64)
    return ops.resize(ops.op("Gather", [ops.constant(ids), x], {"axis": 0}), size, "nearest")


def _shares(ops: _Operations, ids: ir.Value, classes: int) -> ir.Value:
    """[N,1,H,W] of the bundle's ids → probabilities [N,C,H/4,W/4]."""
    every = ops.constant(np.arange(classes, dtype=np.float32).reshape(1, classes, 1, 1))
    one_hot = ops.cast(ops.op("Equal", [ids, every]), ir.DataType.FLOAT)
    cell = [QUARTER, QUARTER]
    x = ops.op("AveragePool", [one_hot], {"kernel_shape": cell, "strides": cell})
    x = ops.op("Mul", [x, ops.number(LABEL_CERTAINTY)])
    left = ops.op("Sub", [ops.number(1), ops.op("ReduceSum", [x, ops.constant(np.array([1]))])])
    return ops.op("Add", [x, ops.op("Div", [left, ops.number(classes)])])
