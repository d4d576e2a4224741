"""What can be said of masks and images without knowing the truth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_FLOW_HEIGHT = 180
"""Pixels: flow that is true to a pixel of this costs a hundredth of the networks' time."""
_SMALLEST = 32
_SAME = 12.0
"""Grey levels by which a pixel may differ from where flow says that it came from; more is no match."""
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def disagreement(one: Pixels, other: Pixels) -> float:
    """Share of pixels on which two masks uint8 [H,W] differ."""
    return float(np.count_nonzero(one != other) / one.size)


def sharpness(grey: Pixels) -> float:
    """Variance of the Laplacian of uint8 [H,W] (Pech-Pacheco et al., "Diatom Autofocusing in Brightfield Microscopy",
    ICPR 2000); noise raises it too."""
    return float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))[1][0, 0] ** 2)


def contrast(grey: Pixels) -> float:
    """Standard deviation of uint8 [H,W], over 255 (Peli, "Contrast in Complex Images", JOSA A 1990)."""
    return float(cv2.meanStdDev(grey)[1][0, 0] / 255)


def noise(grey: Pixels) -> float:
    """Standard deviation of white noise in uint8 [H,W], in grey levels (Immerkaer, "Fast Noise Variance Estimation",
    CVIU 1996); texture raises it too."""
    response = cv2.filter2D(grey, cv2.CV_16S, _NOISE)[1:-1, 1:-1]
    return float(cv2.norm(response, cv2.NORM_L1) / response.size * np.sqrt(np.pi / 2) / 6) if response.size else 0.0


class Motion:
    """Where each pixel of a frame was in the frame before, by dense inverse search (Kroeger et al., "Fast Optical Flow
    using Dense Inverse Search", ECCV 2016); None where it is too small.

    Args:
        before, now: uint8 [H,W] grey, of one size.
    """

    def __init__(self, before: Pixels, now: Pixels) -> None:
        height, width = now.shape
        shrink = min(1.0, _FLOW_HEIGHT / height)
        size = (max(_SMALLEST, round(width * shrink)), max(_SMALLEST, round(height * shrink)))
        before, now = (
            np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8) for grey in (before, now)
        )
        flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST).calc(
            now, before, np.zeros((*now.shape, 2), np.float32)
        )
        ys, xs = np.indices(now.shape, np.float32)
        self._x, self._y = xs + flow[..., 0], ys + flow[..., 1]
        inside = (self._x >= 0) & (self._x <= size[0] - 1) & (self._y >= 0) & (self._y <= size[1] - 1)
        came = cv2.remap(before, self._x, self._y, cv2.INTER_LINEAR)
        self._known = inside & (cv2.absdiff(came, now) <= _SAME)
        self._size = size

    def flicker(self, before: Pixels, now: Pixels) -> float | None:
        """Share of the pixels that were seen before which have another class now; None where none was.

        Args:
            before, now: masks uint8 [H,W] of the frames.
        """
        small = [cv2.resize(mask, self._size, interpolation=cv2.INTER_NEAREST_EXACT) for mask in (before, now)]
        came = cv2.remap(small[0], self._x, self._y, cv2.INTER_NEAREST)
        known = int(np.count_nonzero(self._known))
        return float(np.count_nonzero((came != small[1]) & self._known) / known) if known else None
