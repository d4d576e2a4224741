"""The ground: a painted strip along the street, and its perspective view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.light import Light, soften
from coop_perception.sample_scene.noise import fractal
from coop_perception.sample_scene.raster import Camera

PIXELS_PER_METRE = 16
HALF_WIDTH = 24
"""Metres painted to either side of the centre line; beyond, the border repeats."""
VIEW = 170.0
"""Metres ahead for which the strip is painted; beyond, its last row repeats."""

Rng = np.random.Generator
Color = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Caster:
    """What shades the ground: a box on the footprint s0..s1 x t0..t1, or a cut-out with alpha `mask`; in metres."""

    s0: float
    s1: float
    t0: float
    t1: float
    height: float
    mask: NDArray[np.uint8] | None = None


class Strip:
    """Colour [rows, columns, 3] and class ids [rows, columns] of one block's ground; row 0 at `start` metres."""

    def __init__(self, start: float, color: NDArray[np.uint8], label: NDArray[np.uint8]) -> None:
        self.start = start
        self.end = start + color.shape[0] / PIXELS_PER_METRE
        self._levels: dict[tuple[int, int], tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {(0, 0): (color, label)}

    def level(self, along: int, across: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Colour and label with rows halved `along` times and columns halved `across` times."""
        found = self._levels.get((along, across))
        if found is None:
            color, label = self._levels[0, 0]
            rows, columns = color.shape[:2]
            size = (columns >> across, max(rows >> along, 1))
            smaller = np.asarray(cv2.resize(color, size, interpolation=cv2.INTER_AREA), np.uint8)
            nearest = np.asarray(cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
            found = self._levels[along, across] = (smaller, nearest)
        return found


class Painter:
    """Paints one block's ground, in metres: s along the street from `start`, t to the right of the centre line."""

    def __init__(self, rng: Rng, start: float, length: float, surfaces: GroundTextures) -> None:
        self.rng = rng
        self.start = start
        self.rows = round(length * PIXELS_PER_METRE)
        self.columns = 2 * HALF_WIDTH * PIXELS_PER_METRE
        self.color = np.zeros((self.rows, self.columns, 3), np.uint8)
        self.label = np.zeros((self.rows, self.columns), np.uint8)
        self.surfaces = surfaces

    def _pixels(self, points: list[tuple[float, float]]) -> NDArray[np.int32]:
        p = np.array(
            [((t + HALF_WIDTH) * PIXELS_PER_METRE - 0.5, (s - self.start) * PIXELS_PER_METRE - 0.5) for s, t in points]
        )
        return np.round(p * 16).astype(np.int32)

    def area(self, s0: float, s1: float, t0: float, t1: float, material: str, class_id: int) -> None:
        """Covers a rectangle with a material."""
        rows = slice(*(max(0, min(self.rows, round((s - self.start) * PIXELS_PER_METRE))) for s in (s0, s1)))
        columns = slice(*(max(0, min(self.columns, round((t + HALF_WIDTH) * PIXELS_PER_METRE))) for t in (t0, t1)))
        self.color[rows, columns] = self.surfaces.tile(material, self.start, self.rows)[rows, columns]
        self.label[rows, columns] = class_id

    def shape(self, points: list[tuple[float, float]], material: str, class_id: int) -> None:
        """Covers a polygon of (s, t) corners with a material."""
        mask = np.zeros((self.rows, self.columns), np.uint8)
        cv2.fillPoly(mask, [self._pixels(points)], 255, cv2.LINE_8, 4)
        picked = mask > 0
        self.color[picked] = self.surfaces.tile(material, self.start, self.rows)[picked]
        self.label[picked] = class_id

    def polygon(self, points: list[tuple[float, float]], color: Color, strength: float) -> None:
        """Paint over what is there; `strength` 0..1, worn away unevenly."""
        pixels = self._pixels(points)
        x, y, w, h = cv2.boundingRect(pixels)
        x0, y0 = max(x // 16 - 1, 0), max(y // 16 - 1, 0)
        x1, y1 = min((x + w) // 16 + 2, self.columns), min((y + h) // 16 + 2, self.rows)
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        cv2.fillPoly(mask, [pixels - np.array((x0 * 16, y0 * 16), np.int32)], 255, cv2.LINE_AA, 4)
        rows = (np.arange(y0, y1) + round(self.start * PIXELS_PER_METRE)) % self.surfaces.LENGTH
        wear = self.surfaces.wear[rows, x0:x1]
        weight = (mask * np.float32(strength / 255) * wear)[..., None]
        patch = self.color[y0:y1, x0:x1]
        patch[:] = patch * (1 - weight) + np.array(color, np.float32) * weight

    def bar(
        self, s0: float, s1: float, t0: float, t1: float, color: Color = (226, 226, 220), strength: float = 0.85
    ) -> None:
        for a in np.arange(s0, s1, 24.0):
            b = min(a + 24.0, s1)
            self.polygon([(a, t0), (a, t1), (b, t1), (b, t0)], color, strength)

    def shade(self, light: Light, casters: list[Caster]) -> None:
        """Lights the painted ground and lays the shadows of `casters` on it."""
        half = PIXELS_PER_METRE // 4
        mask = np.zeros((self.rows // 4, self.columns // 4), np.uint8)
        shift_x, shift_z = light.shadow_offset()
        for c in casters:
            low, high = min(c.s0, c.s0 + shift_z * c.height), max(c.s1, c.s1 + shift_z * c.height)
            if high < self.start or low > self.start + self.rows / PIXELS_PER_METRE:
                continue
            if c.mask is None:
                foot = np.array([(c.t0, c.s0), (c.t1, c.s0), (c.t1, c.s1), (c.t0, c.s1)])
                points = np.concatenate([foot, foot + np.array((shift_x, shift_z)) * c.height])
                pixels = (points - (-HALF_WIDTH, self.start)) * half
                hull = cv2.convexHull(np.round(pixels * 16).astype(np.int32).reshape(-1, 1, 2))
                cv2.fillConvexPoly(mask, hull, 255, cv2.LINE_AA, 4)
                continue
            h, w = c.mask.shape
            top = np.array((shift_x, shift_z)) * c.height
            across = (
                np.array((abs(shift_z), -abs(shift_x) * np.sign(shift_x * shift_z or 1.0)))
                if abs(shift_z) > abs(shift_x)
                else np.array((0.0, 1.0))
            )
            across = across / np.linalg.norm(across) * (c.t1 - c.t0) / 2
            base = np.array(((c.t0 + c.t1) / 2 + HALF_WIDTH, (c.s0 + c.s1) / 2 - self.start))
            target = np.array([base - across, base + across, base + top - across], np.float32) * half
            matrix = cv2.getAffineTransform(np.array([(0, h), (w, h), (0, 0)], np.float32), target)
            corners = np.concatenate([target, target[1:2] + (target[2:] - target[:1])])
            x0, y0 = np.maximum(np.floor(corners.min(0)).astype(int), 0)
            x1, y1 = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, (mask.shape[1], mask.shape[0]))
            if x1 <= x0 or y1 <= y0:
                continue
            matrix[:, 2] -= (x0, y0)
            small = cv2.warpAffine(c.mask, matrix, (int(x1 - x0), int(y1 - y0)), flags=cv2.INTER_LINEAR)
            np.maximum(mask[y0:y1, x0:x1], small, out=mask[y0:y1, x0:x1])
        mask = np.asarray(
            cv2.resize(soften(mask, 0.9), (self.columns, self.rows), interpolation=cv2.INTER_LINEAR), np.uint8
        )
        lit, shaded = np.array(light.gain((0, 1, 0)), np.float32), np.array(light.shadow(), np.float32)
        table = (
            (lit * (1 - (1 - shaded) * (np.arange(256, dtype=np.float32) / 255)[:, None]) * 128)
            .clip(0, 255)
            .astype(np.uint8)
        )
        factors = cv2.merge([cv2.LUT(mask, np.ascontiguousarray(table[:, i])) for i in range(3)])
        self.color = np.asarray(cv2.multiply(self.color, factors, scale=1 / 128), np.uint8)

    def occlude(self, s0: float, s1: float, t0: float, t1: float, strength: float = 0.45) -> None:
        """Soft contact shade under and around an object's footprint."""
        margin = 0.5
        rows = [round((s - self.start) * PIXELS_PER_METRE) for s in (s0 - margin, s1 + margin)]
        columns = [round((t + HALF_WIDTH) * PIXELS_PER_METRE) for t in (t0 - margin, t1 + margin)]
        y = np.arange(max(rows[0], 0), min(rows[1], self.rows))
        x = np.arange(max(columns[0], 0), min(columns[1], self.columns))
        if not y.size or not x.size:
            return
        s, t = (y + 0.5) / PIXELS_PER_METRE + self.start, (x + 0.5) / PIXELS_PER_METRE - HALF_WIDTH
        inside_s = np.clip(np.minimum(s - s0, s1 - s) / margin + 1, 0, 1)
        inside_t = np.clip(np.minimum(t - t0, t1 - t) / margin + 1, 0, 1)
        factor = 1 - strength * (inside_s[:, None] * inside_t[None, :]) ** 1.5
        patch = self.color[y[0] : y[-1] + 1, x[0] : x[-1] + 1]
        patch[:] = patch * factor[..., None]

    def done(self) -> Strip:
        return Strip(self.start, self.color, self.label)


class GroundTextures:
    """The drive's ground materials, as wide tiles [512, columns, 3]; and the wear of road paint."""

    LENGTH = 1024

    def __init__(self, rng: Rng) -> None:
        columns = 2 * HALF_WIDTH * PIXELS_PER_METRE
        n = self.LENGTH
        coarse = fractal(rng, n, columns, 128, 6, 0.62)
        fine = fractal(rng, n, columns, 4, 3, 0.9)
        self.wear = np.asarray(np.clip(0.88 + 0.14 * coarse + 0.08 * fine, 0.25, 1.0), np.float32)
        x = np.arange(columns, dtype=np.float32) / PIXELS_PER_METRE
        y = np.arange(n, dtype=np.float32) / PIXELS_PER_METRE
        asphalt = rng.uniform(92, 132)
        tint = np.array((1.0, rng.uniform(0.98, 1.01), rng.uniform(0.97, 1.05)), np.float32)
        slab = float(rng.choice([0.5, 0.75, 1.0]))
        row = np.floor(y / slab).astype(int)
        column = np.floor((x[None, :] + (row % 2)[:, None] * slab / 2) / slab).astype(int)
        tone = rng.normal(1, 0.05, (int(row.max()) + 1, int(column.max()) + 2)).astype(np.float32)[row[:, None], column]
        joint = ((y % slab) < 0.06)[:, None] | (((x[None, :] + (row % 2)[:, None] * slab / 2) % slab) < 0.06)
        paving = rng.uniform(136, 166) * tone * np.where(joint, 0.8, 1.0) * (1 + 0.05 * coarse + 0.03 * fine)
        warm = np.array((1.02, 1.0, rng.uniform(0.9, 0.98)), np.float32)
        green = np.array([(86, 108, 48), (100, 112, 54), (76, 98, 44)], np.float32)[rng.integers(3)]
        blades = fractal(rng, n, columns, 3, 2, 0.9)
        flat = np.ones((n, columns), np.float32)
        road = asphalt * (1 + 0.045 * coarse + 0.022 * fine)
        self._tiles = {
            "asphalt": _rgb(road, tint),
            "patch": _rgb(asphalt * 0.78 * (1 + 0.03 * coarse + 0.06 * fine), tint),
            "paving": _rgb(paving, warm),
            "tarmac": _rgb(rng.uniform(108, 128) * (1 + 0.05 * coarse + 0.04 * fine), tint),
            "grass": _rgb(flat * (1 + 0.1 * coarse + 0.14 * blades), green),
            "gravel": _rgb(150 * (1 + 0.05 * coarse + 0.12 * fine), np.array((1.03, 0.98, 0.88), np.float32)),
            "kerb": _rgb(
                rng.uniform(150, 176) * np.where((y % 0.9 < 0.07)[:, None], 0.75, 1.0) * (1 + 0.06 * fine),
                np.array((1, 1, 0.98), np.float32),
            ),
            "cycleway": _rgb(
                np.float32(1) * (1 + 0.06 * coarse + 0.05 * fine),
                np.array([(128, 72, 60), (70, 104, 84)], np.float32)[rng.integers(2)],
            ),
        }
        self.grain = np.asarray(np.clip(128 + 9 * fractal(rng, 512, 512, 4, 3, 0.95), 40, 230), np.uint8)

    def tile(self, material: str, start: float, rows: int) -> NDArray[np.uint8]:
        """Rows from `start` on; the pattern goes on across blocks."""
        first = round(start * PIXELS_PER_METRE) % self.LENGTH
        tile = self._tiles[material]
        return np.take(tile, np.arange(first, first + rows), axis=0, mode="wrap")


def _rgb(value: NDArray[np.floating], tint: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(value[..., None] * tint, 0, 255), np.uint8)


@dataclass(frozen=True, slots=True)
class GroundView:
    """What the camera sees of the ground from image row `top` down: colour, class ids, inverse depth per row."""

    top: int
    color: NDArray[np.uint8]
    label: NDArray[np.uint8]
    inverse_depth: NDArray[np.float32]


def view(
    camera: Camera,
    strips: list[Strip],
    bend: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    grain: NDArray[np.uint8],
) -> GroundView:
    """Looks the strips up per pixel; each image row at the strip resolution that matches its footprint."""
    k = camera.intrinsics
    top = int(np.floor(camera.horizon())) + 1
    v = np.arange(top, k.height)
    y = (v - k.cy) / k.fy
    cos_pitch, sin_pitch = np.cos(camera.pitch), np.sin(camera.pitch)
    inverse = (y * cos_pitch - sin_pitch) / camera.height
    depth = np.minimum(1 / inverse, 2000.0)
    forward = depth * (y * sin_pitch + cos_pitch)
    sin_yaw, cos_yaw = np.sin(camera.yaw), np.cos(camera.yaw)
    x = ((np.arange(k.width) - k.cx) / k.fx).astype(np.float32)
    s_mid = camera.z + forward * cos_yaw
    centre = bend(s_mid)
    slope = (bend(s_mid + 1.0) - bend(s_mid - 1.0)) / 2
    curve = bend(s_mid + 1.0) - 2 * centre + bend(s_mid - 1.0)
    delta = (-depth * sin_yaw).astype(np.float32)[:, None] * x
    s = s_mid.astype(np.float32)[:, None] + delta
    lateral = (camera.x + forward * sin_yaw - centre).astype(np.float32)[:, None] + (depth * cos_yaw - 0.0).astype(
        np.float32
    )[:, None] * x
    t = lateral - delta * (slope.astype(np.float32)[:, None] + (curve / 2).astype(np.float32)[:, None] * delta)
    color = np.empty((len(v), k.width, 3), np.uint8)
    label = np.empty((len(v), k.width), np.uint8)
    along = np.clip(
        np.round(np.log2(np.maximum(depth**2 / (camera.height * k.fy) * PIXELS_PER_METRE, 1)) - 0.15), 0, 7
    ).astype(int)
    across = np.clip(np.round(np.log2(np.maximum(depth / k.fx * PIXELS_PER_METRE, 1)) - 0.15), 0, 4).astype(int)
    key = along * 8 + across
    edges = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1, [len(v)]])
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        lx, ls = int(across[a]), int(along[a])
        low, high = float(s[a:b].min()), float(s[a:b].max())
        wanted = [p for p in strips if p.end > low - 2 and p.start < high + 2] or [strips[-1]]
        begin = max(wanted[0].start, low - 2 - 2 * 2.0**ls / PIXELS_PER_METRE)
        parts_color, parts_label = [], []
        origin = wanted[0].start
        for number, strip in enumerate(wanted):
            c, m = strip.level(ls, lx)
            scale = c.shape[0] / (strip.end - strip.start)
            r0 = min(max(int((begin - strip.start) * scale) - 1, 0), c.shape[0] - 1) if number == 0 else 0
            r1 = min(int((high + 2 - strip.start) * scale) + 2, c.shape[0])
            if number == 0:
                origin = strip.start + r0 / scale
            parts_color.append(c[r0:r1])
            parts_label.append(m[r0:r1])
        picture = np.concatenate(parts_color) if len(parts_color) > 1 else parts_color[0]
        classes = np.concatenate(parts_label) if len(parts_label) > 1 else parts_label[0]
        scale = PIXELS_PER_METRE / 2.0**ls
        map_y = (s[a:b] - np.float32(origin)) * np.float32(scale) - np.float32(0.5)
        map_x = (t[a:b] + np.float32(HALF_WIDTH)) * np.float32(PIXELS_PER_METRE / 2.0**lx) - np.float32(0.5)
        cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, dst=color[a:b], borderMode=cv2.BORDER_REPLICATE)
        cv2.remap(classes, map_x, map_y, cv2.INTER_NEAREST, dst=label[a:b], borderMode=cv2.BORDER_REPLICATE)
    near = int(np.searchsorted(-depth, -14.0))
    if near < len(v):
        fine = 96.0
        map_y = np.mod(s[near:] - np.float32(np.floor(camera.z)), np.float32(16.0)) * np.float32(fine)
        map_x = t[near:] * np.float32(fine) + np.float32(65536)
        speck = cv2.remap(
            grain,
            np.mod(map_x, np.float32(511.0)),
            np.mod(map_y, np.float32(511.0)),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        fade = np.clip((14.0 - depth[near:]) / 8.0, 0, 1).astype(np.float32)[:, None]
        gain = ((speck.astype(np.float32) - 128) * fade + 128).astype(np.uint8)
        color[near:] = cv2.multiply(color[near:], cv2.merge([gain, gain, gain]), scale=1 / 128)
    return GroundView(top, color, label, inverse.astype(np.float32))
