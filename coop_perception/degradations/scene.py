"""What is known of a frame's scene besides its pixels, and what stands in for what is not known."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.degradations.depth import ground_plane_depth, with_unknown_filled
from coop_perception.images import ImageError, ImageMessage, to_depth

WIDEST, NARROWEST = 0.13, 30.0
"""Focal lengths in longer sides of the image: fields of view of 150 and 2 degrees. A pinhole camera has none beyond,
and what rain costs grows with the view."""
LONGEST = 8
"""How many times an image of a street may be as long as it is wide, or the other way round."""


class Region(Protocol):
    """The fields of sensor_msgs/RegionOfInterest that are used here; all zero: the whole image."""

    x_offset: int
    y_offset: int
    width: int
    height: int


class CameraInfoMessage(Protocol):
    """The fields of sensor_msgs/CameraInfo that are used here; `k` is a row-major 3x3 matrix, for the whole image at
    the sensor's resolution, whatever of it the images hold."""

    width: int
    height: int
    k: NDArray[np.float64]
    roi: Region


def intrinsics_of(info: CameraInfoMessage | None, width: int, height: int) -> tuple[Intrinsics, str | None]:
    """A camera's intrinsics for images of a size, and what was assumed because camera_info does not say it.

    Raises:
        ImageError: no camera has images of that shape.
    """
    if max(width, height) > LONGEST * min(width, height):
        raise ImageError(
            f"image of {width}x{height}: fog and rain are of a camera's view, which is at most {LONGEST} times as long "
            "as wide; take another condition"
        )
    assumed = "a horizontal field of view of 60 degrees is assumed"
    if info is None:
        return Intrinsics.from_fov(width, height), f"no camera_info has arrived: {assumed}"
    fx, fy = float(info.k[0]), float(info.k[4])
    centre = float(info.k[2]), float(info.k[5])
    if not (fx > 0 and fy > 0 and np.isfinite(centre).all() and info.width and info.height):
        return Intrinsics.from_fov(width, height), f"camera_info holds no calibration: {assumed}"
    longest = max(info.width, info.height)
    if not all(WIDEST * longest <= focal <= NARROWEST * longest for focal in (fx, fy)):
        found = f"camera_info has focal lengths {fx:g} and {fy:g} for {info.width}x{info.height}, which no camera has"
        return Intrinsics.from_fov(width, height), f"{found}: {assumed}"
    if not all(-size <= at <= 2 * size for at, size in zip(centre, (info.width, info.height), strict=True)):
        found = f"camera_info has its centre at {centre[0]:g}, {centre[1]:g} in {info.width}x{info.height}"
        return Intrinsics.from_fov(width, height), f"{found}: {assumed}"
    if width != height and (width, height) == (info.height, info.width):
        found = f"camera_info is of {info.width}x{info.height}, the image turned to {width}x{height}"
        return Intrinsics.from_fov(width, height), f"{found}: {assumed}"
    left, top, seen_width, seen_height = _seen(info, width, height)
    if left + seen_width > info.width or top + seen_height > info.height:
        found = f"camera_info has a region of interest that is not within its {info.width}x{info.height}"
        return Intrinsics.from_fov(width, height), f"{found}: {assumed}"
    # A driver that crops, bins or scales its images leaves the calibration at the sensor's size.
    across, down = width / seen_width, height / seen_height
    cx = (centre[0] - left + 0.5) * across - 0.5
    cy = (centre[1] - top + 0.5) * down - 0.5
    return Intrinsics(width, height, fx * across, fy * down, cx, cy), None


def _seen(info: CameraInfoMessage, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of what images of a size show, in pixels of the sensor."""
    roi = info.roi
    # Some drivers give the region that is of interest to others beside images that hold everything.
    if not (roi.width and roi.height) or (width, height) == (info.width, info.height):
        return 0, 0, info.width, info.height
    return roi.x_offset, roi.y_offset, roi.width, roi.height


def depth_of(
    measured: ImageMessage | None, intrinsics: Intrinsics, camera_height: float
) -> tuple[NDArray[np.float32], str | None]:
    """A frame's depth, float32 [H,W] in metres, and what was assumed because no depth image says it.

    Raises:
        ImageError: the depth image cannot be read, or is not of the frame's size.
    """
    plane = _ground_plane(intrinsics, camera_height)
    if measured is None:
        return plane, f"no depth image: an empty, level street {camera_height:g} m below the camera stands in"
    depth = to_depth(measured)
    if depth.shape != plane.shape:
        raise ImageError(
            f"depth image of {depth.shape[1]}x{depth.shape[0]}, frame of {plane.shape[1]}x{plane.shape[0]}: "
            "they must agree pixel by pixel; register the depth image to the camera"
        )
    return with_unknown_filled(depth, plane), None


@lru_cache(maxsize=8)
def _ground_plane(intrinsics: Intrinsics, camera_height: float) -> NDArray[np.float32]:
    return ground_plane_depth(intrinsics, camera_height)
