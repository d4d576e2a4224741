"""Defocus and lens errors."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array


def gaussian_blur(image: UInt8Array, sigma: float) -> UInt8Array:
    """Blur by a circularly symmetric Gaussian kernel; the image is mirrored at its borders.

    Args:
        image: uint8 [H, W, 3].
        sigma: standard deviation in pixels, above 0.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: ``sigma`` is not above 0.
    """
    if not sigma > 0:
        raise ValueError(f"gaussian_blur: sigma is {sigma}, expected above 0 (pixels)")
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.uint8)


def chromatic_aberration(image: UInt8Array, shift: float) -> UInt8Array:
    """Lateral chromatic aberration: red moves right by ``shift`` pixels and blue by half of that.

    Args:
        image: uint8 [H, W, 3] RGB; border columns are repeated where a channel moves away from them.
        shift: pixels, at least 0; fractions interpolate.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: ``shift`` is negative.
    """
    if not shift >= 0:
        raise ValueError(f"chromatic_aberration: shift is {shift}, expected at least 0 (pixels)")
    height, width = image.shape[:2]
    result: UInt8Array = image.copy()
    for channel, pixels in ((0, shift), (2, shift / 2)):
        move = np.array([[1, 0, pixels], [0, 1, 0]], np.float64)
        result[..., channel] = cv2.warpAffine(
            image[..., channel], move, (width, height), borderMode=cv2.BORDER_REPLICATE
        )
    return result
