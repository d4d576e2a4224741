"""Clear images as another camera would have taken them: nothing of it is a fault, and nothing is to be mended."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array
from coop_perception.degradations.realistic.light import to_linear, to_srgb


def exposed(image: UInt8Array, stops: float) -> UInt8Array:
    """Brighter or darker by so many stops (powers of two of linear light). uint8 [H,W,3] RGB → same."""
    return to_srgb(to_linear(image) * np.float32(2.0**stops))


def balanced(image: UInt8Array, red: float, blue: float) -> UInt8Array:
    """White balance: red's and blue's linear light times these. uint8 [H,W,3] RGB → same."""
    return to_srgb(to_linear(image) * np.array([red, 1.0, blue], np.float32))


def contrasted(image: UInt8Array, contrast: float) -> UInt8Array:
    """Values' distance from mid grey times this, on the 8-bit scale. uint8 [H,W,3] RGB → same."""
    return np.asarray(np.rint(np.clip(127.5 + contrast * (image - np.float32(127.5)), 0, 255)), np.uint8)


def sharpened(image: UInt8Array, amount: float) -> UInt8Array:
    """Unsharp masking by a Gaussian of 1 pixel, as cameras do; negative: a softer lens. uint8 [H,W,3] RGB → same."""
    values = image.astype(np.float32)
    soft = cv2.GaussianBlur(values, (0, 0), 1.0)
    return np.asarray(np.rint(np.clip(values + np.float32(amount) * (values - soft), 0, 255)), np.uint8)


def saturated(image: UInt8Array, saturation: float) -> UInt8Array:
    """Colours' distance from grey times this. uint8 [H,W,3] RGB → same."""
    values = image.astype(np.float32)
    grey = (values @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    return np.asarray(np.rint(np.clip(grey + np.float32(saturation) * (values - grey), 0, 255)), np.uint8)
