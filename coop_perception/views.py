"""The two views of a frame that networks receive besides the frame itself.

Weather and meaning are seen in the whole scene, scaled to the networks' size; what sensor, optics and codec do to a
frame is seen at the camera's own resolution only, for scaling hides it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

TILES = 2
"""Tiles of a side of the sensor view."""


def scene_view(frame: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole frame, uint8 [h,w,3], at `size`, height and width; itself where it has that size."""
    if frame.shape[:2] == size:
        return frame
    shrinks = frame.shape[0] > size[0] or frame.shape[1] > size[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, size[::-1], interpolation=interpolation), np.uint8)


def sensor_view(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A mosaic of 2x2 tiles, each from the middle of a quarter of the frame, at the frame's own resolution.

    A radial aberration shows away from a frame's middle only, and a tile of sky shows nothing.

    Args:
        frame: uint8 [h,w,3]; one that is too small for a tile is mirrored at its edges.
        side: of the mosaic, in pixels, even.

    Returns:
        uint8 [side,side,3].
    """
    tile = side // TILES
    missing = [max(tile - length, 0) for length in frame.shape[:2]]
    if any(missing):
        above, before = (length // 2 for length in missing)
        frame = np.asarray(
            cv2.copyMakeBorder(frame, above, missing[0] - above, before, missing[1] - before, cv2.BORDER_REFLECT),
            np.uint8,
        )
    view = np.empty((side, side, 3), np.uint8)
    for row in range(TILES):
        for column in range(TILES):
            top, left = _start(frame.shape[0], tile, row), _start(frame.shape[1], tile, column)
            view[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile] = frame[
                top : top + tile, left : left + tile
            ]
    return view


def _start(length: int, tile: int, index: int) -> int:
    """Where a tile begins, that its middle is that of its part of the frame as nearly as it lies within."""
    middle = length * (2 * index + 1) // (2 * TILES)
    return min(max(middle - tile // 2, 0), length - tile)
