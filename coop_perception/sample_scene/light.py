"""Times of day: the sun, the sky, and how bright a surface of a given orientation looks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.noise import fractal
from coop_perception.sample_scene.raster import Gain


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """Sun elevation in degrees; RGB gains of sun and ambient light; RGB of zenith and horizon; clouds 0..1."""

    elevation: tuple[float, float]
    sun: Gain
    ambient: Gain
    zenith: Gain
    horizon: Gain
    clouds: float


TIMES_OF_DAY = (
    TimeOfDay((40, 60), (0.76, 0.74, 0.69), (0.52, 0.55, 0.60), (74, 128, 204), (192, 216, 238), 0.32),  # clear noon
    TimeOfDay((18, 32), (0.84, 0.73, 0.56), (0.48, 0.51, 0.57), (96, 144, 206), (226, 224, 216), 0.42),  # morning
    TimeOfDay(
        (12, 20), (0.92, 0.68, 0.42), (0.43, 0.45, 0.53), (110, 142, 190), (246, 216, 174), 0.45
    ),  # late afternoon
    TimeOfDay(
        (30, 55), (0.16, 0.16, 0.15), (0.92, 0.94, 0.97), (206, 212, 220), (238, 241, 244), 1.0
    ),  # bright overcast
    TimeOfDay((25, 50), (0.10, 0.10, 0.10), (0.70, 0.72, 0.76), (140, 150, 164), (198, 204, 210), 1.0),  # dull overcast
    TimeOfDay(
        (30, 45), (0.66, 0.65, 0.62), (0.58, 0.60, 0.63), (206, 220, 236), (249, 250, 251), 0.6
    ),  # hazy white sky
    TimeOfDay((5, 9), (0.52, 0.38, 0.26), (0.50, 0.51, 0.58), (92, 112, 162), (240, 194, 154), 0.5),  # dusk
    TimeOfDay((30, 55), (0.80, 0.78, 0.72), (0.50, 0.54, 0.60), (62, 112, 190), (186, 208, 232), 0.12),  # cloudless
)


@dataclass(frozen=True, slots=True)
class Light:
    """The drive's light. `direction` points to the sun, world axes."""

    direction: tuple[float, float, float]
    time: TimeOfDay

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Light:
        time = TIMES_OF_DAY[int(rng.integers(len(TIMES_OF_DAY)))]
        elevation = math.radians(rng.uniform(*time.elevation))
        azimuth = rng.uniform(0, 2 * math.pi)
        flat = math.cos(elevation)
        return cls((flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)), time)

    def gain(self, normal: tuple[float, float, float]) -> Gain:
        """RGB factor of a matt surface with this unit normal, rounded so that like surfaces share textures."""
        facing = max(0.0, sum(n * d for n, d in zip(normal, self.direction, strict=True)))
        openness = 0.85 + 0.15 * normal[1]
        red, green, blue = (
            round(a * openness + s * (0.08 + 1.05 * facing), 2)
            for a, s in zip(self.time.ambient, self.time.sun, strict=True)
        )
        return red, green, blue

    def shadow(self) -> Gain:
        """RGB factor that turns sunlit ground into shaded ground."""
        lit = self.gain((0, 1, 0))
        red, green, blue = (min(1.0, a * 0.95 / g) for a, g in zip(self.time.ambient, lit, strict=True))
        return red, green, blue

    def shadow_offset(self) -> tuple[float, float]:
        """Where on the ground (X, Z) the shadow of a point 1 m above the origin falls; at most 4 m away."""
        x, y, z = self.direction
        scale = 1 / max(y, math.hypot(x, z) / 4)
        return -x * scale, -z * scale


def sky_panorama(
    rng: np.random.Generator, light: Light, height: int, width: int, pixels_per_radian: float
) -> NDArray[np.uint8]:
    """Sky [height, width, 3]: brightness by elevation, clouds, the sun's glow; the bottom row is the horizon."""
    time = light.time
    elevation = (np.arange(height, dtype=np.float32)[::-1, None] + 0.5) / pixels_per_radian
    mix = np.exp(-elevation / 0.28)[..., None]
    color = np.array(time.zenith, np.float32) * (1 - mix) + np.array(time.horizon, np.float32) * mix
    color = np.repeat(color, width, axis=1)
    rows, columns = height * 3 // 2, width // 2
    texture = fractal(rng, rows, columns, 128, 6, 0.55)
    crowded = (rows - 1) * (1 - np.exp(-elevation * 3.5)).ravel()  # clouds crowd towards the horizon
    clouds = cv2.resize(texture[crowded.astype(int)], (width, height), interpolation=cv2.INTER_LINEAR)
    shade = cv2.resize(fractal(rng, height // 2, columns, 32, 4, 0.6), (width, height), interpolation=cv2.INTER_LINEAR)
    cover = np.clip((clouds + 3.2 * time.clouds - 1.7) * 0.75, 0, 1)[..., None]
    cover = cover * np.clip(elevation / 0.06, 0.25, 1)[..., None]
    bright = float(np.mean(time.horizon)) * 1.09
    cloud_color = bright * np.array((1.0, 1.0, 1.01), np.float32) * (1.02 - 0.09 * cover) - 7 * shade[..., None] * cover
    color = color * (1 - cover) + np.clip(cloud_color, 0, 255) * cover
    azimuth = math.atan2(light.direction[0], light.direction[2])
    angle = (np.arange(width, dtype=np.float32) + 0.5) / pixels_per_radian - width / 2 / pixels_per_radian
    offset = np.mod(angle - azimuth + math.pi, 2 * math.pi) - math.pi
    distance = np.hypot(offset[None, :], elevation - math.asin(light.direction[1]))
    glow = (
        (np.exp(-distance / 0.22) * 0.8 + np.exp(-((distance / 0.05) ** 2)))[..., None]
        * np.array(time.sun, np.float32)
        * 160
    )
    return np.asarray(np.clip(color + glow, 0, 255), np.uint8)


def soften(mask: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """A shadow mask with soft edges; `radius` in pixels."""
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(radius, 0.3)), np.uint8)
