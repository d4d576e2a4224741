"""What cameras and codecs do to images and no condition describes: what a restoration has to leave alone.

It is what the estimate of familiarity is taught on (outlier exposure, Hendrycks, Mazeika, Dietterich, "Deep Anomaly
Detection with Outlier Exposure", ICLR 2019). Nothing is scored on it: `degradations.realistic` has other kernels, other
colour curves and other codecs, and constants of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Kind = Callable[[Pixels, np.random.Generator], Pixels]
"""(image uint8 [H,W,3] RGB, rng) → same."""


def box(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A box filter, of equal or unequal sides."""
    size = rng.integers(2, 12, 2) if rng.random() < 0.5 else np.full(2, rng.integers(2, 12))
    return np.asarray(cv2.blur(image, tuple(int(side) for side in size), borderType=cv2.BORDER_REFLECT), np.uint8)


def shake(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A random walk of the camera, as hands and bad roads shake it."""
    steps = np.cumsum(np.cumsum(rng.normal(0, 1, (64, 2)), 0), 0)
    steps -= steps.mean(0)
    reach = float(np.exp(rng.uniform(np.log(1.0), np.log(14.0))))
    steps *= reach / max(np.abs(steps).max(), 1e-6)
    radius = int(np.ceil(reach)) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    for x, y in steps:
        left, top = int(np.floor(x)), int(np.floor(y))
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            kernel[row + radius, column + radius] += weight
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT), np.uint8)


def ring(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A polygonal aperture out of focus, evenly lit or brighter at its rim."""
    radius = float(np.exp(rng.uniform(np.log(1.2), np.log(8.0))))
    reach, scale = int(np.ceil(radius)) + 1, 8
    angles = np.linspace(0, 2 * np.pi, int(rng.integers(5, 10)), endpoint=False) + rng.uniform(0, 2 * np.pi)
    corners = scale * (reach + 0.5 + radius * np.stack([np.cos(angles), np.sin(angles)], 1))
    canvas = np.zeros((scale * (2 * reach + 1),) * 2, np.float32)
    cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], 1.0)
    if rng.random() < 0.3:
        canvas += cv2.morphologyEx(canvas, cv2.MORPH_GRADIENT, np.ones((scale, scale), np.uint8))
    kernel = cv2.resize(canvas, (2 * reach + 1,) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT), np.uint8)


def two_widths(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A sharp image and a blurred one over each other, as haze on a lens or sharpening in a camera leaves it."""
    soft = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1.0, 8.0)), borderType=cv2.BORDER_REFLECT)
    share = float(rng.uniform(0.3, 0.9))
    return np.asarray(cv2.addWeighted(image, 1 - share, soft, share, 0), np.uint8)


def resampled(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Scaled down and up again."""
    height, width = image.shape[:2]
    scale = rng.uniform(0.25, 0.9)
    down, up = rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4], 2)
    small = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=int(down))
    return np.asarray(cv2.resize(small, (width, height), interpolation=int(up)), np.uint8)


def recoded(image: Pixels, rng: np.random.Generator) -> Pixels:
    """JPEG with full colour and a grid that lies anywhere, or JPEG 2000."""
    if rng.random() < 0.4:
        parameters = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, int(np.exp(rng.uniform(np.log(15), np.log(300))))]
        return _coded(image, ".jp2", parameters)
    top, left = (int(offset) for offset in rng.integers(0, 16, 2))
    padded = np.asarray(cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT), np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 97))]
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return np.ascontiguousarray(_coded(padded, ".jpg", quality + sampling)[top:, left:])


def filtered(image: Pixels, rng: np.random.Generator) -> Pixels:
    """What cameras do against noise: a median or a bilateral filter."""
    if rng.random() < 0.5:
        return np.asarray(cv2.medianBlur(image, int(rng.choice([3, 5]))), np.uint8)
    return np.asarray(cv2.bilateralFilter(image, 7, float(rng.uniform(15, 60)), float(rng.uniform(1, 4))), np.uint8)


def graded(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Another camera's curve and colours: an S-shaped or lifted curve, and a mixing of channels."""
    values = np.arange(256) / 255
    lift, gain, bend = rng.uniform(-0.08, 0.12), rng.uniform(0.8, 1.15), rng.uniform(-0.5, 0.5)
    curve = lift + gain * (values + bend * values * (1 - values) * (2 * values - 1))
    mixing = np.eye(3) + rng.normal(0, 0.08, (3, 3))
    mixing /= mixing.sum(1, keepdims=True)
    light = curve[image] @ mixing.T * rng.uniform(0.88, 1.12, 3)
    return np.asarray(np.rint(255 * np.clip(light, 0, 1)), np.uint8)


def misregistered(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Channels scaled, turned and shifted against each other by up to a few pixels, any way."""
    height, width = image.shape[:2]
    result = np.array(image)
    for channel in (0, 2):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.normal(0, 0.15), 1 + rng.normal(0, 0.006))
        turn[:, 2] += rng.normal(0, 1.5, 2)
        result[..., channel] = cv2.warpAffine(
            image[..., channel], turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    return result


def blotched(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Noise that neighbours share, as demosaicing and compression leave it."""
    height, width = image.shape[:2]
    noise = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), rng.uniform(0.5, 1.5))
    noise *= np.float32(rng.uniform(2, 25) / noise.std())
    return np.asarray(np.rint(np.clip(image + noise, 0, 255)), np.uint8)


def covered(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Soft patches of one colour in front of the scene."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.float32)
    for _ in range(int(rng.integers(1, 8))):
        place, axes = rng.random(2) * (width, height), rng.uniform(0.01, 0.2, 2) * width
        centre, size = tuple(int(v) for v in place), tuple(int(v) + 1 for v in axes)
        cv2.ellipse(cover, centre, size, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.2, 1)), -1)
    cover = cv2.GaussianBlur(cover, (0, 0), float(rng.uniform(0.5, 8)))[..., None]
    return np.asarray(np.rint(image * (1 - cover) + cover * rng.integers(0, 256, 3)), np.uint8)


KINDS: tuple[Kind, ...] = (
    box,
    shake,
    ring,
    two_widths,
    resampled,
    recoded,
    filtered,
    graded,
    misregistered,
    blotched,
    covered,
)


def unknown(image: Pixels, rng: np.random.Generator) -> Pixels:
    """One of KINDS, or two in turn."""
    for kind in rng.choice(len(KINDS), 1 + int(rng.random() < 0.35), replace=False):
        image = KINDS[int(kind)](image, rng)
    return image


def _coded(image: Pixels, suffix: str, parameters: list[int]) -> Pixels:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {suffix} here; install a build that does")
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
