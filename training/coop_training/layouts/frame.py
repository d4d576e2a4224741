"""One labelled image of a data set: unread (`Item`) and read (`LabelledFrame`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.image_files import DatasetError, read_image

NO_DEPTH = np.empty((0, 0), np.float16)


@dataclass(frozen=True, slots=True)
class ReadyMade:
    """A degraded image that comes with the data set, not yet read: its condition, and its strength in 0..1 as the
    position among the condition's levels."""

    condition: str
    strength: float
    path: Path

    def read(self, height: int, width: int) -> NDArray[np.uint8]:
        """uint8 [H,W,3] RGB, scaled to the size of its clear image.

        Raises:
            DatasetError: the file cannot be read, or has other proportions.
        """
        image = read_image(self.path)
        if abs(image.shape[1] * height / image.shape[0] - width) >= 1:
            raise DatasetError(
                f"{self.path}: is {image.shape[1]}x{image.shape[0]}, its clear image has the proportions of "
                f"{width}x{height}; both are views of one camera"
            )
        return scaled_image(image, height, width)


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """image uint8 [H,W,3] RGB, clear; mask uint8 [H,W] class ids, 255 = unlabelled; depth float16 [H,W], metres along
    the optical axis (inf: sky), or [0,0] where none is known; degraded images that come with it."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float16]
    intrinsics: Intrinsics
    ready_made: tuple[ReadyMade, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """A frame that `read` reads; `name` is its file's, without what is common to all."""

    name: str
    read: Callable[[], LabelledFrame]


def scaled(frame: LabelledFrame, height: int, width: int) -> LabelledFrame:
    """The frame at another size; its intrinsics follow."""
    old_height, old_width = frame.mask.shape
    if (height, width) == (old_height, old_width):
        return frame
    k = frame.intrinsics
    x, y = width / old_width, height / old_height
    centre = ((k.cx + 0.5) * x - 0.5, (k.cy + 0.5) * y - 0.5)  # pixel centres are at integers
    return LabelledFrame(
        scaled_image(frame.image, height, width),
        _nearest(frame.mask, height, width),
        _nearest(frame.depth.astype(np.float32), height, width).astype(np.float16) if frame.depth.size else NO_DEPTH,
        Intrinsics(width, height, k.fx * x, k.fy * y, *centre),
        frame.ready_made,
    )


def scaled_image(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """uint8 [H,W,3] at another size, averaging where it shrinks."""
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)


def _nearest(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))
