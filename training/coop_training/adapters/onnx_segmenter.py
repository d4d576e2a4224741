"""A segmenter that exists already, as an ONNX file, in the place of the reference one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from coop_perception.classes import SemanticClass
from coop_perception.contracts import CONTRACTS
from coop_training.adapters.description import Adapter, AdapterError, class_table, load_adapter
from coop_training.adapters.joining import join
from coop_training.adapters.network import INPUT, Network, first_line, session
from coop_training.adapters.surroundings import before, behind
from coop_training.pixels import to_bytes

SIZE_STEP = 32
"""A crop that is resized for the network gets sides that this divides, as networks want them."""
SMALLEST_PROBABILITY = 1e-6
SLACK = 0.01
"""How far probabilities may be off 0..1, and their sum off 1: networks in float16 round."""


class OnnxSegmenter(nn.Module):
    """A user's network between what its description says about it, run by ONNX Runtime.

    Input: image [N,3,H,W] RGB in 0..1. Output: log-probabilities [N,C,h,w] of the bundle's classes. It has no weights
    and passes no gradient: it is trained already.

    Args:
        description: its YAML file.
        classes: the bundle's.
        height: of the image that a whole frame is scaled to, in pixels, a multiple of 4; likewise `width`.
        onnx: the network's file, instead of the one that the description names.

    Raises:
        AdapterError: the description or the network cannot be used.
    """

    def __init__(
        self, description: Path, classes: Sequence[SemanticClass], height: int, width: int, onnx: Path | None = None
    ) -> None:
        super().__init__()
        self.description = description
        self.adapter = load_adapter(description, onnx)
        self.frame = (height, width)
        self.classes = len(classes)
        self._table = class_table(description, self.adapter, classes)
        self._network = Network(self.adapter)
        self._size = self._network.size or self.adapter.input.size
        noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        (images,) = session(self._before(self._size)).run([INPUT], {"image": noise})
        found = self._network.verify(images)
        _check_shape(description, self.adapter, max(self._table), found.shape)
        _check_values(description, self.adapter, found.astype(np.float32))
        self._rank = found.ndim
        self._sessions: dict[tuple[int, int] | None, ort.InferenceSession] = {}

    def forward(self, image: Tensor) -> Tensor:
        return self.segment(to_bytes(image))[0].clamp(min=SMALLEST_PROBABILITY).log()

    def segment(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """image uint8 [N,H,W,3] RGB, H and W divisible by 4 → probabilities float [N,C,H/4,W/4] and mask_raw uint8
        [N,H,W].

        Raises:
            AdapterError: the network does not run, or takes one size alone and the image is no whole frame.
        """
        height, width = image.shape[1:3]
        fed = self._fed(height, width)
        try:
            if fed not in self._sessions:
                self._sessions[fed] = session(self._graph(fed))
            found = self._sessions[fed].run(CONTRACTS["segmenter"].outputs, {"image": image.cpu().numpy()})
        except Exception as error:  # ONNX Runtime's errors share no public base class
            raise AdapterError(f"{self.adapter.onnx}: fails on {height}x{width}: {first_line(error)}") from error
        probabilities, mask = (torch.from_numpy(array).to(image.device) for array in found)
        return probabilities, mask

    def graph(self) -> onnx.ModelProto:
        """The segmenter's graph of a bundle, for images of any size; the network's weights are as they were."""
        return self._graph(self._size)

    def _graph(self, fed: tuple[int, int] | None) -> onnx.ModelProto:
        parts = {
            "before": self._before(fed),
            "network": self._network.graph,
            "behind": behind(self.adapter.output, self._rank, self._table, self.classes),
        }
        return join("segmenter", parts, CONTRACTS["segmenter"].outputs)

    def _before(self, fed: tuple[int, int] | None) -> onnx.ModelProto:
        return before(self.adapter.input, self._network.dtype, fed)

    def _fed(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width that the network is fed an image of this size in, None for its own: crops, which are lower
        than whole frames of whatever aspect ratio, at the scale of these."""
        if self._size is None or height == self.frame[0]:
            return self._size
        if self._network.size:
            raise AdapterError(
                f"{self.adapter.onnx}: takes {self._size[0]}x{self._size[1]} alone, so it can see whole frames of "
                f"height {self.frame[0]}, but no crop of {height}x{width}; set data.crop to the frame's size, or "
                "export the network with dynamic height and width"
            )
        scaled = (new * part / whole for new, part, whole in zip(self._size, (height, width), self.frame, strict=True))
        height, width = (max(1, round(side / SIZE_STEP)) * SIZE_STEP for side in scaled)
        return height, width

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}  # sessions can be neither copied nor sent to another process


def _check_shape(description: Path, adapter: Adapter, highest: int, shape: tuple[int, ...]) -> None:
    """Whether a network's output is of the kind that its description says, and has the classes that it names."""
    kind, layout = adapter.output.kind, adapter.output.layout
    axis = 1 if layout == "NCHW" else 3
    if kind == "labels":
        if len(shape) != 3 and (len(shape) != 4 or shape[axis] != 1):
            raise AdapterError(
                f"{description}: output.kind is labels, but the network gives {list(shape)}, expected [N, h, w], or "
                f"{layout} with one channel"
            )
        return
    if len(shape) != 4:
        expected = "[N, C, h, w]" if axis == 1 else "[N, h, w, C]"
        raise AdapterError(f"{description}: output.kind is {kind}, but the network gives {list(shape)}, not {expected}")
    channels = shape[axis]
    if channels == 1 and adapter.output.background is None:
        raise AdapterError(
            f"{description}: the network gives {list(shape)}, one channel: the score of one class against all else. "
            "Say in output.background which of the bundle's classes all else is; or output.kind: labels, if these are "
            "class ids"
        )
    if channels != 1 and adapter.output.background is not None:
        raise AdapterError(
            f"{description}: output.background is for networks of one channel, but this one gives {list(shape)}, which "
            f"are {channels} if output.layout is {layout}; leave it out"
        )
    named = 1 if adapter.output.background is not None else highest + 1
    if named > channels or (adapter.names and len(adapter.names) != channels):
        said = f"names are {len(adapter.names)}" if adapter.names else f"classes go up to id {highest}"
        raise AdapterError(
            f"{description}: {said}, but the network gives {list(shape)}, which are {channels} classes if "
            f"output.layout is {layout}"
        )


def _check_values(description: Path, adapter: Adapter, found: NDArray[np.float32]) -> None:
    """Whether what a network gives can be what its description says: the same numbers mean other things as another
    kind, and nothing further on would tell."""
    kind = adapter.output.kind
    axis = 1 if adapter.output.layout == "NCHW" else 3
    low, high = float(found.min()), float(found.max())
    shown = f"{low:.3g} to {high:.3g}"
    if kind == "labels" and np.abs(found - np.rint(found)).max() > 0:
        raise AdapterError(
            f"{description}: output.kind is labels, but the network gives values of {shown} that are no ids; say "
            "logits or probabilities if they are scores"
        )
    within = low >= -SLACK and high <= 1 + SLACK
    if kind == "probabilities" and not within:
        raise AdapterError(
            f"{description}: output.kind is probabilities, but the network gives values of {shown}; if they are scores "
            "before softmax or sigmoid, say output.kind: logits"
        )
    several = found.ndim == 4 and found.shape[axis] > 1
    if kind == "logits" and within and not several:  # sigmoid of these is 0.5 or more, everywhere
        raise AdapterError(
            f"{description}: output.kind is logits, but the network gives values of {shown}: sigmoid is in it already; "
            "say output.kind: probabilities"
        )
    if kind == "logits" and within and several and np.abs(found.sum(axis) - 1).max() < SLACK:
        raise AdapterError(
            f"{description}: output.kind is logits, but the network's values are within 0..1 and add up to 1 over the "
            "classes: softmax is in it already; say output.kind: probabilities"
        )
