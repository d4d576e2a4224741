"""Semantic classes: what an id in a mask means and how it is drawn."""

from __future__ import annotations

from dataclasses import dataclass

IGNORE_ID = 255
"""Mask value of pixels that carry no label: never scored, never trained on."""


@dataclass(frozen=True, slots=True)
class SemanticClass:
    """One class: `id` is its value in masks (0..254), `rgb` its colour in pictures."""

    id: int
    name: str
    rgb: tuple[int, int, int]


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
