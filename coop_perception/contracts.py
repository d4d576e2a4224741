"""What the networks of a bundle are: their names, their tensors, and the bundle's description as it is used.

Reading one from disk is `coop_perception.model.bundle`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coop_perception.classes import SemanticClass

STAGES = ("segmenter", "refinement", "restoration")
STRIDE = 32
"""Height and width of the networks' image are multiples of it."""
QUARTER = 4
"""Segmentations between networks have one value for so many pixels of a side."""
LARGEST_SIDE = 8192
"""Pixels of any side of an input."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Names of a network's input and output tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


CONTRACTS: Mapping[str, Contract] = {
    "segmenter": Contract(("image",), ("probabilities", "mask_raw")),
    "refinement": Contract(
        ("image", "probabilities", "sensor"),
        ("refined_probabilities", "mask", "confidence", "presence", "strength", "familiarity"),
    ),
    "restoration": Contract(
        ("frame", "image", "refined_probabilities", "presence", "strength", "familiarity"), ("restored",)
    ),
}
"""What each graph takes and gives, batch N first; H, W divisible by STRIDE, h, w the camera's own:

image uint8 [N,H,W,3] RGB, the whole frame scaled; sensor uint8 [N,T,T,3], tiles of it as they are; frame uint8
[N,h,w,3]; probabilities, refined_probabilities float32 [N,C,H/4,W/4]; mask_raw, mask uint8 [N,H,W] class ids;
confidence uint8 [N,H,W], 255 = certain; presence float32 [N,K], the probability of each condition, independent of the
others'; strength float32 [N,K], how strong it then is, 1 = the strongest trained on; familiarity float32 [N], how far
restoration is to be trusted with the frame, 0..1; restored uint8 [N,h,w,3] RGB.
"""


@dataclass(frozen=True, slots=True)
class HalfGraph:
    """A network's ONNX file with float16 inside, where frames need no more; so many of its nodes compute in float32."""

    path: Path
    sha256: str
    float32_nodes: int


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file of a bundle; `half`: the same for GPUs, None: it is converted when engines are built."""

    name: str
    path: Path
    sha256: str
    half: HalfGraph | None = None


@dataclass(frozen=True, slots=True)
class InputSizes:
    """Of the networks' inputs, in pixels. height: of the image, where nobody wants another; smallest, largest: what
    height and width of the image lie between; sensor: side of the sensor view. All divisible by STRIDE."""

    height: int
    smallest: int
    largest: int
    sensor: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked manifest. `conditions`: those whose presence is estimated, of which several may be there at once;
    `files`: sha256 of every file that the networks are loaded from, all of them checked; `facts` holds training,
    figures and licence as written."""

    name: str
    directory: Path
    classes: tuple[SemanticClass, ...]
    conditions: tuple[str, ...]
    input: InputSizes
    networks: Mapping[str, Network]
    files: Mapping[Path, str]
    facts: Mapping[str, Any]


def network_size(sizes: InputSizes, frame_height: int, frame_width: int, network_height: int = 0) -> tuple[int, int]:
    """Height and width of the networks' image for frames of this size: as high as is asked for, as wide as the frame's
    aspect ratio says, both rounded to what the networks take.

    Args:
        sizes: the bundle's.
        frame_height, frame_width: in pixels, above 0.
        network_height: in pixels; 0: the bundle's.
    """
    height = _held(sizes, network_height or sizes.height)
    return height, _held(sizes, height * frame_width / frame_height)


def _held(sizes: InputSizes, length: float) -> int:
    return min(max(round(length / STRIDE) * STRIDE, sizes.smallest), sizes.largest)
