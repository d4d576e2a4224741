"""Trees, hedges and bushes: thousands of leaves, with gaps to look through."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.light import Light
from coop_perception.sample_scene.noise import fractal
from coop_perception.sample_scene.raster import Texture

PIXELS_PER_METRE = 44
Rng = np.random.Generator


def _branch(
    rng: Rng,
    canvas: NDArray[np.uint8],
    x: float,
    y: float,
    angle: float,
    length: float,
    thick: float,
    depth: int,
    shade: float,
) -> None:
    end_x, end_y = x + math.cos(angle) * length, y - math.sin(angle) * length
    height, width = canvas.shape[:2]
    if not (6 < end_x < width - 6 and 6 < end_y < height):
        return
    tone = rng.uniform(0.8, 1.1) * shade
    bark = (int(82 * tone), int(70 * tone), int(58 * tone), 255)
    cv2.line(
        canvas,
        (round(x * 16), round(y * 16)),
        (round(end_x * 16), round(end_y * 16)),
        bark,
        max(round(thick), 1),
        cv2.LINE_AA,
        4,
    )
    if depth == 0:
        return
    for side in (-1, 1) if rng.random() < 0.75 else (-1, 0, 1):
        turn = angle + side * rng.uniform(0.25, 0.6) + rng.normal(0, 0.1)
        _branch(rng, canvas, end_x, end_y, turn, length * rng.uniform(0.62, 0.82), thick * 0.62, depth - 1, shade)


def _leaves(
    rng: Rng,
    canvas: NDArray[np.uint8],
    centres: NDArray[np.float64],
    sun: tuple[float, float],
    color: NDArray[np.float32],
    size: float,
    per_cluster: int,
    radius: float,
    crown: tuple[float, float, float, float],
) -> None:
    """Leaf sprays around cluster centres, shaded by their place in the cluster and in the crown, back to front."""
    cx, cy, rx, ry = crown
    n = len(centres)
    cluster = np.repeat(np.arange(n), per_cluster)
    direction = rng.normal(0, 1, (len(cluster), 3))
    direction *= (rng.random(len(cluster)) ** 0.4 / np.linalg.norm(direction, axis=1))[:, None]
    spread = radius * rng.uniform(0.7, 1.25, n)[cluster]
    x = centres[cluster, 0] + direction[:, 0] * spread * 1.2
    y = centres[cluster, 1] + direction[:, 1] * spread * 0.85
    z = centres[cluster, 2] + direction[:, 2] * spread
    local = direction[:, 0] * sun[0] - direction[:, 1] * sun[1] + 0.5 * direction[:, 2]
    whole = (x - cx) / rx * sun[0] - (y - cy) / ry * sun[1] + 0.35 * z / rx
    tone = 0.72 + 0.2 * local + 0.2 * whole + rng.normal(0, 0.1, len(cluster)) + rng.normal(0, 0.07, n)[cluster]
    tone = np.clip(tone, 0.2, 1.5)
    hue = rng.normal(0, 1, (len(cluster), 1)) * np.array((9, 5, 2), np.float32) + np.clip(tone - 0.9, 0, 1)[
        :, None
    ] * np.array((60, 48, 4), np.float32)
    rgb = np.clip(color * tone[:, None] + hue, 0, 255)
    order = np.argsort(z + 0.3 * spread * rng.normal(0, 1, len(cluster)))
    long = size * rng.uniform(0.7, 1.5, len(cluster))
    turn = rng.uniform(0, 2 * math.pi, len(cluster))
    across = np.stack([np.cos(turn), np.sin(turn)], 1)
    side = np.stack([-across[:, 1], across[:, 0]], 1) * 0.5
    middle = np.stack([x, y], 1)[:, None]
    shape = np.stack([across, side + 0.2 * across, -across, -side + 0.2 * across], 1) * long[:, None, None]
    points = np.round((middle + shape) * 16).astype(np.int32)
    for i in order.tolist():
        red, green, blue = rgb[i].tolist()
        cv2.fillConvexPoly(canvas, points[i], (red, green, blue, 255), cv2.LINE_AA, 4)


def tree(rng: Rng, light: Light, kind: str) -> tuple[Texture, float, float]:
    """(texture, width, height in metres). `kind`: broad, tall, young, bare or conifer."""
    width_m, height_m = {
        "broad": (7.5, 8.5),
        "tall": (5.0, 10.5),
        "young": (3.2, 5.2),
        "bare": (6.5, 9.0),
        "conifer": (4.0, 9.0),
    }[kind]
    scale = PIXELS_PER_METRE if kind != "young" else 64
    width, height = int(width_m * scale), int(height_m * scale)
    canvas = np.zeros((height, width, 4), np.uint8)
    overall = light.gain((0.0, 0.5, -0.6))
    gain = np.array(overall, np.float32)
    shade = float(gain.mean())
    sun = (light.direction[0] * 0.8, 0.35 + 0.65 * light.direction[1])
    trunk = {"broad": 0.42, "tall": 0.36, "young": 0.13, "bare": 0.36, "conifer": 0.3}[kind] * scale
    base = width / 2
    lean = rng.normal(0, 0.02)
    fork = height * {"broad": 0.3, "tall": 0.3, "young": 0.45, "bare": 0.3, "conifer": 0.9}[kind]
    outline = np.array(
        [
            [base - trunk / 2, height],
            [base - trunk / 3 + lean * fork, height - fork],
            [base + trunk / 3 + lean * fork, height - fork],
            [base + trunk / 2, height],
        ]
    )
    bark = np.array((84, 72, 60), np.float32) * gain
    cv2.fillConvexPoly(canvas, np.round(outline * 16).astype(np.int32), (*bark.tolist(), 255), cv2.LINE_AA, 4)
    stripes = (
        1
        + 0.18 * fractal(rng, height, width, 8, 3)
        + 0.25 * np.sign(sun[0]) * np.clip((np.arange(width) - base) / max(trunk, 1), -0.5, 0.5)
    )
    canvas[..., :3] = np.clip(canvas[..., :3] * stripes[..., None], 0, canvas[..., 3:])
    start = (base + lean * fork, height - fork)
    if kind == "conifer":
        centres = []
        for level in np.linspace(0.06, 0.86, 15):
            reach = width * 0.42 * level
            centres += [
                (base + reach * side + rng.normal(0, 4), height * level, rng.normal(0, reach))
                for side in np.linspace(-1, 1, 3 + int(7 * level))
            ]
        colors = np.array([(44, 66, 46), (54, 76, 62)], np.float32)[rng.integers(2)]
        crown = (base, height * 0.5, width * 0.45, height * 0.45)
        _leaves(rng, canvas, np.array(centres), sun, colors * gain, 3.2, 26, width * 0.075, crown)
        return Texture(canvas), width_m, height_m
    spread = {"broad": 0.75, "tall": 0.45, "young": 0.6, "bare": 0.65}[kind]
    limb = height * {"broad": 0.17, "tall": 0.2, "young": 0.13, "bare": 0.19}[kind]
    for angle in np.linspace(math.pi / 2 - spread, math.pi / 2 + spread, 4 if kind != "young" else 3):
        _branch(
            rng,
            canvas,
            *start,
            angle + rng.normal(0, 0.1),
            limb * rng.uniform(0.8, 1.15),
            trunk * 0.45,
            5 if kind == "bare" else 3,
            shade,
        )
    if kind == "bare":
        for _ in range(90):  # the last twigs
            angle, reach = rng.uniform(0.1, math.pi - 0.1), rng.uniform(0.3, 0.62)
            x, y = base + math.cos(angle) * reach * width * 0.6, height * 0.62 - math.sin(angle) * reach * height * 0.8
            _branch(rng, canvas, x, y, angle + rng.normal(0, 0.4), height * 0.03, 1.2, 2, shade * 1.1)
        return Texture(canvas), width_m, height_m
    crown_y = height * {"broad": 0.36, "tall": 0.37, "young": 0.3}[kind]
    rx, ry = width * 0.4, height * {"broad": 0.32, "tall": 0.34, "young": 0.25}[kind]
    n = {"broad": 46, "tall": 44, "young": 30}[kind]
    direction = rng.normal(0, 1, (n, 3))
    direction *= (rng.random(n) ** 0.45 / np.linalg.norm(direction, axis=1))[:, None]
    centres_xyz = np.stack([base + direction[:, 0] * rx, crown_y + direction[:, 1] * ry, direction[:, 2] * rx], 1)
    greens = np.array(
        [(84, 108, 46), (98, 118, 52), (70, 98, 50), (112, 116, 48), (128, 104, 44), (76, 104, 64)], np.float32
    )
    color = greens[rng.integers(len(greens))] * gain * rng.uniform(0.9, 1.15)
    _leaves(rng, canvas, centres_xyz, sun, color, 0.085 * scale, 52, rx * 0.27, (base, crown_y, rx, ry))
    return Texture(canvas), width_m, height_m


def hedge(rng: Rng, light: Light, width_m: float, height_m: float, ragged: float) -> Texture:
    """A run of clipped hedge (small `ragged`) or of bushes."""
    scale = PIXELS_PER_METRE
    width, height = int(width_m * scale), int(height_m * scale)
    canvas = np.zeros((height, width, 4), np.uint8)
    gain = np.array(light.gain((0.0, 0.6, -0.5)), np.float32)
    color = np.array([(66, 92, 44), (82, 102, 50), (58, 80, 46)], np.float32)[rng.integers(3)] * gain
    top = np.clip(0.1 + ragged * (0.5 + 0.5 * fractal(rng, 1, width, width // 3, 4)[0]), 0.04, 0.75) * height
    filled = np.arange(height)[:, None] > top[None, :] + 5
    canvas[filled] = (*(color * 0.42).tolist(), 255)
    n = width * height // 480
    x = rng.uniform(0, width, n)
    y = rng.uniform(0, 1, n) * (height - top[x.astype(int)]) + top[x.astype(int)]
    centres = np.stack([x, y, rng.uniform(-20, 20, n)], 1)
    _leaves(
        rng,
        canvas,
        centres,
        (light.direction[0] * 0.6, 0.9),
        color,
        3.0,
        16,
        13.0,
        (width / 2, height / 2, width / 2, height / 2),
    )
    return Texture(canvas)
