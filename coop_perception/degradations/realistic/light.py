"""Between sRGB's 8 bits and linear light."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array

_VALUES = np.arange(256) / 255
_TO_LINEAR = np.where(_VALUES <= 0.04045, _VALUES / 12.92, ((_VALUES + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_linear(image: UInt8Array) -> FloatArray:
    """sRGB (IEC 61966-2-1) uint8 → linear intensity float32 in 0..1, same shape."""
    return np.asarray(cv2.LUT(image, _TO_LINEAR), np.float32)


def to_srgb(light: FloatArray) -> UInt8Array:
    """Linear intensity, clipped to 0..1 → sRGB uint8, same shape."""
    clipped = np.clip(light, 0, 1)
    curve = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * np.power(clipped, 1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * curve), np.uint8)


def smooth_noise(shape: tuple[int, int], cell: float, rng: np.random.Generator) -> FloatArray:
    """Smooth random field float32 [H,W] in 0..1 whose bumps are about `cell` pixels wide."""
    rows, columns = (max(2, int(np.ceil(size / cell)) + 1) for size in shape)
    coarse = rng.random((rows, columns)).astype(np.float32)
    field = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(field, 0, 1), np.float32)
