"""An invented inside of a vehicle: what its windscreen mirrors into a camera behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.degradations.arrays import UInt8Array

_WIDTH, _HEIGHT = 160, 120
"""Pixels: enough for what is seen out of focus."""


def vehicle_interior(rng: np.random.Generator) -> UInt8Array:
    """The dashboard with vents and papers on it, in sun and shade; above it seats before the cabin's bright windows.

    Args:
        rng: the only source of randomness.

    Returns:
        uint8 [120, 160, 3] RGB.
    """
    rim = rng.uniform(0.35, 0.6)
    painter = _Painter(np.full((_HEIGHT, _WIDTH, 3), 255.0, np.float32), rng)
    _cabin(painter, rim)
    _dashboard(painter, rim)
    return np.clip(np.rint(painter.canvas), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Painter:
    """Fills shapes on float32 [H,W,3]; coordinates (u, v) are shares of width and height."""

    canvas: npt.NDArray[np.float32]
    rng: np.random.Generator

    def colour(self, darkest: float, brightest: float, warmth: float = 0.06) -> npt.NDArray[np.float32]:
        """A grey between two brightnesses, 0..1, tinted between cool and warm as daylight and plastics are."""
        brightness, warm = self.rng.uniform(darkest, brightest), self.rng.uniform(-warmth, warmth)
        return (255 * brightness * np.array([1 + warm, 1, 1 - warm])).astype(np.float32)

    def mask(self, *polygons: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Coverage of polygons [n, 2], float32 [H,W,1] in 0..1."""
        points = [np.rint(np.asarray(polygon) * (_WIDTH, _HEIGHT)).astype(np.int32) for polygon in polygons]
        covered = cv2.fillPoly(np.zeros((_HEIGHT, _WIDTH), np.uint8), points, 255, cv2.LINE_AA)
        return np.asarray(covered[..., None] / np.float32(255), np.float32)

    def paint(self, colour: npt.NDArray[np.float32], *polygons: npt.ArrayLike) -> None:
        """Covers polygons with a colour, [3] or [H, W, 3]."""
        self.canvas[:] += self.mask(*polygons) * (colour - self.canvas)

    def light(self, gain: float, *polygons: npt.ArrayLike) -> None:
        """Multiplies what polygons cover."""
        self.canvas[:] *= 1 + self.mask(*polygons) * np.float32(gain - 1)


def _cabin(painter: _Painter, rim: float) -> None:
    rng = painter.rng
    painter.canvas[:] = painter.colour(0.03, 0.15)
    # Outside: sky that brightens towards a skyline, dark below it; seen through windows in dark frames.
    sky = np.linspace(painter.colour(0.5, 0.9, 0.12), painter.colour(0.8, 1.0), _HEIGHT)[:, None]
    skyline = rim - 0.05 - rng.uniform(0, 0.2, 10).repeat(_WIDTH // 10)
    above = (np.arange(_HEIGHT)[:, None] + 0.5) / _HEIGHT < skyline
    outside = np.where(above[..., None], sky, painter.colour(0.1, 0.35, 0.1)).astype(np.float32)
    windows, left = [], rng.uniform(-0.3, 0.05)
    while left < 1:
        right, top = left + rng.uniform(0.22, 0.4), rng.uniform(-0.05, 0.12)
        lean = rng.uniform(-0.06, 0.06)
        windows.append([(left, rim), (left + lean + 0.03, top), (right + lean - 0.03, top), (right, rim)])
        left = right + rng.uniform(0.05, 0.15)
    painter.paint(outside, *windows)
    around = np.linspace(0, 2 * np.pi, 24)
    for centre in (rng.uniform(0.12, 0.32), rng.uniform(0.68, 0.88)):
        w, top = rng.uniform(0.1, 0.14), rim - rng.uniform(0.12, 0.22)
        head_rest = np.stack([centre + 0.5 * w * np.cos(around), top + 0.07 * np.sin(around)], axis=1)
        back = [(centre - 0.8 * w, top + 0.09), (centre + 0.8 * w, top + 0.09), (centre + w, 1), (centre - w, 1)]
        painter.paint(painter.colour(0.04, 0.3, 0.15), head_rest, back)


def _dashboard(painter: _Painter, rim: float) -> None:
    rng = painter.rng
    u = np.linspace(0, 1, 33)
    hood = rng.uniform(0.03, 0.1) * np.exp(-(((u - rng.choice([0.27, 0.73])) / 0.13) ** 4))
    edge = rim + rng.uniform(-0.04, 0.1) * (2 * u - 1) ** 2 - hood
    top = [*zip(u, edge, strict=True), (1.0, 1.0), (0.0, 1.0)]
    shade = np.linspace(rng.uniform(0.5, 1), rng.uniform(0.8, 1.4), _HEIGHT, dtype=np.float32)[:, None, None]
    painter.paint(painter.colour(0.1, 0.5, 0.12) * shade, top)

    for centre in rng.permutation([0.15, 0.5, 0.85])[: rng.integers(1, 4)]:
        v, w = rim + rng.uniform(0.16, 0.3), rng.uniform(0.06, 0.11)
        slats = [
            [(centre - w, y), (centre + w, y), (centre + w, y + 0.014), (centre - w, y + 0.014)]
            for y in v + 0.028 * np.arange(4)
        ]
        painter.paint(painter.colour(0.01, 0.05), *slats)
    for _ in range(rng.integers(0, 4)):
        # A sheet lies on the dashboard: turned, and foreshortened like it.
        turn = rng.uniform(0, np.pi) + np.arctan2([-1, -1, 1, 1], rng.uniform(0.5, 1) * np.array([-1, 1, 1, -1]))
        at, size = (rng.uniform(0.1, 0.9), rng.uniform(rim + 0.15, 0.95)), rng.uniform(0.05, 0.13)
        painter.paint(painter.colour(0.6, 0.95), at + size * np.stack([np.cos(turn), 0.7 * np.sin(turn)], axis=1))
    for _ in range(rng.integers(0, 3)):
        # Sun through a side window, cut off by its frame.
        left, w, lean = rng.uniform(-0.2, 0.9), rng.uniform(0.08, 0.4), rng.uniform(-0.4, 0.4)
        painter.light(rng.uniform(1.5, 3), [(left, rim), (left + w, rim), (left + w + lean, 1), (left + lean, 1)])
