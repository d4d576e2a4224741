"""Cars, vans and buses: a body of textured faces with wheels, windows, lights and number plates."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.noise import patch
from coop_perception.sample_scene.raster import Texture

PIXELS_PER_METRE = 96
Rng = np.random.Generator
Point = tuple[float, float]
Color = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """Metres. The glasshouse spans `base` (rear, front) at the belt line and `top` at the roof; z = 0 at mid-length."""

    length: float
    width: float
    height: float
    belt: float
    nose: float
    base: tuple[float, float]
    top: tuple[float, float]
    roof_width: float
    wheel: float
    axles: tuple[float, float]
    panelled: bool = False


SHAPES = {
    "hatchback": Shape(3.9, 1.70, 1.46, 0.92, 0.74, (-1.85, 0.92), (-1.45, 0.12), 1.22, 0.30, (-1.22, 1.22)),
    "saloon": Shape(4.5, 1.78, 1.43, 0.92, 0.74, (-1.62, 0.92), (-0.92, 0.05), 1.24, 0.31, (-1.35, 1.38)),
    "estate": Shape(4.5, 1.78, 1.48, 0.93, 0.75, (-2.16, 0.92), (-1.86, 0.08), 1.28, 0.31, (-1.35, 1.38)),
    "suv": Shape(4.5, 1.88, 1.72, 1.06, 0.92, (-2.14, 1.00), (-1.88, 0.25), 1.44, 0.36, (-1.35, 1.38)),
    "van": Shape(5.0, 1.98, 2.15, 1.20, 0.98, (-2.46, 1.80), (-2.42, 1.15), 1.86, 0.34, (-1.50, 1.60), True),
    "bus": Shape(9.5, 2.50, 2.95, 1.15, 1.10, (-4.72, 4.72), (-4.70, 4.60), 2.40, 0.48, (-2.60, 2.90)),
}

PAINTS: tuple[Color, ...] = (
    (196, 199, 202), (44, 46, 50), (226, 226, 222), (120, 124, 130), (40, 60, 108), (150, 28, 30), (70, 96, 132),
    (30, 66, 52), (150, 138, 112), (92, 28, 34), (58, 62, 66), (196, 160, 60), (108, 140, 160),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Face:
    """A face in the vehicle's frame: x right, y up, z forward; the origin on the ground at mid-length."""

    corner: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    normal: NDArray[np.float64]
    texture: Texture


@dataclass(frozen=True, slots=True)
class Vehicle:
    shape: Shape
    faces: tuple[Face, ...]


class _Sheet:
    """A face's picture, drawn in metres: x from its left edge, y up from its lower edge."""

    def __init__(self, width: float, height: float, scale: float = PIXELS_PER_METRE) -> None:
        self.scale = scale
        self.height = height
        self.canvas = np.zeros((max(round(height * scale), 2), max(round(width * scale), 2), 4), np.uint8)

    def polygon(self, points: list[Point], color: Color) -> None:
        pixels = np.array([(x * self.scale, (self.height - y) * self.scale) for x, y in points])
        cv2.fillPoly(self.canvas, [np.round(pixels * 16 - 8).astype(np.int32)], (*_bytes(color), 255), cv2.LINE_AA, 4)

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def disc(self, x: float, y: float, radius: float, color: Color, squash: float = 1.0) -> None:
        centre = (round(x * self.scale * 16 - 8), round((self.height - y) * self.scale * 16 - 8))
        axes = (round(radius * self.scale * squash * 16), round(radius * self.scale * 16))
        cv2.ellipse(self.canvas, centre, axes, 0, 0, 360, (*_bytes(color), 255), -1, cv2.LINE_AA, 4)

    def line(self, points: list[Point], color: Color, width: float) -> None:
        pixels = np.array([(x * self.scale, (self.height - y) * self.scale) for x, y in points])
        thick = max(round(width * self.scale), 1)
        cv2.polylines(
            self.canvas,
            [np.round(pixels * 16 - 8).astype(np.int32)],
            False,
            (*_bytes(color), 255),
            thick,
            cv2.LINE_AA,
            4,
        )

    def shade(self, factor: NDArray[np.float32]) -> None:
        """Brightens or darkens what is drawn so far; `factor` broadcasts to [h, w, 1]."""
        self.canvas[..., :3] = np.minimum(self.canvas[..., :3] * factor, self.canvas[..., 3:])

    def rows(self) -> NDArray[np.float32]:
        """Height in metres of each row, [h, 1, 1]."""
        n = self.canvas.shape[0]
        return np.asarray((self.height * (1 - (np.arange(n, dtype=np.float32) + 0.5) / n))[:, None, None])


def _scale(s: Shape) -> float:
    """Pixels per metre; long vehicles are painted more coarsely."""
    return PIXELS_PER_METRE if s.length < 6 else PIXELS_PER_METRE / 2


def _bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (int(min(max(c, 0), 255)) for c in color)
    return red, green, blue


def _scaled(color: Color, factor: float) -> Color:
    return color[0] * factor, color[1] * factor, color[2] * factor


def _pane(rng: Rng, sheet: _Sheet, outline: list[Point]) -> None:
    """Tinted glass: dark, with the sky's reflection in its upper part and a seat or headrest behind."""
    sheet.polygon(outline, (34, 40, 46))
    xs, ys = [p[0] for p in outline], [p[1] for p in outline]
    low, high, left, right = min(ys), max(ys), min(xs), max(xs)
    bright = rng.uniform(90, 150)
    middle = low + (high - low) * rng.uniform(0.45, 0.65)

    def clip(y: float) -> list[Point]:
        """The part of the outline above y."""
        kept: list[Point] = []
        for (xa, ya), (xb, yb) in zip(outline, outline[1:] + outline[:1], strict=True):
            if ya >= y:
                kept.append((xa, ya))
            if (ya >= y) != (yb >= y):
                f = (y - ya) / (yb - ya)
                kept.append((xa + f * (xb - xa), y))
        return kept

    steps = 6
    for i in range(steps):
        upper = clip(middle + (high - middle) * i / steps)
        tone = (i + 1) / steps
        if len(upper) > 2:
            sheet.polygon(upper, (34 + (bright - 30) * tone, 40 + (bright - 22) * tone, 46 + (bright - 10) * tone))
    for x in np.arange(left + 0.35, right - 0.2, 0.75):
        sheet.polygon(
            [
                (x - 0.1, low),
                (x + 0.1, low),
                (x + 0.07, low + (high - low) * 0.4),
                (x - 0.07, low + (high - low) * 0.4),
            ],
            (24, 26, 28),
        )


def _wheel(sheet: _Sheet, x: float, radius: float, rng: Rng) -> None:
    sheet.disc(x, radius + 0.03, radius + 0.09, (14, 14, 15))  # the arch
    sheet.disc(x, radius, radius, (26, 26, 27))
    sheet.disc(x, radius, radius * 0.68, (128, 130, 134))
    spokes = int(rng.integers(5, 9))
    for i in range(spokes):
        angle = 2 * np.pi * i / spokes + 0.3
        a, b = radius * 0.2, radius * 0.6
        sheet.line(
            [(x + a * np.cos(angle), radius + a * np.sin(angle)), (x + b * np.cos(angle), radius + b * np.sin(angle))],
            (58, 60, 64),
            0.05,
        )
    sheet.disc(x, radius, radius * 0.15, (170, 172, 176))


def _side(rng: Rng, s: Shape, paint: Color) -> NDArray[np.uint8]:
    """Lower body from the right: front at the right edge."""
    sheet = _Sheet(s.length, s.belt, _scale(s))
    half = s.length / 2
    rear_top = s.belt if s.base[0] < -half + 0.5 else s.belt - 0.03
    tail, front = half + s.base[0], half + s.base[1]
    body: list[Point] = [
        (0.06, 0.24), (0.0, 0.42), (0.02, rear_top - 0.12), (0.1, rear_top), (tail, s.belt), (front, s.belt),
        (s.length - 0.35, s.nose + 0.04), (s.length - 0.07, s.nose - 0.08), (s.length, 0.42), (s.length - 0.05, 0.22),
    ]  # fmt: skip
    sheet.polygon(body, paint)
    y = sheet.rows()
    shoulder = s.belt - 0.16
    sheet.shade(
        np.asarray(
            0.78
            + 0.3 * np.clip((y - 0.2) / s.belt, 0, 1)
            + 0.22 * np.exp(-(((y - shoulder) / 0.05) ** 2))
            - 0.25 * np.exp(-(((y - 0.3) / 0.09) ** 2)),
            np.float32,
        )
    )
    dark = _scaled(paint, 0.42)
    sheet.box(s.axles[0] + half, 0.2, s.axles[1] + half, 0.27, (30, 30, 32))
    sheet.box(0.0, 0.36, 0.35, 0.4, dark)
    sheet.box(s.length - 0.35, 0.36, s.length, 0.4, dark)
    doors = [s.base[1] - 0.1, s.base[1] - 1.05, s.base[1] - 1.95]
    if s.length > 6:
        doors = [half - 0.5, half - 1.5, 0.6, -0.5]
    for z in doors:
        if z > s.axles[0] + 0.1:
            sheet.line([(half + z, 0.3), (half + z, s.belt)], dark, 0.014)
    for z in doors[:2]:
        sheet.box(half + z - 0.32, s.belt - 0.13, half + z - 0.12, s.belt - 0.1, _scaled(paint, 0.6))
    sheet.polygon(
        [
            (s.length - 0.36, s.nose - 0.02),
            (s.length - 0.09, s.nose - 0.09),
            (s.length - 0.06, s.nose - 0.2),
            (s.length - 0.3, s.nose - 0.16),
        ],
        (214, 220, 226),
    )
    sheet.box(0.0, s.belt - 0.3, 0.16, s.belt - 0.08, (150, 22, 20))
    for z in s.axles:
        _wheel(sheet, z + half, s.wheel, rng)
    return sheet.canvas


def _glasshouse(rng: Rng, s: Shape, paint: Color) -> NDArray[np.uint8]:
    """Side windows from the right."""
    width, height = s.base[1] - s.base[0], s.height - s.belt
    sheet = _Sheet(width, height, _scale(s))
    a, b = s.top[0] - s.base[0], s.top[1] - s.base[0]
    sheet.polygon([(0, 0), (width, 0), (b, height), (a, height)], paint)
    y = sheet.rows()
    sheet.shade(np.asarray(0.85 + 0.25 * y / height, np.float32))
    rim = 0.06

    def edge(x: float, y: float) -> float:
        left, right = a * y / height, width - (width - b) * y / height
        return left + (right - left) * x

    low, high = 0.03, height - rim
    n = 5 if s.length > 6 else 3 if s.base[1] - s.base[0] > 2.8 else 2
    cuts = [0.74, 0.985] if s.panelled else np.linspace(0.035, 0.97, n + 1).tolist()
    for x0, x1 in pairwise(cuts):
        gap = 0.022
        _pane(
            rng,
            sheet,
            [
                (edge(x0 + gap / 2, low), low),
                (edge(x1 - gap / 2, low), low),
                (edge(x1 - gap / 2, high), high),
                (edge(x0 + gap / 2, high), high),
            ],
        )
    return sheet.canvas


def _end(rng: Rng, s: Shape, paint: Color, front: bool) -> NDArray[np.uint8]:
    """Nose or tail, lower part."""
    top = s.nose if front else s.belt
    w = s.width
    sheet = _Sheet(w, top, _scale(s))
    body: list[Point] = [
        (0.05, 0.24),
        (0.0, 0.45),
        (0.02, top - 0.1),
        (0.1, top),
        (w - 0.1, top),
        (w - 0.02, top - 0.1),
        (w, 0.45),
        (w - 0.05, 0.24),
    ]
    sheet.polygon(body, paint)
    y = sheet.rows()
    sheet.shade(
        np.asarray(
            0.72 + 0.36 * np.clip((y - 0.2) / top, 0, 1) + 0.16 * np.exp(-(((y - 0.52) / 0.06) ** 2)), np.float32
        )
    )
    dark = (28, 28, 30)
    sheet.box(0.12, 0.22, w - 0.12, 0.33, dark)
    middle = w / 2
    if front:
        sheet.polygon(
            [(w * 0.28, top - 0.06), (w * 0.72, top - 0.06), (w * 0.68, top - 0.22), (w * 0.32, top - 0.22)], dark
        )
        for i in range(3):
            sheet.line([(w * 0.31, top - 0.09 - i * 0.05), (w * 0.69, top - 0.09 - i * 0.05)], (120, 122, 126), 0.012)
        for sign in (0, 1):
            x0, x1 = (0.06, w * 0.25) if sign == 0 else (w * 0.75, w - 0.06)
            sheet.polygon([(x0, top - 0.06), (x1, top - 0.08), (x1, top - 0.22), (x0, top - 0.2)], (206, 214, 222))
            sheet.disc((x0 + x1) / 2, top - 0.14, 0.055, (250, 250, 246))
        plate: Color = (236, 236, 232)
    else:
        sheet.line([(0.05, 0.5), (w - 0.05, 0.5)], _scaled(paint, 0.45), 0.015)
        tall = rng.random() < 0.5
        for x0, x1 in ((0.03, 0.2 if tall else 0.42), (w - (0.2 if tall else 0.42), w - 0.03)):
            low = top - (0.38 if tall else 0.24)
            sheet.box(x0, low, x1, top - 0.06, (168, 22, 20))
            sheet.box(x0, low, x1, low + 0.06, (222, 216, 206))
            sheet.box(x0 + 0.02, top - 0.13, x1 - 0.02, top - 0.09, (232, 70, 50))
        plate = (232, 206, 70) if rng.random() < 0.6 else (236, 236, 232)
    height = 0.42 if front else float(rng.choice([0.42, 0.62]))
    sheet.box(middle - 0.27, height - 0.06, middle + 0.27, height + 0.06, (40, 40, 42))
    sheet.box(middle - 0.255, height - 0.05, middle + 0.255, height + 0.05, plate)
    for i in range(7):
        x = middle - 0.21 + i * 0.065 + (0.02 if i > 3 else 0)
        sheet.box(x, height - 0.032, x + 0.04, height + 0.032, (50, 50, 50))
        sheet.box(x + 0.012, height - 0.016, x + 0.028, height + 0.012, plate)
    return sheet.canvas


def _tyres(s: Shape) -> NDArray[np.uint8]:
    """One axle seen from behind or from the front."""
    sheet = _Sheet(s.width, s.wheel * 1.4, 64)
    for x in (0.04, s.width - 0.26):
        sheet.box(x, 0.0, x + 0.22, s.wheel * 1.4, (24, 24, 25))
        for groove in (0.06, 0.11, 0.16):
            sheet.box(x + groove, 0.0, x + groove + 0.015, s.wheel * 1.4, (12, 12, 12))
    sheet.box(0.1, s.wheel * 0.75, s.width - 0.1, s.wheel * 1.4, (14, 14, 15))
    return sheet.canvas


def _screen(rng: Rng, s: Shape, paint: Color, front: bool) -> NDArray[np.uint8]:
    """Windscreen or rear window in its frame."""
    run = (s.base[1] - s.top[1]) if front else (s.top[0] - s.base[0])
    height = float(np.hypot(s.height - s.belt, run))
    inset = (s.width - s.roof_width) / 2
    sheet = _Sheet(s.width, height, _scale(s))
    sheet.polygon([(0, 0), (s.width, 0), (s.width - inset, height), (inset, height)], _scaled(paint, 0.95))
    if s.panelled and not front:
        sheet.line([(s.width / 2, 0), (s.width / 2, height)], _scaled(paint, 0.5), 0.02)
        for x in (0.2, s.width / 2 + 0.1):
            _pane(rng, sheet, [(x, 0.25), (x + 0.65, 0.25), (x + 0.65, height - 0.25), (x, height - 0.25)])
        return sheet.canvas
    rim = 0.07
    low, high = 0.05, height - 0.06
    if s.length > 6 and not front:
        low = height * 0.45
    outline: list[Point] = [
        (rim, low),
        (s.width - rim, low),
        (s.width - inset - rim * 0.7, high),
        (inset + rim * 0.7, high),
    ]
    _pane(rng, sheet, outline)
    if front:
        sheet.line([(0.3, low + 0.02), (s.width * 0.52, low + 0.09)], (14, 14, 14), 0.02)
        sheet.disc(s.width * 0.5, high - 0.05, 0.05, (16, 16, 18), 2.2)
    else:
        sheet.line([(s.width / 2, low), (s.width / 2 + 0.3, low + 0.05)], (16, 16, 16), 0.02)
        sheet.box(s.width / 2 - 0.2, high + 0.0, s.width / 2 + 0.2, high + 0.035, (170, 24, 22))
    return sheet.canvas


def _panel(rng: Rng, width: float, length: float, paint: Color) -> NDArray[np.uint8]:
    """Bonnet, roof or boot: paint that mirrors the sky."""
    sheet = _Sheet(width, max(length, 0.1), 48)
    sheet.box(-0.1, -0.1, width + 0.1, length + 0.1, paint)
    h, w = sheet.canvas.shape[:2]
    x = np.abs(np.linspace(-1, 1, w, dtype=np.float32))[None, :, None]
    cloud = patch(rng, h, w, max(w // 2, 2), 3)[..., None]
    sheet.canvas[..., :3] = np.clip(
        np.array(paint, np.float32) * (1.02 - 0.16 * x**3)
        + np.array((34, 38, 44), np.float32) * (1 - 0.6 * x)
        + 5 * cloud,
        0,
        255,
    )
    return sheet.canvas


def vehicle(rng: Rng, kind: str) -> Vehicle:
    s = SHAPES[kind]
    paint = PAINTS[int(rng.integers(len(PAINTS)))]
    if kind == "van" and rng.random() < 0.6:
        paint = PAINTS[2]
    if kind == "bus":
        paint = ((176, 34, 32), (40, 84, 140), (60, 130, 80), (220, 210, 190))[int(rng.integers(4))]
    half, hw, rw = s.length / 2, s.width / 2, s.roof_width / 2
    side, house = _side(rng, s, paint), _glasshouse(rng, s, paint)
    rise = s.height - s.belt
    lap = 1 + 0.03 / rise  # glass reaches below the belt line, so that no light shows between the faces
    nose = half - 0.06
    faces = [
        _face((hw, s.belt, -half), (0, 0, s.length), (0, -s.belt, 0), side),
        _face((-hw, s.belt, half), (0, 0, -s.length), (0, -s.belt, 0), side[:, ::-1]),
        _face((rw, s.height, s.base[0]), (0, 0, s.base[1] - s.base[0]), (lap * (hw - rw), -lap * rise, 0), house),
        _face(
            (-rw, s.height, s.base[1]), (0, 0, s.base[0] - s.base[1]), (lap * (rw - hw), -lap * rise, 0), house[:, ::-1]
        ),
        _face((-hw, s.belt, -half), (2 * hw, 0, 0), (0, -s.belt, 0.02), _end(rng, s, paint, front=False)),
        _face((hw, s.nose, nose), (-2 * hw, 0, 0), (0, -s.nose, 0.05), _end(rng, s, paint, front=True)),
        _face(
            (hw, s.height, s.top[1]),
            (-2 * hw, 0, 0),
            (0, -lap * rise, lap * (s.base[1] - s.top[1])),
            _screen(rng, s, paint, front=True),
        ),
        _face(
            (-hw, s.height, s.top[0]),
            (2 * hw, 0, 0),
            (0, -lap * rise, lap * (s.base[0] - s.top[0])),
            _screen(rng, s, paint, front=False),
        ),
        _face(
            (-rw, s.height, s.top[1]),
            (2 * rw, 0, 0),
            (0, 0, s.top[0] - s.top[1]),
            _panel(rng, s.roof_width, s.top[1] - s.top[0], paint),
        ),
        _face(
            (-hw, s.nose, nose),
            (2 * hw, 0, 0),
            (0, s.belt - s.nose, s.base[1] - nose),
            _panel(rng, s.width, nose - s.base[1], paint),
        ),
    ]
    tyres = _tyres(s)
    rear, fore = s.axles[0] - s.wheel * 0.9, s.axles[1] + s.wheel * 0.9
    faces.append(_face((-hw, s.wheel * 1.4, rear), (2 * hw, 0, 0), (0, -s.wheel * 1.4, 0), tyres))
    faces.append(_face((hw, s.wheel * 1.4, fore), (-2 * hw, 0, 0), (0, -s.wheel * 1.4, 0), tyres))
    if s.base[0] > -half + 0.03:
        faces.append(
            _face(
                (-hw, s.belt - 0.01, s.base[0] + 0.02),
                (2 * hw, 0, 0),
                (0, 0, -half - s.base[0] - 0.02),
                _panel(rng, s.width, half + s.base[0], paint),
            )
        )
    return Vehicle(s, tuple(faces))


def _face(corner: Color, right: Color, down: Color, picture: NDArray[np.uint8]) -> Face:
    r, d = np.array(right, np.float64), np.array(down, np.float64)
    normal = np.cross(d, r)  # the world's axes are left-handed: this points out of the face
    return Face(np.array(corner, np.float64), r, d, -normal / np.linalg.norm(normal), Texture(picture))
