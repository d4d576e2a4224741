"""Fog, rain, snow, night and glare, otherwise than the published conditions model them."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.realistic.light import smooth_noise, to_linear, to_srgb

_SUPERSAMPLING = 2


def haze(
    image: UInt8Array,
    depth: FloatArray,
    intrinsics: Intrinsics,
    beta: float,
    airlight: tuple[float, float, float],
    patches: float,
    rng: np.random.Generator,
) -> UInt8Array:
    r"""Fog in linear light, of a coloured airlight, denser here than there.

    .. math::
        I = t R + (1 - t) L, \qquad t = \exp(-\beta (1 + p (2 n - 1)) \ell)

    with a smooth random field :math:`n` over the image.

    Source: Koschmieder, 1924; patches as in Tarel et al., "Vision Enhancement in Homogeneous and Heterogeneous Fog",
    IEEE ITSM 2012.

    Args:
        image: uint8 [H, W, 3] RGB.
        depth: float32 [H, W], metres along the optical axis, inf for the sky.
        intrinsics: of the camera.
        beta: attenuation coefficient in 1/m, above 0.
        airlight: sRGB in 0..1.
        patches: p, 0 (homogeneous) to 1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = depth.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(intrinsics.fx)
    y = (np.arange(height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(intrinsics.fy)
    length = np.minimum(depth, 1e5) * np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)
    field = smooth_noise((height, width), width / 3, rng)
    passed = np.exp(-np.float32(beta) * (1 + np.float32(patches) * (2 * field - 1)) * length)[..., None]
    sky = to_linear(np.rint(255 * np.array(airlight)).astype(np.uint8)[None, None])
    return to_srgb(passed * to_linear(image) + (1 - passed) * sky)


def streaks(
    image: UInt8Array, number: int, length: float, angle: float, brightness: float, rng: np.random.Generator
) -> UInt8Array:
    r"""Rain that is streaks alone, all slanted alike, without the veil of distant drops, added as light.

    Source: Yang et al., "Deep Joint Rain Detection and Removal from a Single Image" (Rain100), CVPR 2017:
    O = B + S·R, streaks by photorealistic rendering there, soft lines of random length and width here.

    Args:
        image: uint8 [H, W, 3] RGB.
        number: of streaks per 480x360 pixels.
        length: mean in pixels at 360 rows.
        angle: radians from the vertical.
        brightness: light of a streak, 0..1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    scale = height / 360 * _SUPERSAMPLING
    canvas = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.float32)
    count = round(number * height * width / (480 * 360))
    starts = rng.random((count, 2)) * np.array([1.2 * canvas.shape[1], 1.2 * canvas.shape[0]])
    starts -= 0.1 * np.array(canvas.shape[::-1])
    lengths = length * scale * rng.gamma(4.0, 0.25, count)
    angles = angle + rng.normal(0, 0.04, count)
    strengths = rng.uniform(0.3, 1.0, count)
    for start, run, direction, strength in zip(starts, lengths, angles, strengths, strict=True):
        end = start + run * np.array([np.sin(direction), np.cos(direction)])
        ends = np.rint([start, end]).astype(int).tolist()
        cv2.line(canvas, tuple(ends[0]), tuple(ends[1]), float(strength), 1 + int(rng.integers(0, 2)), cv2.LINE_AA)
    soft = cv2.resize(cv2.GaussianBlur(canvas, (0, 0), 0.8), (width, height), interpolation=cv2.INTER_AREA)
    return to_srgb(to_linear(image) + np.float32(brightness) * np.asarray(soft, np.float32)[..., None])


def snow(image: UInt8Array, number: int, size: float, rng: np.random.Generator, veil: float = 0.06) -> UInt8Array:
    """Falling flakes, soft and of every size, near ones large and transparent, and a thin white veil.

    Source: Liu et al., "DesnowNet: Context-Aware Deep Network for Snow Removal", IEEE TIP 2018: I = a∘z + y∘(1−z), an
    opaque mask z of flakes of three sizes.

    Args:
        image: uint8 [H, W, 3] RGB.
        number: of flakes per 480x360 pixels.
        size: radius in pixels of a middling one at 360 rows.
        rng: the only source of randomness.
        veil: share of light that distant flakes add.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    opacity = np.zeros((height, width), np.float32)
    count = round(number * height * width / (480 * 360))
    radii = size * height / 360 * rng.lognormal(0.0, 0.5, count)
    for radius in sorted(radii.tolist()):
        flake = np.zeros_like(opacity)
        x, y = rng.random() * width, rng.random() * height
        reach = int(4 * radius) + 2
        box = (
            slice(max(0, int(y) - reach), min(height, int(y) + reach)),
            slice(max(0, int(x) - reach), min(width, int(x) + reach)),
        )
        rows, columns = np.mgrid[box].astype(np.float32)
        stretched = (columns - x) ** 2 + ((rows - y) / rng.uniform(1.0, 1.6)) ** 2
        flake = np.exp(-stretched / np.float32(radius**2)) * np.float32(rng.uniform(0.35, 0.95))
        np.maximum(opacity[box], flake, out=opacity[box])
    light = to_linear(image) * np.float32(1 - veil) + np.float32(0.85 * veil)
    return to_srgb(light * (1 - opacity[..., None]) + np.float32(0.85) * opacity[..., None])


def night(image: UInt8Array, darkness: float, rng: np.random.Generator) -> UInt8Array:
    """A day's image as at night: darker the further up, bluish, with pools of warm lamp light and sensor noise.

    Source: none of its own; dimming in linear light, colour and noise as in Punnappurath et al., "Day-to-Night Image
    Synthesis for Training Nighttime Neural ISPs", CVPR 2022.

    Args:
        image: uint8 [H, W, 3] RGB.
        darkness: share of light that is gone, 0 to below 1.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    lamps = np.zeros((height, width), np.float32)
    for _ in range(4):
        centre_x, centre_y = rng.uniform(0, width), rng.uniform(0.4, 0.8) * height
        reach = rng.uniform(0.1, 0.25) * width
        lamps += np.exp(-((x - centre_x) ** 2 + (1.7 * (y - centre_y)) ** 2) / np.float32(reach**2))
    left = np.float32(1 - darkness)
    ambient = left * (0.4 + 0.6 * (y / height))
    colour = ambient[..., None] * np.array([0.75, 0.85, 1.1], np.float32)
    colour = colour + 2.5 * left * lamps[..., None] * np.array([1.1, 0.85, 0.5], np.float32)
    light = to_linear(image) * colour
    counts = rng.poisson(light * 3000).astype(np.float32) + rng.normal(0, 6, light.shape).astype(np.float32)
    return to_srgb(np.asarray(counts / 3000, np.float32) * np.float32(left**-0.35))


def glare(image: UInt8Array, strength: float, rng: np.random.Generator) -> UInt8Array:
    """A low sun or a headlamp in view: a bright source, its halo, and stray light over the whole frame.

    Source: Talvala et al., "Veiling Glare in High Dynamic Range Imaging", SIGGRAPH 2007; halo as a sum of Gaussians.

    Args:
        image: uint8 [H, W, 3] RGB.
        strength: light of the halo at its middle, above 0; 1 is white.
        rng: the only source of randomness.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    centre_x, centre_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.05, 0.5) * height
    squared = ((x - centre_x) ** 2 + (y - centre_y) ** 2) / np.float32(width**2)
    halo = sum(
        weight * np.exp(-squared / np.float32(reach**2)) for weight, reach in ((2, 0.03), (0.6, 0.12), (0.3, 0.4))
    )
    light = np.asarray(halo + 0.08, np.float32)[..., None] * np.array([1.0, 0.94, 0.82], np.float32)
    return to_srgb(to_linear(image) + np.float32(strength) * light)
