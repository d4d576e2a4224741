"""Sensor and transmission noise."""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array


def gaussian_noise(
    image: UInt8Array,
    sigma: float,
    rng: np.random.Generator,
    reading: Literal["additive", "multiplicative"] = "additive",
) -> UInt8Array:
    r"""White Gaussian noise, independent in every pixel and channel, rounded and clipped to 8 bits.

    With the image on the scale 0..1 and :math:`n \sim N(0, 1)`:

    .. math::
        I_{additive} = R + \sigma n \qquad I_{multiplicative} = R (1 + \sigma n)

    The paper (Xia et al.) takes the levels 0.05, 0.09, 0.13, 0.2 from a TID2013-style generator, where they are
    standard deviations of multiplicative noise, and calls them local variances. The degraded images' PSNR it reports
    is nearest to that of additive noise of these standard deviations: that reading is the condition, the other one is
    at hand as ``reading="multiplicative"``.

    Source: distortions 1 and 19 of Ponomarenko et al., "Image database TID2013", Signal Processing: Image
    Communication 2015.

    Args:
        image: uint8 [H, W, 3].
        sigma: standard deviation on the scale 0..1, at least 0.
        rng: the only source of randomness.
        reading: what ``sigma`` scales.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: ``sigma`` is negative.
    """
    if not sigma >= 0:
        raise ValueError(
            f"gaussian_noise: sigma is {sigma}, expected at least 0 (standard deviation on the scale 0..1)"
        )
    scale = sigma if reading == "multiplicative" else 255 * sigma
    draw = rng.integers(0, 1 << 16, image.shape, np.uint16)
    noise: FloatArray = (_quantiles() * np.float32(scale)).take(draw)
    if reading == "multiplicative":
        noise *= image
    noise += image
    np.rint(noise, out=noise)
    np.clip(noise, 0.0, 255.0, out=noise)
    return noise.astype(np.uint8)


@lru_cache(maxsize=1)
def _quantiles() -> FloatArray:
    """65536 equally likely values of a standard normal variable: more than 8 bits resolve, at a quarter of the time."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / (1 << 16)) for i in range(1 << 16)], np.float32)


def impulse_noise(image: UInt8Array, density: float, rng: np.random.Generator) -> UInt8Array:
    r"""Salt and pepper: a share of the values, in every channel on its own, becomes 0 or 255 with equal chance.

    .. math::
        P(I = 0) = P(I = 255) = \rho / 2, \qquad P(I = R) = 1 - \rho

    Source: distortion 6 of Ponomarenko et al., "Image database TID2013", Signal Processing: Image Communication 2015.
    The levels are those of generators made after that database. The paper (Xia et al.) has no such condition: the *IM*
    of its Fig. 6 is an irregular mask.

    Args:
        image: uint8 [H, W, 3].
        density: share of values hit, 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: ``density`` is outside 0..1.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"impulse_noise: density is {density}, expected 0..1")
    draw = rng.random(image.shape, dtype=np.float32)
    result: UInt8Array = image.copy()
    result[draw < density / 2] = 0
    result[draw >= 1 - density / 2] = 255
    return result
