"""A drive down an invented street: colour, exact labels and exact metric depth, from a seed and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES
from coop_perception.sample_scene import ground
from coop_perception.sample_scene.layouts import Billboard
from coop_perception.sample_scene.light import Light, sky_panorama
from coop_perception.sample_scene.models import Models
from coop_perception.sample_scene.noise import fractal
from coop_perception.sample_scene.raster import Camera, Canvas, SurfaceList, Surfaces
from coop_perception.sample_scene.street import Street
from coop_perception.sample_scene.traffic import Traffic

SKY, BUILDING, TREE = (next(c.id for c in CAMVID_CLASSES if c.name == name) for name in ("Sky", "Building", "Tree"))
DRAW_DISTANCE = 165.0
"""Metres ahead of the camera within which objects are drawn."""
BACKDROP_DEPTH = 260.0
"""Depth in metres of the skyline that closes the street."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One rendered frame.

    image: uint8 [H, W, 3] RGB. mask: uint8 [H, W], ids of CAMVID_CLASSES. depth: float32 [H, W], metres along the
    optical axis, +inf in the sky.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float32]


class SampleDrive:
    """An endless drive. Same arguments, same index: same bytes, in whatever order frames are asked for.

    Layout, buildings, traffic, camera and time of day follow from `seed` (>= 0); `rate` is in frames per second.
    """

    def __init__(self, seed: int = 0, width: int = 480, height: int = 360, rate: float = 15.0) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected 0 or more")
        if width < 16 or height < 16:
            raise ValueError(f"frame size is {width}x{height}, expected at least 16x16")
        if not rate > 0:
            raise ValueError(f"rate is {rate}, expected more than 0 frames per second")
        rng = np.random.default_rng([seed, 0])
        self.rate = rate
        self.intrinsics = Intrinsics.from_fov(width, height, 56.0)
        self.light = Light.draw(rng)
        self._models = Models(seed, self.light)
        self._street = Street(seed, self._models)
        self._speed = float(rng.uniform(7.0, 10.0))
        self._height = float(rng.uniform(1.35, 1.75))
        self._pitch = float(rng.uniform(-0.03, 0.07))
        self._traffic = Traffic.draw(rng, self._speed, self._street.traffic)
        self._panorama, self._skyline = self._far_view(rng)

    def camera(self, index: int) -> Camera:
        """The camera's pose at frame `index`."""
        time = index / self.rate
        s = self._travelled(time)
        wander = 0.18 * math.sin(time * 0.37) + 0.07 * math.sin(time * 1.1 + 1)
        x, z = self._street.line.at(s, self._street.traffic * 1.6 + wander)
        bob = 0.008 * math.sin(time * 9.1) + 0.006 * math.sin(time * 5.3)
        nod = 0.0015 * math.sin(time * 7.7) + 0.0012 * math.sin(time * 3.1)
        yaw = self._street.line.heading(s + 6.0) + 0.01 * math.sin(time * 0.5 + 2)
        return Camera(self.intrinsics, x, self._height + bob, z, yaw, self._pitch + nod)

    def frame(self, index: int) -> Frame:
        """Frame `index` (>= 0)."""
        if index < 0:
            raise ValueError(f"frame index is {index}, expected 0 or more")
        camera = self.camera(index)
        time = index / self.rate
        canvas = Canvas(camera)
        self._draw_far(canvas)
        solids, figures = SurfaceList(), list[Billboard]()
        shades = self._traffic.add(self._street, self._models, time, camera.z, solids, figures)
        self._draw_ground(canvas, shades)
        first, last = self._street.number(camera.z - 12), self._street.number(camera.z + DRAW_DISTANCE)
        blocks = [self._street.block(k) for k in range(first, last + 1)]
        standing = [b for block in blocks for b in block.billboards] + figures
        parts = [block.solids for block in blocks] + [solids.done(), _facing(camera, standing)]
        everything = Surfaces(
            np.concatenate([p.geometry for p in parts]),
            [t for p in parts for t in p.textures],
            [c for p in parts for c in p.classes],
        )
        canvas.draw(everything, DRAW_DISTANCE)
        with np.errstate(divide="ignore"):
            depth = np.float32(1) / canvas.inverse_depth
        return Frame(np.ascontiguousarray(canvas.color[..., :3]), canvas.label, depth)

    def _travelled(self, time: float) -> float:
        return 10.0 + self._speed * time + 1.5 * math.sin(time * 0.4)

    def _far_view(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Sky with the far skyline in front of it, [h, w, 3], and the skyline's class ids [h, w] (SKY above it)."""
        k = self.intrinsics
        height, width = int(k.height * 0.75), int(k.fx * 2.6)
        sky = sky_panorama(rng, self.light, height, width, k.fx)
        label = np.full((height, width), SKY, np.uint8)
        scale = k.fx / BACKDROP_DEPTH
        gain = np.array(self.light.gain((0, 0.2, -0.6)), np.float32)
        haze = np.array(self.light.time.horizon, np.float32)
        for class_id, low, high, color in ((BUILDING, 2.0, 15.0, (150, 138, 128)), (TREE, 4.0, 9.0, (78, 92, 62))):
            if class_id == BUILDING:
                widths = rng.integers(max(int(8 * scale), 3), max(int(24 * scale), 5), 400)
                tops = np.repeat(rng.uniform(low, high, 400), widths)[:width] * scale
                tone = np.repeat(rng.uniform(0.75, 1.15, 400), widths)[:width]
            else:
                tops = (
                    low + (high - low) * (0.5 + 0.35 * fractal(rng, 1, width, max(int(16 * scale), 8), 6, 0.65)[0])
                ) * scale
                tone = 1 + 0.1 * fractal(rng, 1, width, 8, 3)[0]
            rows = np.arange(height)[:, None]
            inside = rows >= (height - tops)[None, :]
            label[inside] = class_id
            texture = 1 + 0.12 * fractal(rng, height, width, max(int(3 * scale), 2), 2)
            picture = np.array(color, np.float32) * gain * (texture * tone)[..., None]
            picture = picture * 0.72 + haze * 0.28
            sky[inside] = np.clip(picture, 0, 255).astype(np.uint8)[inside]
        return sky, label

    def _draw_far(self, canvas: Canvas) -> None:
        camera, k = canvas.camera, self.intrinsics
        height, width = self._skyline.shape
        left = width / 2 + camera.yaw * k.fx - k.cx
        shift = np.array([[1, 0, -left], [0, 1, camera.horizon() - height + 1.0]], np.float32)
        rows = min(int(camera.horizon()) + 2, k.height)
        size = (k.width, rows)
        color = cv2.warpAffine(self._panorama, shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        canvas.color[:rows] = cv2.cvtColor(color, cv2.COLOR_RGB2RGBA)
        label = cv2.warpAffine(self._skyline, shift, size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        canvas.label[:rows] = label
        canvas.inverse_depth[:rows] = np.where(label == SKY, np.float32(0), np.float32(1 / BACKDROP_DEPTH))

    def _draw_ground(self, canvas: Canvas, shades: list[tuple[float, float, float, float]]) -> None:
        camera = canvas.camera
        first, last = self._street.number(camera.z - 4), self._street.number(camera.z + ground.VIEW)
        strips = [self._street.strip(k) for k in range(first, last + 1)]
        seen = ground.view(camera, strips, self._street.line.bend, self._street.ground.grain)
        rows = np.flatnonzero(seen.inverse_depth > 1 / BACKDROP_DEPTH)
        top, skip = seen.top + int(rows[0]), int(rows[0])
        canvas.color[top:] = cv2.cvtColor(seen.color[skip:], cv2.COLOR_RGB2RGBA)
        canvas.label[top:] = seen.label[skip:]
        canvas.inverse_depth[top:] = seen.inverse_depth[skip:, None]
        for s, t, length, width in shades:
            self._contact_shade(canvas, s, t, length, width)

    def _contact_shade(self, canvas: Canvas, s: float, t: float, length: float, width: float) -> None:
        """Darkens the ground under a moving object."""
        camera, k = canvas.camera, self.intrinsics
        if s - camera.z > 60.0:
            return
        sun_x, sun_z = (0.35 * v * min(1.0, sum(self.light.time.sun)) for v in self.light.shadow_offset())
        heading = self._street.line.heading(s)
        a, b = length / 2 + 0.3, width / 2 + 0.25
        points = []
        x, z = self._street.line.at(s, t)
        for angle in np.linspace(0, 2 * math.pi, 20, endpoint=False):
            u = math.copysign(abs(math.sin(angle)) ** 0.5, math.sin(angle)) * b
            w = math.copysign(abs(math.cos(angle)) ** 0.5, math.cos(angle)) * a
            points.append(
                (
                    x + u * math.cos(heading) + w * math.sin(heading) + sun_x * 0.5,
                    0.0,
                    z - u * math.sin(heading) + w * math.cos(heading) + sun_z * 0.5,
                )
            )
        local = (np.array(points) - (camera.x, camera.height, camera.z)) @ camera.rotation().T
        if local[:, 2].max() < 0.8:
            return
        local[:, 2] = np.maximum(local[:, 2], 0.8)
        pixels = local[:, :2] / local[:, 2:] * k.fx + (k.cx, k.cy)
        blur = max(1, min(15, int(0.15 * k.fx / max(s - camera.z, 1.0)))) * 2 + 1
        x0, y0 = np.maximum(np.floor(pixels.min(0)).astype(int) - blur, 0)
        x1, y1 = np.minimum(np.ceil(pixels.max(0)).astype(int) + blur, (k.width, k.height))
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        outline = cv2.convexHull(np.round((pixels - (x0, y0)) * 16).clip(-30000, 30000).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 150, cv2.LINE_AA, 4)
        mask = np.asarray(cv2.blur(mask, (blur, max(blur // 3, 1))))
        patch = canvas.color[y0:y1, x0:x1]
        factor = cv2.bitwise_not(mask)
        cv2.multiply(patch, cv2.merge([factor, factor, factor, np.full_like(factor, 255)]), dst=patch, scale=1 / 255)


def _facing(camera: Camera, billboards: list[Billboard]) -> Surfaces:
    """Billboards turned to the camera's image plane; those thinner than a pixel are widened to stay continuous."""
    if not billboards:
        return Surfaces.empty()
    b = np.array([(p.x, p.bottom, p.z, p.width, p.height) for p in billboards])
    sin, cos = math.sin(camera.yaw), math.cos(camera.yaw)
    distance = (b[:, 0] - camera.x) * sin + (b[:, 2] - camera.z) * cos
    width = np.maximum(b[:, 3], 1.3 * np.maximum(distance, 0.1) / camera.intrinsics.fx)
    right = np.stack([width * cos, np.zeros(len(b)), -width * sin], axis=1)
    down = np.stack([np.zeros(len(b)), -b[:, 4], np.zeros(len(b))], axis=1)
    corner = np.stack([b[:, 0], b[:, 1] + b[:, 4], b[:, 2]], axis=1) - right / 2
    geometry = np.stack([corner, right, down], axis=1)
    return Surfaces(geometry, [p.texture for p in billboards], [p.class_id for p in billboards])
