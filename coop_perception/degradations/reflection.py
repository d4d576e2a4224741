"""Reflections in the glass that a camera looks through, such as a vehicle's windscreen."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.interior import vehicle_interior

_GAMMA = 2.2
_BLUR = (2.0, 5.0)
"""Standard deviations in pixels of CEILNet's crops."""
_CROP = 224
"""Pixels: their size."""


def reflection(
    image: UInt8Array, reflectance: float, rng: np.random.Generator, reflected: UInt8Array | None = None
) -> UInt8Array:
    r"""A defocused second scene on the glass in front of the camera.

    .. math::
        I = \left( (1 - \rho) B^{2.2} + \rho V \, (G_\sigma * R^{2.2}) \right)^{1 / 2.2}

    on the scale 0..1, with :math:`\rho` the share of light that the glass reflects towards the camera. Light adds up in
    linear intensities (Zhang et al.); the camera is focused on the background :math:`B`, so the reflected scene
    :math:`R` is blurred, :math:`\sigma` from 2 to 5 pixels of a 224 pixel crop (Fan et al.); and glass reflects
    unevenly over the frame, :math:`V`, a wide Gaussian bump about some point (Zhang et al.). What the glass reflects
    does not pass, so no overflow is left that one had to subtract as both articles do. The truth that goes with the
    result is the undimmed :math:`B`.

    The levels are what both faces of a pane reflect at 46, 65 and 76 degrees from its normal (Fresnel, n = 1.52);
    windscreens are raked 55 to 70 degrees. Without a second image the inside of a vehicle is invented.

    Sources: Fan et al., "A Generic Deep Architecture for Single Image Reflection Removal and Image Smoothing"
    (CEILNet), ICCV 2017; Zhang, Ng, Chen, "Single Image Reflection Separation with Perceptual Losses", CVPR 2018.

    Args:
        image: uint8 [H, W, 3] RGB, the background.
        reflectance: share of light that the glass reflects towards the camera, 0..1.
        rng: the only source of randomness.
        reflected: uint8 [h, w, 3] RGB, another scene, scaled to the image's size; ``vehicle_interior(rng)`` when
            None.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: ``reflectance`` is outside 0..1.
    """
    if not 0 <= reflectance <= 1:
        raise ValueError(f"reflection: reflectance is {reflectance}, expected 0..1 (share of light)")
    height, width = image.shape[:2]
    if reflected is None:
        reflected = vehicle_interior(rng)
    sigma = rng.uniform(*_BLUR) * min(height, width) / _CROP
    second = _defocused(_linear(reflected), sigma, (height, width))
    second *= np.float32(reflectance) * _uneven((height, width), rng)[..., None]
    second += np.float32(1 - reflectance) * _linear(image)
    mixed = 255 * cv2.pow(second, 1 / _GAMMA)
    return np.rint(mixed).astype(np.uint8)


def _linear(image: UInt8Array) -> FloatArray:
    """Linear intensity, 0..1."""
    table = ((np.arange(256) / 255) ** _GAMMA).astype(np.float32)
    return np.asarray(cv2.LUT(image, table), np.float32)


def _defocused(scene: FloatArray, sigma: float, size: tuple[int, int]) -> FloatArray:
    """The scene at `size` (height, width), blurred by sigma pixels of that size; worked on at a quarter of it."""
    small = (max(1, size[1] // 4), max(1, size[0] // 4))
    coarse = cv2.resize(scene, small, interpolation=cv2.INTER_AREA)
    coarse = cv2.GaussianBlur(coarse, (0, 0), sigma / 4, borderType=cv2.BORDER_REFLECT)
    return np.asarray(cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC).clip(0, 1), np.float32)


def _uneven(size: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """How strongly each place reflects, in 0..1: a Gaussian bump over the frame."""
    height, width = size
    bumps = []
    for length in (height, width):
        centre, spread = rng.uniform(0.2, 0.8), rng.uniform(0.5, 0.9)
        at = (np.arange(length, dtype=np.float32) + 0.5) / length
        bumps.append(np.exp(-((at - centre) ** 2) / (2 * spread**2)).astype(np.float32))
    bump: FloatArray = bumps[0][:, None] * bumps[1][None, :]
    return bump
