"""Street furniture: lamp posts, signs, traffic lights, fences."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.light import Light
from coop_perception.sample_scene.noise import patch
from coop_perception.sample_scene.raster import Texture
from coop_perception.sample_scene.vehicles import Color, _scaled, _Sheet

Rng = np.random.Generator


def _lit(sheet: _Sheet, light: Light, normal: tuple[float, float, float] = (0.0, 0.2, -0.9)) -> Texture:
    sheet.shade(np.array(light.gain(normal), np.float32))
    return Texture(sheet.canvas)


def pole(rng: Rng, light: Light) -> Texture:
    """A shaft: round shading across, grime along."""
    color = np.array([(104, 108, 110), (62, 70, 66), (132, 128, 120), (48, 50, 54)], np.float32)[rng.integers(4)]
    side = np.linspace(-1, 1, 16, dtype=np.float32)
    sun = np.sign(light.direction[0]) * min(1.0, sum(light.time.sun))
    shade = np.sqrt(1 - 0.7 * side**2) * (1 + 0.3 * sun * side)
    grime = 1 + 0.08 * patch(rng, 256, 1, 32, 5)
    picture = np.full((256, 16, 4), 255, np.uint8)
    picture[..., :3] = np.clip(
        color * np.array(light.gain((0, 0.1, -0.8)), np.float32) * (shade[None, :] * grime)[..., None], 0, 255
    )
    return Texture(picture)


def lamp_arm(light: Light) -> tuple[Texture, float, float]:
    """Arm and lantern reaching right, (texture, width, height)."""
    width, height = 1.9, 0.62
    sheet = _Sheet(width, height, 80)
    curve = [(0.04 + 1.2 * t, 0.06 + 0.42 * math.sin(t * math.pi / 2)) for t in np.linspace(0, 1, 10)]
    sheet.line(curve, (96, 100, 102), 0.09)
    sheet.polygon([(1.1, 0.44), (1.8, 0.5), (1.86, 0.42), (1.7, 0.34), (1.2, 0.36)], (86, 90, 92))
    sheet.polygon([(1.25, 0.37), (1.72, 0.36), (1.66, 0.31), (1.3, 0.32)], (214, 214, 200))
    return _lit(sheet, light), width, height


def lantern(light: Light) -> tuple[Texture, float, float]:
    """A post-top lantern, (texture, width, height)."""
    width, height = 0.5, 0.7
    sheet = _Sheet(width, height, 80)
    sheet.polygon([(0.14, 0.0), (0.36, 0.0), (0.45, 0.48), (0.05, 0.48)], (206, 206, 192))
    sheet.polygon([(0.0, 0.48), (0.5, 0.48), (0.25, 0.68)], (54, 58, 58))
    sheet.line([(0.25, 0.0), (0.25, 0.48)], (54, 58, 58), 0.03)
    return _lit(sheet, light), width, height


def sign(rng: Rng, light: Light, kind: str) -> tuple[Texture, float, float]:
    """(texture, width, height). `kind`: limit, warning, order, direction, street, parking, crossing."""
    width, height = {
        "limit": (0.8, 0.8),
        "warning": (0.95, 0.85),
        "order": (0.8, 0.8),
        "direction": (1.9, 1.1),
        "street": (1.1, 0.4),
        "parking": (0.65, 0.9),
        "crossing": (0.7, 0.7),
    }[kind]
    sheet = _Sheet(width, height, 110)
    white: Color = (240, 240, 238)
    red: Color = (190, 26, 30)
    blue: Color = (22, 74, 160)
    dark: Color = (26, 26, 28)
    x, y = width / 2, height / 2
    if kind == "limit":
        sheet.disc(x, y, 0.39, red)
        sheet.disc(x, y, 0.3, white)
        for left in (x - 0.17, x + 0.02):
            sheet.box(left, y - 0.15, left + 0.15, y + 0.15, dark)
            sheet.box(left + 0.045, y - 0.105, left + 0.105, y + (0.105 if left > x else 0.0), white)
    elif kind == "warning":
        sheet.polygon([(0.0, 0.03), (width, 0.03), (x, height)], red)
        sheet.polygon([(0.16, 0.11), (width - 0.16, 0.11), (x, height - 0.18)], white)
        sheet.box(x - 0.035, 0.27, x + 0.035, 0.5, dark)
        sheet.disc(x, 0.19, 0.04, dark)
    elif kind == "order":
        sheet.disc(x, y, 0.39, white)
        sheet.disc(x, y, 0.37, blue)
        sheet.line([(x, y - 0.22), (x, y + 0.14)], white, 0.08)
        sheet.polygon([(x - 0.16, y + 0.08), (x + 0.16, y + 0.08), (x, y + 0.27)], white)
    elif kind == "direction":
        back: Color = [(20, 96, 70), (24, 70, 150), (236, 236, 232)][int(rng.integers(3))]
        ink: Color = dark if back[0] > 200 else white
        sheet.box(0, 0, width, height, ink)
        sheet.box(0.04, 0.04, width - 0.04, height - 0.04, back)
        for row in range(int(rng.integers(2, 4))):
            level = height - 0.22 - row * 0.34
            left = 0.5
            for _ in range(int(rng.integers(4, 9))):
                size = rng.uniform(0.09, 0.16)
                sheet.box(left, level - 0.12, left + size, level + 0.08, ink)
                sheet.box(left + 0.035, level - 0.08, left + size - 0.03, level + 0.0, back)
                left += size + 0.04
            sheet.line([(0.32, level - 0.02), (0.14, level - 0.02)], ink, 0.05)
            sheet.polygon([(0.2, level + 0.08), (0.2, level - 0.12), (0.07, level - 0.02)], ink)
    elif kind == "street":
        sheet.box(0, 0, width, height, dark)
        sheet.box(0.025, 0.025, width - 0.025, height - 0.025, white)
        for i in range(8):
            sheet.box(0.1 + i * 0.11, 0.12, 0.17 + i * 0.11, 0.28, dark)
    elif kind == "parking":
        sheet.box(0, 0, width, height, white)
        sheet.box(0.03, 0.03, width - 0.03, height - 0.03, blue)
        sheet.box(0.17, 0.16, 0.27, 0.74, white)
        sheet.disc(0.33, 0.58, 0.17, white)
        sheet.disc(0.33, 0.58, 0.08, blue)
    else:
        sheet.box(0, 0, width, height, blue)
        sheet.polygon([(0.07, 0.09), (width - 0.07, 0.09), (x, height - 0.07)], white)
        sheet.disc(x, 0.42, 0.05, dark)
        sheet.line([(x, 0.38), (x - 0.02, 0.25), (x - 0.1, 0.12)], dark, 0.05)
        sheet.line([(x - 0.02, 0.25), (x + 0.08, 0.12)], dark, 0.05)
    return _lit(sheet, light), width, height


def traffic_light(light: Light, lamp: int) -> tuple[Texture, float, float]:
    """The head, `lamp` 0 = red, 1 = amber, 2 = green."""
    width, height = 0.5, 1.15
    sheet = _Sheet(width, height, 110)
    sheet.box(0, 0, width, height, (226, 226, 222))
    sheet.box(0.03, 0.03, width - 0.03, height - 0.03, (20, 20, 22))
    colors: tuple[Color, ...] = ((236, 40, 30), (240, 170, 30), (40, 220, 130))
    gain = light.gain((0.0, 0.2, -0.9))
    sheet.shade(np.array(gain, np.float32))
    for i, color in enumerate(colors):
        y = height - 0.22 - i * 0.35
        sheet.disc(width / 2, y, 0.145, color if i == lamp else _scaled(color, 0.16))
        if i == lamp:
            sheet.disc(width / 2, y, 0.07, tuple(min(255, c + 60) for c in color))  # type: ignore[arg-type]
        sheet.polygon(
            [
                (width / 2 - 0.16, y + 0.1),
                (width / 2 + 0.16, y + 0.1),
                (width / 2 + 0.12, y + 0.16),
                (width / 2 - 0.12, y + 0.16),
            ],
            (12, 12, 13),
        )
    return Texture(sheet.canvas), width, height


FENCE_LENGTH = 4.0
"""Metres of fence in one texture."""


def fence(rng: Rng, kind: str) -> tuple[Texture, float]:
    """(texture, height), unlit. `kind`: picket, boards, railings, guard or mesh."""
    height = {"picket": 1.0, "boards": 1.75, "railings": 1.3, "guard": 1.1, "mesh": 1.5}[kind]
    sheet = _Sheet(FENCE_LENGTH, height, 60)
    if kind == "picket":
        color: Color = ((228, 226, 218), (150, 116, 84), (96, 110, 96))[int(rng.integers(3))]
        for y in (0.25, 0.75):
            sheet.box(0, y, FENCE_LENGTH, y + 0.08, _scaled(color, 0.8))
        for x in np.arange(0.0, FENCE_LENGTH, 0.16):
            tone = _scaled(color, rng.uniform(0.9, 1.06))
            sheet.polygon(
                [(x + 0.01, 0.04), (x + 0.13, 0.04), (x + 0.13, 0.93), (x + 0.07, 1.0), (x + 0.01, 0.93)], tone
            )
    elif kind == "boards":
        color = ((142, 108, 76), (118, 96, 76), (128, 120, 106))[int(rng.integers(3))]
        sheet.box(0, 0, FENCE_LENGTH, height - 0.05, _scaled(color, 0.55))
        for x in np.arange(0.0, FENCE_LENGTH, 0.14):
            sheet.box(x + 0.005, 0.0, x + 0.13, height - 0.05, _scaled(color, rng.uniform(0.82, 1.12)))
        for x in (0.0, 2.0):
            sheet.box(x, 0, x + 0.1, height, _scaled(color, 0.8))
        sheet.box(0, height - 0.09, FENCE_LENGTH, height - 0.04, _scaled(color, 1.1))
    elif kind == "railings":
        color = ((38, 40, 42), (36, 58, 48))[int(rng.integers(2))]
        sheet.box(0, 0, FENCE_LENGTH, 0.3, (150, 132, 116))
        for x in np.arange(0.02, FENCE_LENGTH, 0.115):
            sheet.box(x, 0.3, x + 0.062, height - 0.05, _scaled(color, rng.uniform(0.9, 1.2)))
            sheet.polygon([(x - 0.01, height - 0.08), (x + 0.072, height - 0.08), (x + 0.031, height)], color)
        for y in (0.42, height - 0.2):
            sheet.box(0, y, FENCE_LENGTH, y + 0.06, color)
    elif kind == "guard":
        color = ((150, 154, 156), (206, 206, 200), (74, 80, 84))[int(rng.integers(3))]
        for x in np.arange(0.02, FENCE_LENGTH, 0.12):
            sheet.box(x, 0.12, x + 0.066, height - 0.08, _scaled(color, rng.uniform(0.85, 1.0)))
        for y in (0.1, height - 0.1):
            sheet.box(0, y, FENCE_LENGTH, y + 0.09, color)
        for x in (0.0, 2.0):
            sheet.box(x, 0, x + 0.09, height, _scaled(color, 0.9))
    else:
        color = (94, 112, 98)
        for x in np.arange(0.0, FENCE_LENGTH, 0.1):
            sheet.line([(x, 0.05), (x, height - 0.05)], _scaled(color, 0.9), 0.055)
        for y in np.arange(0.08, height, 0.2):
            sheet.line([(0, y), (FENCE_LENGTH, y)], color, 0.03)
        for x in (0.0, 2.0):
            sheet.box(x, 0, x + 0.1, height, _scaled(color, 0.85))
    h, w = sheet.canvas.shape[:2]
    stain: NDArray[np.float32] = 1 + 0.06 * patch(rng, h, w, 24, 4)
    sheet.shade(np.asarray(stain[..., None], np.float32))
    return Texture(sheet.canvas), height
