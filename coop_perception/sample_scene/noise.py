"""Fractal value noise that tiles, the base of every texture."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray


def fractal(
    rng: np.random.Generator, height: int, width: int, cell: int, octaves: int = 4, persistence: float = 0.5
) -> NDArray[np.float32]:
    """Noise [height, width] of mean 0 and standard deviation 1 that tiles in both directions.

    `cell` is the coarsest feature's size in pixels; each octave halves it and multiplies its weight by `persistence`.
    """
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    for octave in range(octaves):
        size = max(cell >> octave, 1)
        rows, columns = max(height // size, 1), max(width // size, 1)
        grid = np.pad(rng.standard_normal((rows, columns)).astype(np.float32), 2, mode="wrap")
        scale_y, scale_x = height / rows, width / columns
        fine = cv2.resize(grid, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_LINEAR)
        top, left = round(2 * scale_y), round(2 * scale_x)
        total += weight * fine[top : top + height, left : left + width]
        weight *= persistence
        if size == 1:
            break
    total -= total.mean()
    return total / max(float(total.std()), 1e-6)


TILE = 512


@cache
def _tile(cell: int, octaves: int, persistence: float) -> NDArray[np.float32]:
    return fractal(np.random.default_rng(cell), TILE, TILE, cell, octaves, persistence)


def patch(
    rng: np.random.Generator, height: int, width: int, cell: int, octaves: int = 4, persistence: float = 0.5
) -> NDArray[np.float32]:
    """Like `fractal`, but a random window of one shared tile: much faster, does not tile, mean only near 0."""
    rows = (int(rng.integers(TILE)) + np.arange(height)) % TILE
    columns = (int(rng.integers(TILE)) + np.arange(width)) % TILE
    return np.asarray(_tile(cell, octaves, persistence)[rows][:, columns], np.float32)
