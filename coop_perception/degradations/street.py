"""Depth from the labels of any street: which classes are its ground and its sky, by what they say or by their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, Role, SemanticClass
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.depth import depth_from_labels

_CAMVID = {c.name: c.id for c in CAMVID_CLASSES}
SKY = _CAMVID["Sky"]
_OF_ROLE: dict[Role, int] = {"ground": _CAMVID["Road"], "sky": SKY}
_OF_NAME = {name.lower(): i for name, i in _CAMVID.items()} | {
    "sidewalk": _CAMVID["Pavement"],
    "terrain": _CAMVID["Pavement"],
    "wall": _CAMVID["Building"],
    "vegetation": _CAMVID["Tree"],
    "traffic sign": _CAMVID["SignSymbol"],
    "traffic light": _CAMVID["SignSymbol"],
    "guard rail": _CAMVID["Fence"],
    "person": _CAMVID["Pedestrian"],
    "rider": _CAMVID["Bicyclist"],
    "motorcycle": _CAMVID["Bicyclist"],
    "bicycle": _CAMVID["Bicyclist"],
}
"""By the names of CamVid, Cityscapes and their kin, in lower case. Lorries and buses are left out: what is no car
stands upright where it is labelled."""


def street_ids(classes: Sequence[SemanticClass]) -> NDArray[np.uint8]:
    """uint8 [256]: CamVid's id for each class, by its role, else by its name.

    What has neither counts as unlabelled, which depth from labels takes for upright things.
    """
    table = np.full(256, IGNORE_ID, np.uint8)
    for c in classes:
        table[c.id] = _OF_ROLE[c.role] if c.role else _OF_NAME.get(c.name.lower(), IGNORE_ID)
    return table


def is_street(classes: Sequence[SemanticClass]) -> bool:
    """Whether depth can be made up from labels of these classes: one is ground and one is sky.

    By names alone, classes with a ceiling are of no street: not all that they label is one.
    """
    found = {*street_ids(classes).tolist()}
    stated = any(c.role for c in classes)
    named = stated or all(c.name.lower() != "ceiling" for c in classes)
    return {_CAMVID["Road"], SKY} <= found and named


NO_STREET = (
    "the classes do not say which of them are ground and which are sky: give them role: ground and role: sky, or the "
    "names road and sky"
)
"""What is wrong with classes that are of no street, and what to do."""


def depth_from_street_labels(
    mask: UInt8Array, image: UInt8Array, intrinsics: Intrinsics, classes: Sequence[SemanticClass]
) -> FloatArray:
    """`depth_from_labels` for any classes of streets: float32 [H,W], metres, inf in the sky."""
    return depth_from_labels(street_ids(classes)[mask], image, intrinsics)
