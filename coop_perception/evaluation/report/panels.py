"""Sample frames as rows of pictures of one size: the arrangement of the overview and of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import IGNORE_ID, SemanticClass
from coop_perception.evaluation.report.frames import Sample
from coop_perception.visualization import colorize

WIDEST = 640
"""Pixels: wider frames are shrunk, which keeps five columns of a 4K camera readable and the page small."""


@dataclass(frozen=True, slots=True)
class PanelRow:
    """One kind of picture of every sample: uint8 [h,w,3] RGB, all of one size; None where a sample has none."""

    title: str
    flat: bool
    """Few plain colours (a mask), rather than a photograph."""
    panels: tuple[NDArray[np.uint8] | None, ...]


def panel_rows(samples: Sequence[Sample], classes: Sequence[SemanticClass], widest: int = WIDEST) -> list[PanelRow]:
    """Rows from input to reference, without those that no sample has a picture for. Sizes are the first image's, shrunk
    to `widest`."""
    height, width = samples[0].image.shape[:2]
    shrink = min(1.0, widest / width)
    size = round(width * shrink), max(1, round(height * shrink))

    def photographs(title: str, images: Sequence[NDArray[np.uint8] | None]) -> PanelRow:
        return PanelRow(title, False, tuple(None if i is None else _resized(i, size, cv2.INTER_AREA) for i in images))

    def masks(title: str, ids: Sequence[NDArray[np.uint8] | None]) -> PanelRow:
        fitted = [None if mask is None else _resized(mask, size, cv2.INTER_NEAREST_EXACT) for mask in ids]
        return PanelRow(title, True, tuple(None if mask is None else colorize(mask, classes) for mask in fitted))

    rows = (
        photographs("input", [sample.image for sample in samples]),
        masks("raw mask", [sample.mask_raw for sample in samples]),
        masks("refined mask", [sample.mask for sample in samples]),
        photographs("restored", [sample.restored for sample in samples]),
        photographs("reference image", [sample.reference_image for sample in samples]),
        masks("reference mask", [sample.reference_mask for sample in samples]),
    )
    return [row for row in rows if any(panel is not None for panel in row.panels)]


def legend_classes(samples: Sequence[Sample], classes: Sequence[SemanticClass]) -> list[SemanticClass]:
    """What the colours in the samples' masks mean: the classes, and black where a mask has pixels of no class."""
    masks = [mask for s in samples for mask in (s.mask_raw, s.mask, s.reference_mask) if mask is not None]
    if not masks:
        return []
    known = [semantic_class.id for semantic_class in classes]
    if all(np.isin(mask, known).all() for mask in masks):
        return list(classes)
    return [*classes, SemanticClass(IGNORE_ID, "unlabelled", (0, 0, 0))]


def _resized(picture: NDArray[np.uint8], size: tuple[int, int], interpolation: int) -> NDArray[np.uint8]:
    if picture.shape[1::-1] == size:
        return picture
    return np.asarray(cv2.resize(picture, size, interpolation=interpolation), np.uint8)
