"""Kinds of block, and what a planned block consists of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.sample_scene.ground import Caster
from coop_perception.sample_scene.raster import Surfaces, Texture

CLASS = {c.name: c.id for c in CAMVID_CLASSES}
LANE = 3.2
"""Metres."""


@dataclass(frozen=True, slots=True)
class CentreLine:
    """The street's course: a sum of sines, each (amplitude in metres, radians per metre, phase)."""

    bends: tuple[tuple[float, float, float], ...]

    def bend(self, s: NDArray[np.float64]) -> NDArray[np.float64]:
        """World X of the centre line at Z = s."""
        return np.asarray(sum(a * np.sin(w * s + p) for a, w, p in self.bends), np.float64)

    def at(self, s: float, t: float) -> tuple[float, float]:
        """World (X, Z) of a place t metres right of the centre line."""
        return t + sum(a * math.sin(w * s + p) for a, w, p in self.bends), s

    def heading(self, s: float) -> float:
        """Yaw of the street's direction."""
        return math.atan(sum(a * w * math.cos(w * s + p) for a, w, p in self.bends))


@dataclass(frozen=True, slots=True)
class Layout:
    """What a block looks like. Ranges are (least, most) in metres; shares are probabilities."""

    name: str
    uses: tuple[str, ...]
    pavement: tuple[float, float]
    setback: tuple[float, float]
    gap: float
    parking: float
    trees: float
    tree_kinds: tuple[str, ...]
    verge: float
    fence: float
    fence_kinds: tuple[str, ...]
    hedge: float
    park: float


LAYOUTS = (
    Layout(
        name="avenue",
        uses=("block", "block", "shop", "terrace"),
        pavement=(3.2, 4.2),
        setback=(0.0, 2.5),
        gap=0.08,
        parking=0.6,
        trees=0.85,
        tree_kinds=("broad", "tall"),
        verge=0.4,
        fence=0.5,
        fence_kinds=("railings",),
        hedge=0.15,
        park=0.0,
    ),
    Layout(
        name="terrace",
        uses=("terrace",),
        pavement=(1.8, 2.4),
        setback=(0.0, 2.5),
        gap=0.03,
        parking=0.9,
        trees=0.1,
        tree_kinds=("young", "bare"),
        verge=0.0,
        fence=0.55,
        fence_kinds=("picket", "railings"),
        hedge=0.2,
        park=0.0,
    ),
    Layout(
        name="suburb",
        uses=("house",),
        pavement=(1.8, 2.4),
        setback=(5.0, 8.0),
        gap=0.75,
        parking=0.25,
        trees=0.45,
        tree_kinds=("broad", "bare", "conifer", "young"),
        verge=0.6,
        fence=0.6,
        fence_kinds=("boards", "picket", "mesh"),
        hedge=0.5,
        park=0.0,
    ),
    Layout(
        name="high street",
        uses=("shop", "shop", "shop", "block"),
        pavement=(2.6, 4.0),
        setback=(0.0, 0.0),
        gap=0.04,
        parking=0.3,
        trees=0.15,
        tree_kinds=("young",),
        verge=0.0,
        fence=0.25,
        fence_kinds=("guard",),
        hedge=0.0,
        park=0.0,
    ),
    Layout(
        name="park side",
        uses=("terrace", "block", "shop"),
        pavement=(2.4, 3.2),
        setback=(0.0, 3.0),
        gap=0.1,
        parking=0.5,
        trees=0.35,
        tree_kinds=("broad", "tall", "bare"),
        verge=0.2,
        fence=0.7,
        fence_kinds=("railings", "mesh"),
        hedge=0.3,
        park=1.0,
    ),
    Layout(
        name="modern",
        uses=("office", "block", "office"),
        pavement=(3.0, 4.5),
        setback=(0.0, 4.0),
        gap=0.3,
        parking=0.1,
        trees=0.55,
        tree_kinds=("young", "tall"),
        verge=0.4,
        fence=0.35,
        fence_kinds=("guard", "mesh"),
        hedge=0.1,
        park=0.0,
    ),
)


@dataclass(frozen=True, slots=True)
class Billboard:
    """An upright picture that faces the camera: `x`, `z` and `bottom` of its foot, metres."""

    x: float
    bottom: float
    z: float
    width: float
    height: float
    texture: Texture
    class_id: int


@dataclass(slots=True)
class Side:
    """One side of a block, `sign` -1 left or +1 right; distances from the centre line."""

    sign: int
    kerb: float
    parking: bool
    verge: float
    path: float
    setback: float
    front: float
    park: bool


@dataclass(slots=True)
class Block:
    """Everything that stands between `start` (the junction's near edge) and `end`.

    `solids` face fixed ways, `billboards` the camera; `junction` is the side street's width, 0 where there is none.
    """

    start: float
    end: float
    junction: float
    layout: Layout
    sides: tuple[Side, Side]
    solids: Surfaces = field(default_factory=Surfaces.empty)
    billboards: list[Billboard] = field(default_factory=list)
    casters: list[Caster] = field(default_factory=list)
    footprints: list[tuple[float, float, float, float]] = field(default_factory=list)
