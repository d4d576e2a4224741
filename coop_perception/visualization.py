"""Masks and results as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.classes import SemanticClass

UInt8Array = npt.NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TEXT = 0.5
"""Scale of the font; its lines are then 22 pixels apart."""
_LINE_HEIGHT = 22
_MARGIN = 6
_PAPER = 255
_INK = (30, 30, 30)


def colorize(mask: UInt8Array, classes: Sequence[SemanticClass]) -> UInt8Array:
    """A mask in its classes' colours.

    Args:
        mask: uint8 [H, W]; ids that are no class (255: unlabelled) come out black.
        classes: the classes.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    table = np.zeros((256, 1, 3), np.uint8)
    for semantic_class in classes:
        table[semantic_class.id] = semantic_class.rgb
    return np.asarray(cv2.applyColorMap(mask, table), np.uint8)


def overlay(image: UInt8Array, mask: UInt8Array, classes: Sequence[SemanticClass], alpha: float = 0.5) -> UInt8Array:
    """An image tinted by its mask; unlabelled pixels come out darker.

    Args:
        image: uint8 [H, W, 3] RGB.
        mask: uint8 [H, W].
        classes: the classes.
        alpha: weight of the colours, 0 (image only) to 1 (mask only).

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"overlay: image has shape {image.shape}, mask {mask.shape}; expected equal sizes")
    return np.asarray(cv2.addWeighted(image, 1 - alpha, colorize(mask, classes), alpha, 0), np.uint8)


def panel_grid(
    rows: Sequence[Sequence[UInt8Array]], column_titles: Sequence[str], row_titles: Sequence[str]
) -> UInt8Array:
    """Pictures of one size in a table with titles, for overviews.

    Args:
        rows: uint8 [H, W, 3] RGB each, all of one size; as many in each row as there are column titles.
        column_titles: one per column, drawn above it.
        row_titles: one per row, drawn to its left.

    Returns:
        uint8 RGB on white.

    Raises:
        ValueError: the pictures differ in size, or the titles in number.
    """
    if not rows or len(rows) != len(row_titles) or any(len(row) != len(column_titles) for row in rows):
        raise ValueError(
            f"panel_grid: rows of {[len(row) for row in rows]} panels, {len(row_titles)} row and "
            f"{len(column_titles)} column titles; expected one title per row and per column"
        )
    shapes = {panel.shape for row in rows for panel in row}
    if len(shapes) != 1:
        raise ValueError(f"panel_grid: panels of shapes {sorted(shapes)}, expected one size")
    height, width = shapes.pop()[:2]
    text = max(_TEXT, height / 450)
    line = round(_LINE_HEIGHT * text / _TEXT)
    left = 2 * _MARGIN + max(_text_width(title, text) for title in row_titles)
    size = line + _MARGIN + len(rows) * (height + _MARGIN), left + len(column_titles) * (width + _MARGIN)
    canvas = np.full((*size, 3), _PAPER, np.uint8)
    for column, title in enumerate(column_titles):
        x = left + column * (width + _MARGIN) + (width - _text_width(title, text)) // 2
        _draw_text(canvas, title, x, _MARGIN + line // 2, text)
    for index, (panels, title) in enumerate(zip(rows, row_titles, strict=True)):
        top = line + _MARGIN + index * (height + _MARGIN)
        _draw_text(canvas, title, _MARGIN, top + height // 2, text)
        for column, panel in enumerate(panels):
            x = left + column * (width + _MARGIN)
            canvas[top : top + height, x : x + width] = panel
    return canvas


def legend(classes: Sequence[SemanticClass], width: int) -> UInt8Array:
    """The classes' colours and names, in as many lines as the width asks for.

    Args:
        classes: the classes.
        width: of the strip, in pixels.

    Returns:
        uint8 [h, width, 3] RGB on white.
    """
    swatch = _LINE_HEIGHT - 8
    entries = []
    x, line = _MARGIN, 0
    for semantic_class in classes:
        advance = swatch + _MARGIN + _text_width(semantic_class.name, _TEXT) + 3 * _MARGIN
        if x > _MARGIN and x + advance > width:
            x, line = _MARGIN, line + 1
        entries.append((semantic_class, x, _MARGIN + line * _LINE_HEIGHT))
        x += advance
    canvas = np.full((2 * _MARGIN + (line + 1) * _LINE_HEIGHT, width, 3), _PAPER, np.uint8)
    for semantic_class, x, top in entries:
        canvas[top + 4 : top + 4 + swatch, x : x + swatch] = semantic_class.rgb
        _draw_text(canvas, semantic_class.name, x + swatch + _MARGIN, top + _LINE_HEIGHT // 2, _TEXT)
    return canvas


def _text_width(text: str, scale: float) -> int:
    return int(cv2.getTextSize(text, _FONT, scale, 1)[0][0])


def _draw_text(canvas: UInt8Array, text: str, x: int, middle: int, scale: float) -> None:
    height = int(cv2.getTextSize(text, _FONT, scale, 1)[0][1])
    cv2.putText(canvas, text, (x, middle + height // 2), _FONT, scale, _INK, 1, cv2.LINE_AA)
