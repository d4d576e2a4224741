"""Homogeneous fog after Koschmieder's law, as FoggyCityscapes applies it."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.degradations.arrays import FloatArray, UInt8Array

_DARK_CHANNEL_PATCH = 15
_AIRLIGHT_FRACTION = 0.001


def path_length(depth: FloatArray, intrinsics: Intrinsics) -> FloatArray:
    r"""Length of the line of sight from the camera to each pixel's surface.

    .. math::
        \ell = d \sqrt{1 + \left(\frac{X - c_x}{f_x}\right)^2 + \left(\frac{Y - c_y}{f_y}\right)^2}

    which for :math:`f_x = f_y` is Sakaridis et al.'s :math:`d \sqrt{f_x^2 + (X-c_x)^2 + (Y-c_y)^2} / f_x`.

    Args:
        depth: float32 [H, W], distance along the optical axis in metres; inf for the sky.
        intrinsics: of the camera that took the image, for the image's size.

    Returns:
        float32 [H, W], metres.
    """
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(intrinsics.fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(intrinsics.fy)
    length: FloatArray = depth * np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
    return length


def transmission(length: FloatArray, beta: float) -> FloatArray:
    r"""The part of the light that crosses ``length`` metres of fog: :math:`t = \exp(-\beta \ell)`.

    Args:
        length: float32 [H, W], metres; inf allowed.
        beta: attenuation coefficient, 1/m, above 0. The meteorological optical range is 2.996 / beta.

    Returns:
        float32 [H, W] in 0..1; 0 where the length is infinite.
    """
    result: FloatArray = np.exp(length * np.float32(-beta))
    return result


def estimate_airlight(image: UInt8Array) -> FloatArray:
    """Colour of the atmospheric light: mean colour of the brightest 0.1 % of the image's 15x15 dark channel.

    The dark channel is the minimum over the colour channels and a patch, so a small white thing does not count, a
    bright sky or wall does. Source: He, Sun, Tang, "Single Image Haze Removal Using Dark Channel Prior", CVPR 2009.

    Args:
        image: uint8 [H, W, 3], the clear image.

    Returns:
        float32 [3] in 0..255.
    """
    patch = np.ones((_DARK_CHANNEL_PATCH, _DARK_CHANNEL_PATCH), np.uint8)
    red, green, blue = cv2.split(image)
    dark = np.asarray(cv2.erode(cv2.min(cv2.min(red, green), blue), patch), np.uint8)
    count = max(1, round(_AIRLIGHT_FRACTION * dark.size))
    pixels_at_least = np.bincount(dark.ravel(), minlength=256)[::-1].cumsum()[::-1]
    threshold = np.flatnonzero(pixels_at_least >= count)[-1]
    airlight: FloatArray = image[dark >= threshold].mean(axis=0, dtype=np.float32)
    return airlight


def fog(
    image: UInt8Array, depth: FloatArray, beta: float, intrinsics: Intrinsics, airlight: FloatArray | None = None
) -> UInt8Array:
    r"""Fog of density ``beta`` in a clear image.

    .. math::
        I = t R + (1 - t) L

    with transmission :math:`t = \exp(-\beta \ell)` along the line of sight :math:`\ell` and airlight :math:`L`; on the
    8-bit sRGB values themselves, as FoggyCityscapes was made and its scores were published, although light adds up in
    linear intensities.

    Source: Sakaridis, Dai, Van Gool, "Semantic Foggy Scene Understanding with Synthetic Data", IJCV 2018, whose three
    densities are the levels.

    Args:
        image: uint8 [H, W, 3] RGB.
        depth: float32 [H, W] in metres along the optical axis, inf for the sky.
        beta: attenuation coefficient, 1/m, above 0; 0.005, 0.01, 0.02 are a visibility of 600, 300, 150 m.
        intrinsics: of the camera, for the image's size.
        airlight: float32 [3] in 0..255; estimated from the image when None.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        ValueError: ``beta`` is not above 0, or ``depth`` is negative or NaN somewhere.
    """
    if not beta > 0:
        raise ValueError(f"fog: beta is {beta}, expected above 0 (attenuation coefficient in 1/m)")
    if not depth.min() >= 0:
        raise ValueError("fog: depth holds negative or NaN values; expected metres, inf for the sky")
    light = estimate_airlight(image) if airlight is None else airlight
    seen = transmission(path_length(depth, intrinsics), beta)
    result = np.empty_like(image)
    for channel in range(3):  # three planes take a fifth of the time of one array of pixels
        mixed = image[..., channel] - light[channel]
        mixed *= seen
        mixed += light[channel]
        result[..., channel] = np.rint(mixed, out=mixed)
    return result
