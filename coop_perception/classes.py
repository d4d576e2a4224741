"""Semantic classes: what an id in a mask means and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from coop_perception.shown import LONGEST_NAME, is_name, plain, shown

IGNORE_ID = 255
"""Mask value of pixels that carry no label: never scored, never trained on."""


Role = Literal["ground", "sky"]


@dataclass(frozen=True, slots=True)
class SemanticClass:
    """One class: `id` is its value in masks (0..254), `rgb` its colour in pictures and in labels that hold colours."""

    id: int
    name: str
    rgb: tuple[int, int, int]
    role: Role | None = field(default=None, compare=False)
    """What it is of a street, for depth that is made up from labels; None: what its name says."""


CAMVID_CLASSES: tuple[SemanticClass, ...] = (
    SemanticClass(0, "Sky", (128, 128, 128)),
    SemanticClass(1, "Building", (128, 0, 0)),
    SemanticClass(2, "Pole", (192, 192, 128)),
    SemanticClass(3, "Road", (128, 64, 128)),
    SemanticClass(4, "Pavement", (60, 40, 222)),
    SemanticClass(5, "Tree", (128, 128, 0)),
    SemanticClass(6, "SignSymbol", (192, 128, 128)),
    SemanticClass(7, "Fence", (64, 64, 128)),
    SemanticClass(8, "Car", (64, 0, 128)),
    SemanticClass(9, "Pedestrian", (64, 64, 0)),
    SemanticClass(10, "Bicyclist", (0, 128, 192)),
)
"""The 11 classes of CamVid (Brostow et al., 2009) in the order and colours of its 480x360 release."""


def parse_classes(entries: Sequence[Mapping[str, Any]]) -> tuple[SemanticClass, ...]:
    """Classes from entries with `id`, `name`, `rgb` and perhaps `role`, as YAML files list them.

    Raises:
        ValueError: an entry lacks one of them, a colour is out of 0..255, a role is unknown, the ids are not 0..C-1 in
            order (C at most 255), two classes have one name, or one cannot be printed.
    """
    try:
        classes = tuple(SemanticClass(int(e["id"]), _name(e["name"]), _rgb(e["rgb"]), _role(e)) for e in entries)
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        reason = plain(repr(error), 200)
        raise ValueError(
            f"classes: each needs id, name and rgb [r, g, b] in 0..255, and may have role: ground or sky ({reason})"
        ) from error
    if [c.id for c in classes] != list(range(len(classes))) or not 0 < len(classes) <= IGNORE_ID:
        raise ValueError(
            f"class ids are {shown([c.id for c in classes])}, expected 0..C-1 in order, C at most {IGNORE_ID}"
        )
    names = [c.name for c in classes]
    for name in names:
        if not is_name(name):
            raise ValueError(f"class name {shown(name)}: expected up to {LONGEST_NAME} characters that can be printed")
    if len(set(names)) != len(names):
        raise ValueError(f"class names repeat: {shown(sorted({n for n in names if names.count(n) > 1}))}")
    return classes


def _name(value: Any) -> str:
    if isinstance(value, bool) or value is None:  # what YAML makes of off, no, yes and of nothing
        raise ValueError(f"name {value}, which is no text: quote it, as 'off'")
    return str(value)


def _rgb(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(v) for v in value)
    if not all(0 <= v <= 255 for v in (red, green, blue)):
        raise ValueError(f"rgb {shown(value)}")
    return red, green, blue


def _role(entry: Mapping[str, Any]) -> Role | None:
    role = entry.get("role")
    if role not in (None, "ground", "sky"):
        raise ValueError(f"role {shown(role)}")
    return role


def translation(given: Sequence[SemanticClass], wanted: Sequence[SemanticClass]) -> NDArray[np.uint8]:
    """uint8 [256]: the id of each class among others, by its name in whatever case; IGNORE_ID where it is not there."""
    ids = {c.name.lower(): c.id for c in wanted}
    table = np.full(256, IGNORE_ID, np.uint8)
    for semantic_class in given:
        table[semantic_class.id] = ids.get(semantic_class.name.lower(), IGNORE_ID)
    return table
