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
FUSED = "cooperative"


@dataclass(frozen=True, slots=True)
class Contract:
    """Names of a network's input and output tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


CONTRACTS: Mapping[str, Contract] = {
    "segmenter": Contract(("image",), ("probabilities", "mask_raw")),
    "refinement": Contract(
        ("image", "probabilities"), ("refined_probabilities", "mask", "confidence", "condition", "strength")
    ),
    "restoration": Contract(("image", "refined_probabilities"), ("restored",)),
    "cooperative": Contract(("image",), ("mask_raw", "mask", "confidence", "restored", "condition", "strength")),
}
"""What each graph takes and gives, batch N first:

image uint8 [N,H,W,3] RGB; probabilities, refined_probabilities float32 [N,C,h,w]; mask_raw, mask uint8 [N,H,W] class
ids; confidence uint8 [N,H,W], 255 = certain; restored uint8 [N,H,W,3] RGB; condition float32 [N,K], the probability of
clear and of each condition; strength float32 [N], 0 = none, 1 = the strongest trained on.
"""


@dataclass(frozen=True, slots=True)
class Network:
    """One ONNX file of a bundle."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked manifest. `conditions` starts with `clear`; `files`: sha256 of every file that the networks are loaded
    from, all of them checked; `facts` holds training, figures and licence as written."""

    name: str
    directory: Path
    classes: tuple[SemanticClass, ...]
    height: int
    width: int
    conditions: tuple[str, ...]
    networks: Mapping[str, Network]
    files: Mapping[Path, str]
    facts: Mapping[str, Any]
