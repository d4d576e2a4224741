"""Defocus and lens errors."""

from __future__ import annotations

import math

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array


def gaussian_blur(image: UInt8Array, sigma: float) -> UInt8Array:
    r"""Blur by a circularly symmetric Gaussian kernel; the image is mirrored at its borders.

    .. math::
        I = G_\sigma * R, \qquad G_\sigma(x, y) \propto \exp\left(-\frac{x^2 + y^2}{2 \sigma^2}\right)

    Source: distortion 8 of Ponomarenko et al., "Image database TID2013", Signal Processing: Image Communication 2015.
    The levels are the paper's (Xia et al.), from generators made after that database.

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
    # A third of the time of cv2.GaussianBlur on 8 bits, whose fixed-point kernel is also up to 2 grey levels off.
    kernel = cv2.getGaussianKernel(2 * math.ceil(3 * sigma) + 1, sigma, cv2.CV_32F)
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_8U, kernel, kernel, borderType=cv2.BORDER_REFLECT), np.uint8)


def chromatic_aberration(image: UInt8Array, shift: float) -> UInt8Array:
    r"""Lateral chromatic aberration: red moves right by ``shift`` pixels and blue by half of that.

    .. math::
        I_R(x, y) = R_R(x - s, y) \qquad I_G = R_G \qquad I_B(x, y) = R_B(x - s / 2, y)

    Source: distortion 23 of Ponomarenko et al., "Image database TID2013", Signal Processing: Image Communication 2015.
    The levels are those of the paper's text (Xia et al.); the generators of its authors (xiaweihao/SR-Net) move red by
    level - 1 and green by level / 2 - 1 pixels instead, and blur both a little.

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
