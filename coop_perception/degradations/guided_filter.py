"""Edge-preserving smoothing."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.degradations.arrays import FloatArray, UInt8Array


def guided_filter(guide: UInt8Array, source: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Smooths ``source`` while keeping, and moving, its edges to where the colour image ``guide`` has them.

    In every window the source is fitted by a linear function of the guide's colours; a pixel's value is the mean of
    what the windows around it predict. The fit is done at half the resolution, the prediction at the full one.
    Sources: He, Sun, Tang, "Guided Image Filtering", ECCV 2010, section 3.5; He, Sun, "Fast Guided Filter", 2015.

    Args:
        guide: uint8 [H, W, 3].
        source: float32 [H, W].
        radius: of the square windows, in pixels.
        epsilon: variance of the guide, on the scale 0..1, below which a window counts as flat.

    Returns:
        float32 [H, W].
    """
    height, width = source.shape
    half = max(1, width // 2), max(1, height // 2)
    window = (2 * (radius // 2) + 1, 2 * (radius // 2) + 1)

    def window_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        flat = values.reshape(half[1], half[0], -1)
        return np.asarray(cv2.boxFilter(flat, -1, window), np.float64).reshape(values.shape)

    def shrunk(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.asarray(cv2.resize(values, half, interpolation=cv2.INTER_AREA), np.float64)

    full_colour = guide.astype(np.float32) / np.float32(255)
    colour, value = shrunk(full_colour)[..., None], shrunk(source)[..., None, None]  # column vectors
    transposed = colour.swapaxes(-1, -2)
    mean_colour, mean_value = window_mean(colour), window_mean(value)
    covariance = window_mean(colour @ transposed) - mean_colour @ mean_colour.swapaxes(-1, -2)
    slope = np.linalg.solve(covariance + epsilon * np.eye(3), window_mean(colour * value) - mean_colour * mean_value)
    offset = mean_value - mean_colour.swapaxes(-1, -2) @ slope
    fit = np.concatenate([window_mean(slope)[..., 0], window_mean(offset)[..., 0]], axis=-1).astype(np.float32)
    fit = np.asarray(cv2.resize(fit, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    filtered: FloatArray = (full_colour * fit[..., :3]).sum(axis=2) + fit[..., 3]
    return filtered
