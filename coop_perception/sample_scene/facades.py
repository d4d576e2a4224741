"""Building fronts, side walls and roofs as textures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.sample_scene.noise import patch
from coop_perception.sample_scene.raster import Texture, opaque

PIXELS_PER_METRE = 32
STOREY = 3.0
"""Metres."""

Picture = NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Facade:
    """A front of `width` x `height` metres, and the wall texture of its sides (12 m wide, same height) and its roof."""

    width: float
    height: float
    front: Texture
    side: Texture
    gable: Texture
    roof: Texture | None


def wall(rng: Rng, height: int, width: int, kind: str) -> Picture:
    """Bare wall [height, width, 3]."""
    stain = patch(rng, height, width, 96, 5, 0.6)[..., None]
    grain = patch(rng, height, width, 4, 3, 0.8)[..., None]
    if kind == "brick":
        colors = np.array(
            [(142, 78, 58), (160, 104, 74), (124, 70, 60), (176, 142, 104), (112, 88, 78), (186, 160, 118)], np.float32
        )
        base = colors[rng.integers(len(colors))] * rng.uniform(0.85, 1.1)
        course, length = 3, 8
        rows, columns = -(-height // course), -(-width // length) + 1
        tone = np.repeat(np.repeat(rng.normal(1, 0.12, (rows, columns)).astype(np.float32), course, 0), length, 1)
        tone[1 :: 2 * course] *= 1
        tone = tone[:height]
        bricks = np.empty((height, width), np.float32)
        y = np.arange(height)
        odd = (y // course) % 2 == 1
        bricks[~odd] = tone[~odd][:, :width]
        bricks[odd] = tone[odd][:, 4 : width + 4]
        mortar = (y % course == 0)[:, None] | (((np.arange(width)[None, :] + 4 * odd[:, None]) % length) == 0)
        picture = base * bricks[..., None]
        picture = np.where(mortar[..., None], picture * 0.72 + 38, picture)
    elif kind == "stone":
        base = np.array([(188, 176, 152), (166, 160, 150), (200, 186, 158)], np.float32)[rng.integers(3)]
        course, length = 11, 22
        rows, columns = -(-height // course), -(-width // length) + 1
        tone = np.repeat(np.repeat(rng.normal(1, 0.07, (rows, columns)).astype(np.float32), course, 0), length, 1)[
            :height
        ]
        odd = (np.arange(height) // course) % 2 == 1
        blocks = np.where(odd[:, None], tone[:, 11 : width + 11], tone[:, :width])
        joint = (np.arange(height) % course == 0)[:, None] | (
            ((np.arange(width)[None, :] + 11 * odd[:, None]) % length) == 0
        )
        picture = base * blocks[..., None] * np.where(joint, 0.8, 1.0)[..., None]
    elif kind == "panel":
        base = np.array([(150, 152, 154), (176, 174, 168), (120, 124, 130), (196, 192, 184)], np.float32)[
            rng.integers(4)
        ]
        joint = (np.arange(height) % 48 < 1)[:, None] | (np.arange(width) % 64 < 1)[None, :]
        picture = base * np.where(joint, 0.72, 1.0)[..., None]
    else:
        base = np.array(
            [
                (226, 220, 206),
                (214, 200, 170),
                (196, 174, 140),
                (208, 186, 178),
                (182, 192, 198),
                (232, 228, 222),
                (198, 150, 116),
            ],
            np.float32,
        )[rng.integers(7)]
        picture = np.broadcast_to(base, (height, width, 3))
    streaks = (
        patch(rng, 1, width, 24, 4, 0.7)[..., None] * np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    )
    damp = 1 - 0.16 * np.exp(-np.arange(height, dtype=np.float32)[::-1] / 22)[:, None, None]
    return np.asarray(picture * (1 + 0.055 * stain + 0.035 * grain + 0.02 * streaks) * damp, np.float32)


def glass(rng: Rng, height: int, width: int) -> Picture:
    """A pane: dark inside, sky reflected above, roofs and trees below, sometimes a curtain or a lamp."""
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    wobble = patch(rng, height, width, 24, 3)
    edge = (
        0.45 + rng.uniform(-0.25, 0.3) + 0.06 * wobble + 0.15 * rng.uniform(-1, 1) * np.linspace(-1, 1, width)[None, :]
    )
    sky = np.clip((edge - y) * 9, 0, 1)[..., None] * rng.uniform(0.3, 0.8)
    inside = np.array((30, 34, 38), np.float32) * (1 + 0.25 * wobble[..., None])
    picture = inside * (1 - sky) + sky * np.array((150, 174, 198), np.float32) * (1.05 - 0.3 * y[..., None])
    chance = rng.random()
    if chance < 0.35:
        cloth = np.array([(196, 188, 172), (170, 150, 132), (200, 200, 204)], np.float32)[rng.integers(3)]
        folds = 1 + 0.12 * np.sin(np.arange(width) * rng.uniform(0.8, 1.4))[None, :, None]
        part = max(int(width * rng.uniform(0.15, 0.34)), 1)
        cover = np.zeros((height, width, 1), np.float32)
        cover[:, :part] = cover[:, -part:] = 0.75
        picture = picture * (1 - cover) + cloth * folds * cover
    elif chance < 0.55:
        drop = max(int(height * rng.uniform(0.15, 0.6)), 1)
        slats = 0.85 + 0.15 * (np.arange(drop) % 3 > 0)[:, None, None]
        picture[:drop] = picture[:drop] * 0.3 + np.array((188, 184, 174), np.float32) * 0.6 * slats
    elif chance < 0.62:
        picture += np.array((70, 52, 22), np.float32) * np.exp(-((y - 0.4) ** 2) * 10)[..., None]
    return np.asarray(picture, np.float32)


def window(rng: Rng, height: int, width: int, style: str, frame_color: NDArray[np.float32]) -> Picture:
    """A window in its opening: reveal shadow, frame, glazing bars, sill."""
    picture = glass(rng, height, width)
    frame = 2 if style != "plain" else 1
    for band in (np.s_[:frame], np.s_[-frame:], np.s_[:, :frame], np.s_[:, -frame:]):
        picture[band] = frame_color
    if style == "sash":
        middle = height // 2
        picture[middle - 1 : middle + 1] = frame_color
        picture[:, width // 2 : width // 2 + 1] = frame_color * 0.95
    elif style == "cross":
        picture[height // 3 : height // 3 + 2] = frame_color
        picture[:, width // 2 - 1 : width // 2 + 1] = frame_color
    elif style == "georgian":
        for i in range(1, 4):
            picture[height * i // 4] = frame_color
        for i in range(1, 3):
            picture[:, width * i // 3] = frame_color
    elif style == "wide":
        for i in range(1, 3):
            picture[:, width * i // 3 : width * i // 3 + 2] = frame_color
    picture[:3] *= np.array([0.35, 0.55, 0.8], np.float32)[:, None, None]
    picture[:, :2] *= np.array([0.5, 0.75], np.float32)[None, :, None]
    return picture


def _paste(picture: Picture, patch: Picture, top: int, left: int) -> None:
    height, width = patch.shape[:2]
    if top < 0 or left < 0 or top + height > picture.shape[0] or left + width > picture.shape[1]:
        return
    picture[top : top + height, left : left + width] = patch


def _shopfront(rng: Rng, picture: Picture, ground: int) -> None:
    """Turns the lowest storey into shops: fascia with lettering, awning, large panes, door, stall riser."""
    height, width = picture.shape[:2]
    top = height - ground
    left = 0
    while left < width:
        span = min(int(rng.uniform(4.2, 7.0) * PIXELS_PER_METRE), width - left)
        if width - left - span < 70:
            span = width - left
        color = rng.uniform(20, 190, 3).astype(np.float32)
        color[rng.integers(3)] *= 0.4
        area = picture[top + 4 :, left : left + span]
        area[:] = color * 0.55
        fascia = int(0.75 * PIXELS_PER_METRE)
        area[:fascia] = color * (1 + 0.05 * patch(rng, fascia, span, 8, 2)[..., None])
        area[:2] = color * 1.4 + 20
        area[fascia - 2 : fascia] *= 0.5
        _lettering(
            rng, area[4 : fascia - 5, 10 : span - 10], (np.float32(240) if color.mean() < 120 else np.float32(36))
        )
        riser = int(0.45 * PIXELS_PER_METRE)
        pane_bottom = area.shape[0] - riser
        door_left = int(rng.uniform(0.1, 0.75) * span)
        edges = [4, door_left, min(door_left + 32, span - 6), span - 4]
        for number, (a, b) in enumerate(pairwise(edges)):
            if b - a < 14:
                continue
            is_door = number == 1
            bottom = area.shape[0] - 4 if is_door else pane_bottom
            pane = glass(rng, bottom - fascia - 4, b - a - 4)
            if not is_door:
                _goods(rng, pane)
            area[fascia + 4 : bottom, a + 2 : b - 2] = pane
            area[fascia + 2 : fascia + 7, a + 2 : b - 2] *= 0.4
        if rng.random() < 0.35:
            stripes = np.where((np.arange(span) // 12 % 2 == 0)[None, :, None], color * 1.2 + 30, np.float32(225))
            depth = int(0.8 * PIXELS_PER_METRE)
            shade = np.linspace(1.05, 0.7, depth, dtype=np.float32)[:, None, None]
            area[fascia : fascia + depth] = stripes * shade
            area[fascia + depth : fascia + depth + 8] *= 0.5
        picture[top:, max(left - 3, 0) : left + 4] = color * 0.7
        left += span


def _lettering(rng: Rng, area: Picture, ink: np.float32) -> None:
    """Strokes that read as a word from a distance, but say nothing."""
    if area.shape[0] < 8 or area.shape[1] < 40:
        return
    size = area.shape[0] - 2
    x = int(rng.uniform(0, 0.3) * area.shape[1])
    for _ in range(int(rng.integers(5, 12))):
        width = int(size * rng.uniform(0.4, 0.75))
        if x + width >= area.shape[1]:
            break
        glyph = area[1 : 1 + size, x : x + width]
        strokes = rng.random(5)
        if strokes[0] < 0.8:
            glyph[:, :2] = ink
        if strokes[1] < 0.6:
            glyph[:, -2:] = ink
        for row, chance in ((0, strokes[2]), (size // 2 - 1, strokes[3]), (size - 2, strokes[4])):
            if chance < 0.6:
                glyph[row : row + 2] = ink
        x += width + 4


def _goods(rng: Rng, pane: Picture) -> None:
    height, width = pane.shape[:2]
    for _ in range(width // 7):
        w, h = int(rng.integers(4, 14)), int(rng.integers(6, 22))
        x, y = int(rng.integers(0, max(width - w, 1))), height - h - int(rng.integers(0, height // 2))
        if y > 0:
            pane[y : y + h, x : x + w] = pane[y : y + h, x : x + w] * 0.45 + rng.uniform(20, 230, 3) * 0.5


def _door(rng: Rng, picture: Picture, left: int) -> None:
    height = picture.shape[0]
    w, h = int(1.05 * PIXELS_PER_METRE), int(2.2 * PIXELS_PER_METRE)
    top = height - h - 4
    color = np.array([(40, 60, 90), (110, 30, 34), (36, 70, 52), (52, 46, 42), (190, 190, 186)], np.float32)[
        rng.integers(5)
    ]
    surround = picture[top - 6 : height - 2, max(left - 5, 0) : left + w + 5]
    surround[:] = np.array((214, 208, 196), np.float32)
    door = picture[top : height - 2, left : left + w]
    door[:] = color
    door[:8] = glass(rng, 8, door.shape[1])
    for row, column in ((14, 4), (14, w // 2 + 2), (40, 4), (40, w // 2 + 2)):
        door[row : row + 20, column : column + w // 2 - 6] *= 0.78
    door[:3] *= 0.4
    door[:, :2] *= 0.6
    picture[height - 4 :, max(left - 6, 0) : left + w + 6] = 150


def _gable(side: Picture, rise: int) -> NDArray[np.uint8]:
    """The side wall with its triangular top."""
    height, width = side.shape[:2]
    canvas = np.zeros((height, width, 4), np.uint8)
    outline = np.array([[0, height], [0, rise], [width // 2, 0], [width, rise], [width, height]], np.int32)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA)
    canvas[..., :3] = np.clip(side, 0, 255) * (mask[..., None] / 255.0)
    canvas[..., 3] = mask
    return canvas


def roof(rng: Rng, width: int, depth: int) -> Texture:
    """Tiles in courses, ridge at the top."""
    base = np.array([(96, 62, 52), (78, 78, 84), (108, 72, 56), (88, 82, 76)], np.float32)[rng.integers(4)]
    rows, columns = -(-depth // 6), -(-width // 7)
    tone = np.repeat(np.repeat(rng.normal(1, 0.1, (rows, columns)).astype(np.float32), 6, 0), 7, 1)[:depth, :width]
    course = np.array([0.6, 0.85, 1.0, 1.04, 1.06, 1.08], np.float32)[np.arange(depth) % 6][:, None]
    moss = patch(rng, depth, width, 64, 5, 0.6)
    picture = base * (tone * course * (1 + 0.1 * moss))[..., None]
    picture[:5] = base * 1.15
    picture[-4:] = (52, 50, 50)
    return Texture(opaque(np.asarray(picture, np.float32)))


def facade(rng: Rng, use: str) -> Facade:
    """A building. `use`: terrace, house, shop, block (flats) or office."""
    if use == "office":
        return _office(rng)
    storeys = {"terrace": (2, 4), "house": (2, 3), "shop": (2, 5), "block": (4, 7)}[use]
    floors = int(rng.integers(*storeys))
    meters = {"terrace": (5.0, 7.0), "house": (8.0, 11.0), "shop": (8.0, 13.0), "block": (12.0, 17.0)}[use]
    width = int(rng.uniform(*meters) * PIXELS_PER_METRE)
    ground = int((3.6 if use == "shop" else STOREY) * PIXELS_PER_METRE)
    storey = int(STOREY * PIXELS_PER_METRE)
    height = ground + (floors - 1) * storey + int(rng.uniform(0.4, 0.9) * PIXELS_PER_METRE)
    kind = str(rng.choice(["brick", "brick", "stucco", "stone"] if use != "house" else ["brick", "stucco"]))
    if use == "block":
        kind = str(rng.choice(["brick", "stucco", "panel", "stone"]))
    picture = wall(rng, height, width, kind)
    side = wall(
        rng, height + int(2.4 * PIXELS_PER_METRE), int(10 * PIXELS_PER_METRE), "brick" if rng.random() < 0.5 else kind
    )
    trim = np.array((216, 210, 198), np.float32) * rng.uniform(0.85, 1.05)
    frame_color = np.array([(232, 230, 224), (232, 230, 224), (64, 58, 54), (120, 86, 60)], np.float32)[rng.integers(4)]
    style = str(rng.choice(["sash", "cross", "georgian", "wide", "plain"]))
    window_w = int((rng.uniform(1.5, 2.0) if style == "wide" else rng.uniform(0.95, 1.3)) * PIXELS_PER_METRE)
    window_h = int(rng.uniform(1.35, 1.85) * PIXELS_PER_METRE)
    columns = max(int(width / (window_w * rng.uniform(1.7, 2.3))), 2)
    variants = [window(rng, window_h, window_w, style, frame_color) for _ in range(7)]
    door_column = int(rng.integers(columns))
    arched = rng.random() < 0.2
    for floor in range(floors):
        if floor == 0 and use == "shop":
            continue
        bottom = height - (floor * storey + (ground - storey if floor else 0)) - int(0.85 * PIXELS_PER_METRE)
        for column in range(columns):
            left = int((column + 0.5) * width / columns - window_w / 2)
            top = bottom - window_h
            if floor == 0 and column == door_column:
                _door(rng, picture, left)
                continue
            picture[max(top - 6, 0) : top, max(left - 3, 0) : left + window_w + 3] = trim * (
                0.95 if not arched else 0.8
            )
            _paste(picture, variants[int(rng.integers(len(variants)))], top, left)
            picture[bottom : bottom + 4, max(left - 3, 0) : left + window_w + 3] = trim
            picture[bottom + 4 : bottom + 9, max(left - 2, 0) : left + window_w + 2] *= 0.72
    if use in ("shop", "block") or rng.random() < 0.3:
        for floor in range(1, floors):
            row = height - ground - (floor - 1) * storey
            picture[row - 3 : row + 2] = trim * 0.95
            picture[row + 2 : row + 5] *= 0.75
    if use == "shop":
        _shopfront(rng, picture, ground)
    if use == "block" and rng.random() < 0.6:
        _balconies(rng, picture, ground, storey, columns)
    picture[:7] = trim * 0.9
    picture[7:13] *= 0.62
    pipe = int(rng.uniform(0.02, 0.98) * width)
    picture[8:, pipe : pipe + 3] = np.array((56, 56, 58), np.float32)
    picture[8:, pipe + 3 : pipe + 5] *= 0.7
    pitched = use in ("terrace", "house") or rng.random() < 0.5
    rise = int(2.4 * PIXELS_PER_METRE)
    for number in range(int(rng.integers(0, 3))):
        _paste(side, variants[number], rise + 30 + number * storey, int(rng.uniform(0.2, 0.7) * side.shape[1]))
    return Facade(
        width / PIXELS_PER_METRE,
        height / PIXELS_PER_METRE,
        Texture(opaque(picture)),
        Texture(opaque(side[rise:])),
        Texture(_gable(side, rise)),
        roof(rng, width, int(3.6 * PIXELS_PER_METRE)) if pitched else None,
    )


def _balconies(rng: Rng, picture: Picture, ground: int, storey: int, columns: int) -> None:
    height, width = picture.shape[:2]
    color = np.array([(70, 74, 78), (190, 190, 188), (120, 140, 150)], np.float32)[rng.integers(3)]
    span = width // columns
    for row in range(height - ground, 120, -storey):
        for column in range(0, columns, 2):
            left = column * span + 4
            rail = picture[row - 34 : row - 2, left : left + span - 8]
            rail[:, ::4] = color
            rail[:3] = color
            picture[row - 3 : row + 3, left - 3 : left + span - 5] = color * 1.1
            picture[row + 3 : row + 16, left : left + span - 6] *= 0.62


def _office(rng: Rng) -> Facade:
    """Curtain walling or ribbon windows, flat roof."""
    floors = int(rng.integers(3, 7))
    width = int(rng.uniform(14, 20) * PIXELS_PER_METRE)
    storey = int(3.3 * PIXELS_PER_METRE)
    height = floors * storey + 20
    picture = wall(rng, height, width, "panel")
    ribbon = rng.random() < 0.5
    tint = np.array([(0.85, 0.97, 1.05), (0.8, 0.95, 0.95), (1.0, 0.98, 0.94)], np.float32)[rng.integers(3)]
    bay = int(rng.uniform(1.3, 2.2) * PIXELS_PER_METRE)
    mullion = np.array((54, 58, 62), np.float32) if rng.random() < 0.6 else np.array((190, 192, 194), np.float32)
    for floor in range(floors):
        top = height - (floor + 1) * storey + (34 if ribbon else 8)
        bottom = height - floor * storey - (10 if floor else 4)
        for left in range(6, width - bay, bay):
            pane = glass(rng, bottom - top, bay - 3) * tint
            picture[top:bottom, left : left + bay - 3] = pane
            picture[top:bottom, left + bay - 3 : left + bay] = mullion
        picture[top : top + 5, 6 : width - 6] *= 0.5
        picture[bottom - 2 : bottom + 2, 6 : width - 6] = mullion
    picture[:8] *= 0.8
    side = wall(rng, height, int(10 * PIXELS_PER_METRE), "panel")
    for floor in range(floors):
        top = height - (floor + 1) * storey + 34
        for left in range(20, side.shape[1] - bay, bay * 2):
            _paste(side, glass(rng, storey - 54, bay) * tint, top, left)
    wall_texture = Texture(opaque(side))
    return Facade(
        width / PIXELS_PER_METRE, height / PIXELS_PER_METRE, Texture(opaque(picture)), wall_texture, wall_texture, None
    )
