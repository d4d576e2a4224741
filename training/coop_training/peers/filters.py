"""Classical restorations, one for each condition, which they are given: the oracle that no vehicle has.

Every filter takes (image uint8 [H,W,3] RGB, the level's parameter, its settings) and returns uint8 [H,W,3]. BM3D is not
among them: its implementation on PyPI is not free software.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.degradations.fog import estimate_airlight
from coop_perception.degradations.guided_filter import guided_filter

Pixels = NDArray[np.uint8]

_DARK_PATCH = 15
_LEAST_TRANSMISSION = 0.1
_GUIDED_EPSILON = 1e-3
"""As He et al. choose them."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A filter, and the values among which its settings are to be chosen, in the order in which it takes them."""

    restore: Callable[..., Pixels]
    settings: Mapping[str, tuple[float, ...]]

    def candidates(self) -> list[dict[str, float]]:
        """Every combination of settings."""
        return [dict(zip(self.settings, values, strict=True)) for values in itertools.product(*self.settings.values())]


def deconvolve(image: Pixels, sigma: float, noise_to_signal: float) -> Pixels:
    """Wiener deconvolution with a Gaussian kernel of known sigma (pixels) and a constant noise-to-signal ratio.

    Not blind. The image is mirrored at its borders, as the blur did, so that they do not ring. Source: Gonzalez, Woods,
    "Digital Image Processing", section 5.8.
    """
    height, width = image.shape[:2]
    mirrored = np.pad(image, ((0, height), (0, width), (0, 0)), mode="symmetric")
    frequencies = 2 * np.pi * np.hypot(np.fft.fftfreq(2 * height)[:, None], np.fft.rfftfreq(2 * width))
    blur = np.exp(-((sigma * frequencies) ** 2) / 2)
    gain = blur / (blur**2 + noise_to_signal)
    spectrum = np.fft.rfft2(mirrored, axes=(0, 1)) * gain[..., None]
    return _bytes(np.fft.irfft2(spectrum, s=mirrored.shape[:2], axes=(0, 1))[:height, :width])


def denoise(image: Pixels, sigma: float, strength: float) -> Pixels:
    """Non-local means, filtering parameter `strength` x sigma (0..1). Source: Buades, Coll, Morel, CVPR 2005."""
    h = strength * 255 * sigma
    bgr = cv2.fastNlMeansDenoisingColored(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), None, h, h, 7, 21)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def remove_impulses(image: Pixels, density: float, size: float) -> Pixels:
    """Median of `size` x `size` pixels, of values 0 and 255 alone: no other can be an impulse."""
    medians = cv2.medianBlur(image, int(size))
    return np.asarray(np.where((image == 0) | (image == 255), medians, image), np.uint8)


def deblock(image: Pixels, quality: float, sigma_color: float, sigma_space: float) -> Pixels:
    """Bilateral filter (grey levels, pixels). Source: Tomasi, Manduchi, ICCV 1998."""
    return np.asarray(cv2.bilateralFilter(image, 0, sigma_color, sigma_space), np.uint8)


def register(image: Pixels, shift: float) -> Pixels:
    """Red and blue moved to where phase correlation finds them best aligned with green; the shift is not given.

    Source: Kuglin, Hines, "The Phase Correlation Image Alignment Method", 1975.
    """
    size = image.shape[1::-1]
    window = cv2.createHanningWindow(size, cv2.CV_64F)
    planes = image.astype(np.float64)
    result: Pixels = image.copy()
    for channel in (0, 2):
        (right, down), _ = cv2.phaseCorrelate(planes[..., 1], planes[..., channel], window)
        result[..., channel] = cv2.warpAffine(
            image[..., channel],
            np.array([[1, 0, right], [0, 1, down]]),
            size,
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return result


def dehaze(image: Pixels, parameter: float, omega: float) -> Pixels:
    """Dark channel prior, its transmission refined by a guided filter; `omega` is the share of haze taken away.

    Sources: He, Sun, Tang, "Single Image Haze Removal Using Dark Channel Prior", CVPR 2009; "Guided Image Filtering",
    ECCV 2010.
    """
    light = np.maximum(estimate_airlight(image), 1)
    dark = cv2.erode((image / light).min(axis=2).astype(np.float32), np.ones((_DARK_PATCH, _DARK_PATCH), np.uint8))
    radius = max(2, image.shape[1] // 12)
    transmission = guided_filter(image, 1 - np.float32(omega) * dark, radius, _GUIDED_EPSILON)
    return _bytes((image - light) / np.clip(transmission, _LEAST_TRANSMISSION, 1)[..., None] + light)


def _bytes(values: NDArray[np.floating]) -> Pixels:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


_OMEGAS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        "gaussian_blur": Peer(deconvolve, {"noise_to_signal": (3e-6, 1e-5, 3e-5, 1e-4, 2e-4, 5e-4, 1e-3, 3e-3)}),
        "gaussian_noise": Peer(denoise, {"strength": (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9)}),
        "impulse_noise": Peer(remove_impulses, {"size": (3, 5, 7)}),
        "jpeg": Peer(deblock, {"sigma_color": (20, 30, 40, 60, 90, 120), "sigma_space": (0.5, 0.7, 1, 2, 4, 6)}),
        "chromatic_aberration": Peer(register, {}),
        "fog": Peer(dehaze, {"omega": _OMEGAS}),
        "rain": Peer(dehaze, {"omega": _OMEGAS}),
        "reflection": Peer(dehaze, {"omega": _OMEGAS}),
    }
)
"""By condition. Of rain and reflection the dark channel prior takes the veil: medians that also take streaks away cost
more detail than the streaks do (on CamVid), and a single image does not tell a reflection from what lies behind."""
