"""Scenes of known truth that the tests of the adverse conditions share."""

from __future__ import annotations

import numpy as np

from coop_perception.camera import Intrinsics

HEIGHT, WIDTH = 120, 160
CAMERA = Intrinsics(WIDTH, HEIGHT, 140.0, 140.0, 79.5, 59.5)


def blocks() -> np.ndarray:
    """Coarse random blocks: edges and flat parts, and no value near 0 or 255. uint8 [H, W, 3]"""
    coarse = np.random.default_rng(0).integers(60, 196, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def receding() -> np.ndarray:
    """Metres, growing upwards; sky in the top quarter. float32 [H, W]"""
    rows = np.linspace(120, 5, HEIGHT, dtype=np.float32)
    rows[: HEIGHT // 4] = np.inf
    return np.repeat(rows[:, None], WIDTH, axis=1)
