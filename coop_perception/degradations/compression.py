"""Lossy compression."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array


def jpeg(image: UInt8Array, quality: float) -> UInt8Array:
    """JPEG at a quality factor of the IJG scale, with 4:2:0 chroma.

    Args:
        image: uint8 [H, W, 3] RGB.
        quality: 1 (worst) to 100; rounded to an integer.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: ``quality`` is outside 1..100.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"jpeg: quality is {quality}, expected 1..100")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, round(quality)])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
