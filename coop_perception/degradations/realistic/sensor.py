"""Noise and defects of real sensors, in linear light, and exposures that are too short."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic.light import to_linear, to_srgb


def poisson_gauss(image: UInt8Array, electrons: float, read_noise: float, rng: np.random.Generator) -> UInt8Array:
    r"""Shot and read noise of each pixel and channel by itself.

    .. math::
        I = \frac{\mathcal{P}(N R) + \mathcal{N}(0, \sigma_r^2)}{N}

    Source: Foi et al., "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data", IEEE TIP
    2008.

    Args:
        image: uint8 [H, W, 3] RGB.
        electrons: N, what a white pixel collects.
        read_noise: standard deviation in electrons.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    return to_srgb(_exposed(to_linear(image), electrons, read_noise, rng))


def bayer_noise(image: UInt8Array, electrons: float, read_noise: float, rng: np.random.Generator) -> UInt8Array:
    """The same noise on a Bayer mosaic, then demosaiced: it comes in blotches of a few pixels and of colour.

    Source: as `poisson_gauss`; Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019, for why noise
    has to go through the mosaic. Demosaicing is OpenCV's edge-aware one.

    Args, returns: as `poisson_gauss`.
    """
    height, width = image.shape[:2]
    light = to_linear(image)
    even = light[: height - height % 2, : width - width % 2]
    mosaic = np.empty(even.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = even[row::2, column::2, channel]
    raw = _exposed(mosaic, electrons, read_noise, rng)
    codes = np.rint(65535 * np.clip(raw, 0, 1)).astype(np.uint16)
    # OpenCV names patterns after the second row's second and third pixel.
    colours = cv2.cvtColor(codes, cv2.COLOR_BayerBG2RGB_EA).astype(np.float32) / 65535
    light = light.copy()
    light[: even.shape[0], : even.shape[1]] = colours
    return to_srgb(light)


def grey_noise(image: UInt8Array, electrons: float, read_noise: float, rng: np.random.Generator) -> UInt8Array:
    """The same noise on luminance alone, as what is left behind a camera's chroma denoising.

    Args, returns: as `poisson_gauss`.
    """
    light = to_linear(image)
    luminance = (light @ np.array([0.2126, 0.7152, 0.0722], np.float32))[..., None]
    noisy = _exposed(luminance, electrons, read_noise, rng)
    return to_srgb(light + (noisy - luminance))


def random_impulses(image: UInt8Array, share: float, rng: np.random.Generator) -> UInt8Array:
    """A share of the values replaced by random ones, evenly spread over 0..255, as faulty pixels and lines leave.

    Source: Gonzalez and Woods, "Digital Image Processing", 5.2 (random-valued impulse noise).

    Args:
        image: uint8 [H, W, 3] RGB.
        share: of values hit, 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    hit = rng.random(image.shape, np.float32) < share
    return np.where(hit, rng.integers(0, 256, image.shape, np.uint8), image)


def low_light(image: UInt8Array, exposure: float, rng: np.random.Generator, electrons: float = 4000.0) -> UInt8Array:
    r"""Too little light: a share ``exposure`` of it reaches the sensor, whose noise stays, and half of what is missing
    is amplified (in stops), as auto exposure at its limit does.

    Source: Chen et al., "Learning to See in the Dark", CVPR 2018, for the setting; noise as `poisson_gauss`.

    Args:
        image: uint8 [H, W, 3] RGB.
        exposure: share of the light, above 0, at most 1.
        rng: the only source of randomness.
        electrons: what a white pixel collects at full exposure.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    dark = _exposed(to_linear(image) * np.float32(exposure), electrons, 8.0, rng)
    return to_srgb(dark * np.float32(exposure**-0.5))


def _exposed(light: FloatArray, electrons: float, read_noise: float, rng: np.random.Generator) -> FloatArray:
    """Light float32 of any shape as a sensor counts it: shot noise's normal approximation above 20 electrons costs
    nothing that 8 bits could show, but below it does, so that counts are Poisson's own."""
    counts = rng.poisson(np.maximum(light, 0) * electrons).astype(np.float32)
    counts += rng.normal(0.0, read_noise, light.shape).astype(np.float32)
    return np.asarray(counts / np.float32(electrons), np.float32)
