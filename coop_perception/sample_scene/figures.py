"""Pedestrians and cyclists as cut-out pictures in walking and riding poses."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coop_perception.sample_scene.light import Light
from coop_perception.sample_scene.noise import patch
from coop_perception.sample_scene.raster import Texture
from coop_perception.sample_scene.vehicles import Color, Point, _scaled, _Sheet

PIXELS_PER_METRE = 110
PHASES = 8
"""Pictures in one double step."""
Rng = np.random.Generator

CLOTHES: tuple[Color, ...] = (
    (38, 40, 46), (58, 64, 84), (112, 34, 36), (150, 140, 124), (52, 74, 60), (88, 88, 92), (188, 182, 172),
    (40, 62, 112), (132, 92, 58), (176, 60, 48), (70, 52, 78), (210, 200, 80),
)  # fmt: skip
SKIN: tuple[Color, ...] = ((224, 182, 154), (198, 150, 118), (140, 98, 72), (96, 66, 50))
HAIR: tuple[Color, ...] = ((42, 32, 26), (88, 60, 40), (150, 118, 74), (120, 120, 122), (24, 22, 22))


WALKER_SIZE = (0.9, 1.95)
"""Width and height in metres of a pedestrian's picture; the figure stands on its lower edge."""
RIDER_SIZE = (0.9, 1.78)
RIDER_ACROSS_SIZE = (1.9, 1.78)
BIKE_SIZE = (1.74, 1.02)


def _limb(sheet: _Sheet, a: Point, b: Point, wide: float, narrow: float, color: Color) -> None:
    """A tapered limb from a to b."""
    length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
    nx, ny = -(b[1] - a[1]) / length, (b[0] - a[0]) / length
    w, n = wide / 2, narrow / 2
    sheet.polygon(
        [
            (a[0] + nx * w, a[1] + ny * w),
            (b[0] + nx * n, b[1] + ny * n),
            (b[0] - nx * n, b[1] - ny * n),
            (a[0] - nx * w, a[1] - ny * w),
        ],
        color,
    )
    sheet.disc(a[0], a[1], w, color)
    sheet.disc(b[0], b[1], n, color)


def _finish(rng: Rng, sheet: _Sheet, light: Light) -> Texture:
    """Rounds the figure by the light's side, adds folds."""
    h, w = sheet.canvas.shape[:2]
    gain = np.array(light.gain((0.0, 0.3, -0.8)), np.float32)
    alpha = sheet.canvas[..., 3].astype(np.float32) / 255
    weight = alpha.sum(axis=1) + 1e-3
    x = np.arange(w, dtype=np.float32)
    middle = (alpha * x).sum(axis=1) / weight
    side = np.clip((x[None, :] - middle[:, None]) / np.maximum(weight[:, None] * 0.6, 4), -1, 1)
    shade = (
        1 + 0.22 * side * np.sign(light.direction[0]) * min(1.0, sum(light.time.sun)) + 0.07 * patch(rng, h, w, 12, 3)
    )
    sheet.shade(np.asarray(shade[..., None] * gain, np.float32))
    return Texture(sheet.canvas)


@dataclass(frozen=True, slots=True)
class Look:
    """What one person wears and rides; `build` scales widths."""

    height: float
    build: float
    top: Color
    legs: Color
    skin: Color
    hair: Color
    coat: bool
    bag: bool
    long_hair: bool
    jacket: Color
    helmet: Color
    frame: Color


def look(rng: Rng, child: bool = False) -> Look:
    top = _scaled(CLOTHES[int(rng.integers(len(CLOTHES)))], rng.uniform(0.8, 1.15))
    hair = HAIR[int(rng.integers(len(HAIR)))]
    return Look(
        height=float(rng.uniform(1.15, 1.4) if child else rng.uniform(1.6, 1.86)),
        build=float(rng.uniform(0.88, 1.15)),
        top=top,
        legs=_scaled(CLOTHES[int(rng.integers(6))], rng.uniform(0.7, 1.1)),
        skin=SKIN[int(rng.integers(len(SKIN)))],
        hair=hair,
        coat=bool(rng.random() < 0.35),
        bag=bool(rng.random() < 0.4),
        long_hair=bool(rng.random() < 0.45),
        jacket=((226, 210, 60), (216, 96, 40), top, top)[int(rng.integers(4))],
        helmet=((210, 60, 50), (230, 230, 228), (40, 44, 50), hair)[int(rng.integers(4))],
        frame=((150, 30, 30), (34, 60, 110), (40, 40, 44), (60, 110, 70), (180, 184, 188))[int(rng.integers(5))],
    )


def _head(sheet: _Sheet, wearer: Look, x: float, top: float, view: str) -> None:
    r = 0.062 * wearer.height
    y = top - r * 1.15
    sheet.box(x - r * 0.45, y - r * 1.6, x + r * 0.45, y, _scaled(wearer.skin, 0.85))
    sheet.disc(x, y, r * 1.15, wearer.hair if view == "back" else wearer.skin, 0.84)
    if view == "back":
        if wearer.long_hair:
            sheet.box(x - r * 0.8, y - r * 1.9, x + r * 0.8, y, wearer.hair)
        return
    offset = 0.0 if view == "front" else -r * 0.25
    sheet.polygon(
        [
            (x + offset + r * 0.98 * math.cos(t), y + r * 0.28 + r * 0.98 * math.sin(t))
            for t in np.linspace(0, math.pi, 12)
        ],
        wearer.hair,
    )
    if view == "side":
        sheet.box(x - r * 0.95, y - r * 0.5, x - r * 0.15, y + r * 0.6, wearer.hair)
    if wearer.long_hair:
        sheet.box(x - r, y - r * 1.7, x - r * 0.6, y + r * 0.4, wearer.hair)
        if view == "front":
            sheet.box(x + r * 0.6, y - r * 1.7, x + r, y + r * 0.4, wearer.hair)
    if view == "front":
        for side in (-1, 1):
            sheet.disc(x + side * r * 0.36, y + r * 0.05, r * 0.12, (40, 32, 30))
        sheet.box(x - r * 0.3, y - r * 0.58, x + r * 0.3, y - r * 0.48, _scaled(wearer.skin, 0.6))


def _walk_along(rng: Rng, wearer: Look, phase: int, view: str, light: Light) -> Texture:
    h, b = wearer.height, wearer.build
    sheet = _Sheet(*WALKER_SIZE, PIXELS_PER_METRE)
    x = WALKER_SIZE[0] / 2
    swing = math.sin(2 * math.pi * phase / PHASES)
    hip, shoulder = 0.52 * h, 0.82 * h
    shoe = (30, 28, 28)
    for side in (-1, 1):
        lift = max(0.0, side * swing) * 0.1 * h
        foot = (x + side * 0.07 * b, 0.05 + lift)
        knee = (x + side * 0.085 * b, 0.28 * h + lift * 0.5)
        tone = 1.0 - 0.2 * (side * swing < 0)
        _limb(sheet, (x + side * 0.075 * b, hip), knee, 0.16 * b, 0.12 * b, _scaled(wearer.legs, tone))
        _limb(sheet, knee, foot, 0.12 * b, 0.085 * b, _scaled(wearer.legs, tone * 0.95))
        sheet.box(foot[0] - 0.055, foot[1] - 0.05, foot[0] + 0.055, foot[1] + 0.02, shoe)
    for side in (-1, 1):
        reach = side * swing * 0.03 * h
        elbow = (x + side * 0.225 * b, 0.64 * h)
        hand = (x + side * 0.22 * b, 0.49 * h + reach)
        _limb(sheet, (x + side * 0.175 * b, shoulder - 0.03), elbow, 0.12 * b, 0.1 * b, _scaled(wearer.top, 0.86))
        _limb(sheet, elbow, hand, 0.1 * b, 0.075 * b, _scaled(wearer.top, 0.8))
        sheet.disc(hand[0], hand[1] - 0.03, 0.042, wearer.skin)
    hem = 0.34 * h if wearer.coat else 0.5 * h
    flare = 0.21 if wearer.coat else 0.165
    sheet.polygon(
        [
            (x - 0.18 * b, shoulder),
            (x - 0.08, shoulder + 0.045),
            (x + 0.08, shoulder + 0.045),
            (x + 0.18 * b, shoulder),
            (x + 0.175 * b, 0.66 * h),
            (x + flare * b, hem),
            (x - flare * b, hem),
            (x - 0.175 * b, 0.66 * h),
        ],
        wearer.top,
    )
    if view == "front":
        sheet.line([(x, shoulder + 0.02), (x, hem + 0.02)], _scaled(wearer.top, 0.6), 0.015)
        sheet.polygon(
            [(x - 0.05, shoulder + 0.04), (x + 0.05, shoulder + 0.04), (x, shoulder - 0.1)], _scaled(wearer.skin, 0.9)
        )
    if wearer.bag:
        color = _scaled(wearer.legs, 0.75)
        if view == "back":
            sheet.polygon(
                [(x - 0.14, 0.78 * h), (x + 0.14, 0.78 * h), (x + 0.16, 0.56 * h), (x - 0.16, 0.56 * h)], color
            )
        else:
            sheet.line([(x - 0.17 * b, shoulder), (x + 0.16 * b, 0.55 * h)], color, 0.03)
    _head(sheet, wearer, x, h, view)
    return _finish(rng, sheet, light)


def _walk_across(rng: Rng, wearer: Look, phase: int, light: Light) -> Texture:
    """To the right."""
    h, b = wearer.height, wearer.build
    sheet = _Sheet(*WALKER_SIZE, PIXELS_PER_METRE)
    x = WALKER_SIZE[0] / 2
    hip, shoulder = (x, 0.52 * h), (x + 0.02, 0.81 * h)
    angle = 2 * math.pi * phase / PHASES

    def leg(turn: float, tone: float) -> None:
        swing = 0.45 * math.sin(turn)
        bend = 0.15 + 0.55 * max(0.0, math.cos(turn))
        knee = (hip[0] + 0.25 * h * math.sin(swing + 0.1), hip[1] - 0.25 * h * math.cos(swing + 0.1))
        ankle = (
            knee[0] + 0.25 * h * math.sin(swing - bend * 0.6),
            max(knee[1] - 0.25 * h * math.cos(swing - bend * 0.6), 0.06),
        )
        _limb(sheet, hip, knee, 0.17 * b, 0.125 * b, _scaled(wearer.legs, tone))
        _limb(sheet, knee, ankle, 0.12 * b, 0.085 * b, _scaled(wearer.legs, tone))
        sheet.polygon(
            [
                (ankle[0] - 0.06, ankle[1] - 0.06),
                (ankle[0] + 0.17, ankle[1] - 0.06),
                (ankle[0] + 0.06, ankle[1] + 0.03),
                (ankle[0] - 0.06, ankle[1] + 0.03),
            ],
            _scaled((34, 31, 30), tone),
        )

    def arm(turn: float, tone: float) -> None:
        swing = 0.4 * math.sin(turn)
        elbow = (shoulder[0] + 0.17 * h * math.sin(swing), shoulder[1] - 0.05 - 0.16 * h * math.cos(swing))
        hand = (elbow[0] + 0.15 * h * math.sin(swing + 0.3), elbow[1] - 0.14 * h * math.cos(swing + 0.3))
        _limb(sheet, (shoulder[0], shoulder[1] - 0.05), elbow, 0.11 * b, 0.09 * b, _scaled(wearer.top, tone))
        _limb(sheet, elbow, hand, 0.09 * b, 0.07 * b, _scaled(wearer.top, tone))
        sheet.disc(hand[0], hand[1], 0.042, wearer.skin)

    arm(angle, 0.7)
    leg(angle + math.pi, 0.78)
    leg(angle, 1.0)
    hem = 0.33 * h if wearer.coat else 0.5 * h
    sheet.polygon(
        [
            (x - 0.09 * b, shoulder[1] + 0.02),
            (x + 0.09 * b, shoulder[1] + 0.02),
            (x + 0.145 * b, 0.7 * h),
            (x + 0.13 * b, hem),
            (x - 0.14 * b, hem),
            (x - 0.13 * b, 0.68 * h),
        ],
        wearer.top,
    )
    if wearer.bag:
        sheet.polygon(
            [(x - 0.1, 0.79 * h), (x - 0.25, 0.76 * h), (x - 0.25, 0.57 * h), (x - 0.1, 0.57 * h)],
            _scaled(wearer.legs, 0.75),
        )
    arm(angle + math.pi, 0.9)
    _head(sheet, wearer, x + 0.03, h, "side")
    return _finish(rng, sheet, light)


def walker(rng: Rng, wearer: Look, view: str, phase: int, light: Light) -> Texture:
    """A pedestrian seen from the "back", the "front", or the "side" (walking right); `phase` 0..PHASES-1."""
    return _walk_across(rng, wearer, phase, light) if view == "side" else _walk_along(rng, wearer, phase, view, light)


def _bicycle(sheet: _Sheet, x: float, color: Color, phase: int) -> None:
    """Side view heading right; `x` is the bottom bracket's place."""
    r = 0.34
    for wheel in (x - 0.48, x + 0.56):
        t = np.linspace(0, 2 * math.pi, 40)
        sheet.line([(wheel + r * math.cos(a), r + r * math.sin(a)) for a in t], (24, 24, 25), 0.045)
        sheet.line([(wheel + r * 0.88 * math.cos(a), r + r * 0.88 * math.sin(a)) for a in t], (150, 152, 156), 0.015)
        for i in range(7):
            a = math.pi * i / 7 + phase * 0.2
            sheet.line(
                [
                    (wheel - r * 0.85 * math.cos(a), r - r * 0.85 * math.sin(a)),
                    (wheel + r * 0.85 * math.cos(a), r + r * 0.85 * math.sin(a)),
                ],
                (120, 122, 126),
                0.01,
            )
    seat, bracket, head = (x - 0.16, 0.86), (x, 0.3), (x + 0.42, 0.84)
    for one, other in (
        (seat, bracket),
        (seat, head),
        (head, bracket),
        (bracket, (x - 0.48, r)),
        (seat, (x - 0.48, r)),
        (head, (x + 0.56, r)),
    ):
        sheet.line([one, other], color, 0.04)
    sheet.line([head, (x + 0.46, 0.98), (x + 0.36, 0.99)], (40, 40, 42), 0.035)
    sheet.box(x - 0.3, 0.88, x - 0.05, 0.93, (30, 28, 28))
    sheet.disc(x, 0.3, 0.09, (60, 60, 62))


def _ride_across(rng: Rng, wearer: Look, phase: int, light: Light) -> Texture:
    """To the right."""
    sheet = _Sheet(*RIDER_ACROSS_SIZE, PIXELS_PER_METRE)
    x = RIDER_ACROSS_SIZE[0] / 2 - 0.04
    turn = 2 * math.pi * phase / PHASES
    hip, shoulder = (x - 0.18, 0.98), (x + 0.16, 1.42)

    def leg(angle: float, tone: float) -> None:
        foot = (x + 0.16 * math.cos(angle), 0.3 + 0.16 * math.sin(angle))
        reach = math.hypot(foot[0] - hip[0], foot[1] - hip[1])
        out = math.sqrt(max(0.42**2 - (reach / 2) ** 2, 0.0))
        nx, ny = -(foot[1] - hip[1]) / reach, (foot[0] - hip[0]) / reach
        knee = ((hip[0] + foot[0]) / 2 + nx * out, (hip[1] + foot[1]) / 2 + ny * out)
        _limb(sheet, hip, knee, 0.17, 0.12, _scaled(wearer.legs, tone))
        _limb(sheet, knee, foot, 0.12, 0.08, _scaled(wearer.legs, tone))
        sheet.polygon(
            [
                (foot[0] - 0.08, foot[1] - 0.05),
                (foot[0] + 0.16, foot[1] - 0.05),
                (foot[0] + 0.05, foot[1] + 0.04),
                (foot[0] - 0.08, foot[1] + 0.04),
            ],
            (30, 28, 28),
        )

    leg(turn + math.pi, 0.72)
    _bicycle(sheet, x, wearer.frame, phase)
    leg(turn, 1.0)
    sheet.polygon(
        [
            (hip[0] - 0.1, hip[1] - 0.06),
            (hip[0] + 0.13, hip[1] - 0.05),
            (shoulder[0] + 0.1, shoulder[1] - 0.08),
            (shoulder[0] + 0.02, shoulder[1] + 0.06),
            (shoulder[0] - 0.12, shoulder[1] - 0.02),
        ],
        wearer.jacket,
    )
    _limb(
        sheet, (shoulder[0], shoulder[1] - 0.05), (shoulder[0] + 0.12, 1.16), 0.11, 0.085, _scaled(wearer.jacket, 0.88)
    )
    _limb(sheet, (shoulder[0] + 0.12, 1.16), (x + 0.4, 1.02), 0.085, 0.07, _scaled(wearer.jacket, 0.84))
    _head(sheet, wearer, shoulder[0] + 0.1, 1.72, "side")
    sheet.polygon(
        [(shoulder[0] + 0.1 + 0.13 * math.cos(a), 1.64 + 0.12 * math.sin(a)) for a in np.linspace(0, math.pi, 12)],
        wearer.helmet,
    )
    return _finish(rng, sheet, light)


def _ride_along(rng: Rng, wearer: Look, phase: int, view: str, light: Light) -> Texture:
    """The rider and the wheel below; the rest of the bicycle is a picture of its own."""
    sheet = _Sheet(*RIDER_SIZE, PIXELS_PER_METRE)
    x = WALKER_SIZE[0] / 2
    swing = math.sin(2 * math.pi * phase / PHASES)
    if view == "back":
        sheet.box(x - 0.03, 0.0, x + 0.03, 0.72, (24, 24, 25))
        sheet.box(x - 0.05, 0.5, x + 0.05, 0.56, (190, 30, 26))
        sheet.polygon([(x - 0.1, 0.9), (x + 0.1, 0.9), (x + 0.05, 0.84), (x - 0.05, 0.84)], (28, 26, 26))
    for side in (-1, 1):
        foot = (x + side * 0.12, 0.3 + side * swing * 0.15)
        knee = (x + side * 0.17, 0.64 + side * swing * 0.1)
        _limb(sheet, (x + side * 0.08, 0.98), knee, 0.17, 0.125, wearer.legs)
        _limb(sheet, knee, foot, 0.12, 0.085, _scaled(wearer.legs, 0.9))
        sheet.box(foot[0] - 0.05, foot[1] - 0.06, foot[0] + 0.05, foot[1] + 0.03, (30, 28, 28))
        elbow = (x + side * 0.27, 1.2)
        _limb(sheet, (x + side * 0.18, 1.42), elbow, 0.12, 0.095, _scaled(wearer.jacket, 0.84))
        _limb(sheet, elbow, (x + side * 0.25, 1.04), 0.09, 0.07, _scaled(wearer.jacket, 0.78))
    sheet.line([(x - 0.28, 1.02), (x + 0.28, 1.02)], (34, 34, 36), 0.035)
    if view == "front":
        sheet.box(x - 0.03, 0.0, x + 0.03, 0.7, (24, 24, 25))
        sheet.line([(x, 0.6), (x, 1.0)], wearer.frame, 0.04)
        sheet.disc(x, 0.92, 0.045, (246, 246, 236))
    sheet.polygon(
        [
            (x - 0.19, 1.42),
            (x - 0.08, 1.5),
            (x + 0.08, 1.5),
            (x + 0.19, 1.42),
            (x + 0.16, 1.2),
            (x + 0.17, 0.93),
            (x - 0.17, 0.93),
            (x - 0.16, 1.2),
        ],
        wearer.jacket,
    )
    _head(sheet, wearer, x, 1.73, view)
    sheet.polygon(
        [(x + 0.115 * math.cos(a), 1.65 + 0.11 * math.sin(a)) for a in np.linspace(0, math.pi, 12)], wearer.helmet
    )
    return _finish(rng, sheet, light)


def rider(rng: Rng, wearer: Look, view: str, phase: int, light: Light) -> Texture:
    """A cyclist seen from the "back", the "front", or the "side" (riding right); `phase` 0..PHASES-1."""
    return _ride_across(rng, wearer, phase, light) if view == "side" else _ride_along(rng, wearer, phase, view, light)


def bicycle(rng: Rng, owner: Look, light: Light) -> Texture:
    """The bicycle's plane, heading right."""
    sheet = _Sheet(*BIKE_SIZE, PIXELS_PER_METRE)
    _bicycle(sheet, BIKE_SIZE[0] / 2 - 0.04, owner.frame, 0)
    return _finish(rng, sheet, light)
