"""Blur and lateral colour errors of real lenses and exposures."""

from __future__ import annotations

import math

import cv2
import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic.light import to_linear, to_srgb

_OVERSAMPLING = 8


def motion_blur(image: UInt8Array, length: float, angle: float) -> UInt8Array:
    r"""The camera moves evenly while the shutter is open: a line of ``length`` pixels at ``angle`` radians, in linear
    light.

    .. math::
        I = k * R, \qquad k \text{ uniform on a line}

    Source: Levin et al., "Understanding and evaluating blind deconvolution algorithms", CVPR 2009, whose paths are
    shorter and bent; straight ones as in Nah et al., "Deep Multi-scale CNN for Dynamic Scene Deblurring", CVPR 2017.

    Args:
        image: uint8 [H, W, 3] RGB.
        length: in pixels, at least 1.
        angle: radians, 0 along rows.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    radius = math.ceil(length / 2) + 1
    size = 2 * radius + 1
    canvas = np.zeros((size * _OVERSAMPLING, size * _OVERSAMPLING), np.uint8)
    centre = canvas.shape[0] / 2
    reach = np.array([math.cos(angle), math.sin(angle)]) * length / 2 * _OVERSAMPLING
    ends = np.rint([centre - reach, centre + reach]).astype(int).tolist()
    cv2.line(canvas, tuple(ends[0]), tuple(ends[1]), 255, _OVERSAMPLING)
    kernel = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return _filtered(image, np.asarray(kernel, np.float32))


def defocus(image: UInt8Array, radius: float) -> UInt8Array:
    r"""A lens out of focus: the aperture's disc of ``radius`` pixels, in linear light.

    .. math::
        I = k * R, \qquad k \text{ uniform on a disc}

    Source: Hecht, "Optics", 5th edition, 6.3; measured discs in Abuolaim and Brown, "Defocus Deblurring Using
    Dual-Pixel Data", ECCV 2020.

    Args:
        image: uint8 [H, W, 3] RGB.
        radius: in pixels, above 0.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    reach = math.ceil(radius) + 1
    size = 2 * reach + 1
    canvas = np.zeros((size * _OVERSAMPLING, size * _OVERSAMPLING), np.uint8)
    centre = canvas.shape[0] // 2
    cv2.circle(canvas, (centre, centre), round(radius * _OVERSAMPLING), 255, -1)
    kernel = cv2.resize(canvas.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return _filtered(image, np.asarray(kernel, np.float32))


def anisotropic_blur(image: UInt8Array, across: float, along: float, angle: float) -> UInt8Array:
    r"""A Gaussian that is wider one way than the other, as astigmatism or vibration leave it, in linear light.

    Source: Zhang, Zuo, Zhang, "Learning a Single Convolutional Super-Resolution Network for Multiple Degradations",
    CVPR 2018, whose kernels are the same.

    Args:
        image: uint8 [H, W, 3] RGB.
        across, along: standard deviations in pixels of its two axes, above 0.
        angle: radians of the axis ``along``.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    reach = math.ceil(3 * max(across, along))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return _filtered(image, np.exp(-(u**2 / (2 * along**2) + v**2 / (2 * across**2))).astype(np.float32))


def radial_aberration(image: UInt8Array, red: float, blue: float) -> UInt8Array:
    r"""Lateral chromatic aberration as lenses have it: red and blue are magnified otherwise than green.

    .. math::
        I_c(x) = R_c\left(x_0 + (x - x_0) (1 - \delta_c / \rho)\right)

    with :math:`\rho` half the image's diagonal, where the shift is :math:`\delta_c` pixels, none in the middle.

    Source: Kang, "Automatic Removal of Chromatic Aberration from a Single Image", CVPR 2007, its linear term.

    Args:
        image: uint8 [H, W, 3] RGB.
        red, blue: outward shifts in the corners in pixels; negative: inward.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    half = math.hypot(height, width) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    result = np.array(image)
    for channel, shift in ((0, red), (2, blue)):
        scale = 1 - shift / half
        at_x, at_y = centre_x + (x - centre_x) * scale, centre_y + (y - centre_y) * scale
        result[..., channel] = _sampled(image[..., channel], at_x, at_y)
    return result


def shifted_channels(image: UInt8Array, red: tuple[float, float], blue: tuple[float, float]) -> UInt8Array:
    """Red and blue displaced as a whole, by parts of a pixel and either way, as a misaligned prism or sensor does.

    Args:
        image: uint8 [H, W, 3] RGB.
        red, blue: displacement (x, y) in pixels, to the right and down.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    result = np.array(image)
    for channel, (right, down) in ((0, red), (2, blue)):
        result[..., channel] = _sampled(image[..., channel], x - np.float32(right), y - np.float32(down))
    return result


def _filtered(image: UInt8Array, kernel: FloatArray) -> UInt8Array:
    light = cv2.filter2D(to_linear(image), -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)
    return to_srgb(np.asarray(light, np.float32))


def _sampled(channel: UInt8Array, x: FloatArray, y: FloatArray) -> UInt8Array:
    return np.asarray(cv2.remap(channel, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101), np.uint8)
