"""Lossy compression."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array


def jpeg(image: UInt8Array, quality: float) -> UInt8Array:
    r"""JPEG by a real codec, at a quality factor of the IJG scale, with 4:2:0 chroma.

    Coefficients of each 8x8 block's cosine transform are rounded to multiples of the scaled quantisation table:

    .. math::
        \hat{C} = Q \, \mathrm{round}(C / Q), \qquad
        Q = \frac{s \, Q_{50}}{100}, \qquad
        s = 5000 / q \text{ below } q = 50, \text{ else } 200 - 2 q

    Source: ITU-T T.81 (1992); the scale is that of the Independent JPEG Group's library. The levels are the paper's
    (Xia et al.).

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
