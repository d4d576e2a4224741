"""Pinhole intrinsics as sensor_msgs/CameraInfo has them, in REP 103's optical frame: x right, y down, z forward."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """Image size and the entries of K, all in pixels; distortion-free."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_fov(cls, width: int, height: int, horizontal_fov_deg: float = 60.0) -> Intrinsics:
        """Square pixels, principal point at the image centre. For images that come without a calibration."""
        focal = width / 2 / math.tan(math.radians(horizontal_fov_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    def k(self) -> list[float]:
        """K as CameraInfo.k: row-major 3x3."""
        return [self.fx, 0.0, self.cx, 0.0, self.fy, self.cy, 0.0, 0.0, 1.0]
