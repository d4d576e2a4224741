"""Paints a block's ground: surfaces, wear and road markings."""

from __future__ import annotations

import math

import numpy as np

from coop_perception.sample_scene.ground import HALF_WIDTH, Painter
from coop_perception.sample_scene.layouts import CLASS, LANE, Block

Rng = np.random.Generator


def paint_block(p: Painter, block: Block, next_junction: float, rng: Rng, traffic: int) -> None:
    """Road, pavements, verges, wear and markings of a block, each over the one before."""
    start, end, width = block.start, block.end, block.junction
    edge = float(HALF_WIDTH)
    left, right = block.sides
    road, pavement, green = CLASS["Road"], CLASS["Pavement"], CLASS["Tree"]
    for side in block.sides:
        outer = (
            "grass"
            if block.layout.name == "suburb" or side.park
            else "paving"
            if block.layout.name != "terrace"
            else "gravel"
        )
        lo, hi = sorted((side.sign * side.kerb, side.sign * edge))
        p.area(start, end, lo, hi, outer, green if outer == "grass" else pavement)
        lo, hi = sorted((side.sign * side.kerb, side.sign * (side.kerb + side.verge + side.path)))
        p.area(
            start,
            end,
            lo,
            hi,
            "paving" if block.layout.name in ("avenue", "high street", "modern") else "tarmac",
            pavement,
        )
        if side.verge:
            lo, hi = sorted((side.sign * side.kerb, side.sign * (side.kerb + side.verge)))
            p.area(start + width + 4, end - 3, lo, hi, "grass", green)
        lo, hi = sorted((side.sign * side.kerb, side.sign * (side.kerb + 0.16)))
        p.area(start, end, lo, hi, "kerb", pavement)
    p.area(start, end, -left.kerb, right.kerb, "asphalt", road)
    if block.layout.name == "suburb":
        for side in block.sides:
            for s in np.arange(start + width + 12, end - 6, rng.uniform(13, 19)):
                lo, hi = sorted((side.sign * side.kerb, side.sign * (side.front + 2)))
                p.area(float(s), float(s) + 2.8, lo, hi, "tarmac", pavement)
    if width:
        p.area(start, start + width, -edge, edge, "asphalt", road)
    corners = [(start + width, 1)] if width else []
    if next_junction:
        corners.append((end, -1))
    for s, inward in corners:
        _paint_corners(p, block, s, inward)
    _wear(p, block, rng)
    _markings(p, block, rng, traffic)


def _paint_corners(p: Painter, block: Block, s: float, inward: int) -> None:
    """Rounds the kerbs where a side street meets the block at `s`; the block lies towards `inward`."""
    radius = 3.0
    road, pavement = CLASS["Road"], CLASS["Pavement"]
    for side in block.sides:
        sign = side.sign
        lo, hi = sorted((sign * (side.kerb + radius), sign * float(HALF_WIDTH)))
        for deep, material in ((side.path, "tarmac"), (0.16, "kerb")):
            near, far = sorted((s, s + inward * deep))
            p.area(near, far, lo, hi, material, pavement)
        centre_s, centre_t = s + inward * radius, sign * (side.kerb + radius)
        for reach, material, class_id in ((radius, "kerb", pavement), (radius + 0.16, "asphalt", road)):
            arc = [
                (centre_s - inward * reach * math.cos(a), centre_t - sign * reach * math.sin(a))
                for a in np.linspace(0, math.pi / 2, 12)
            ]
            p.shape([(s, sign * side.kerb), *arc], material, class_id)


def _wear(p: Painter, block: Block, rng: Rng) -> None:
    """Wheel tracks, oil, repairs, cracks, manholes, gullies."""
    left, right = block.sides
    first = block.start
    for t in (-LANE / 2, LANE / 2):
        for offset in (-0.8, 0.8):
            p.bar(first + block.junction, block.end, t + offset - 0.22, t + offset + 0.22, (52, 52, 54), 0.14)
        p.bar(first + block.junction, block.end, t - 0.3, t + 0.3, (30, 30, 30), 0.1)
    for _ in range(int(rng.integers(6, 14))):
        s, t = rng.uniform(first, block.end), rng.uniform(-left.kerb, right.kerb - 1)
        w, h = rng.uniform(0.5, 1.6), rng.uniform(0.8, 7.0)
        tone = rng.uniform(52, 120)
        t1 = min(t + w, right.kerb)
        p.polygon([(s, t), (s, t1), (s + h, t1), (s + h, t)], (tone, tone, tone), 0.55)
        for a, b in ((t - 0.03, t + 0.03), (t1 - 0.03, t1 + 0.03)):
            p.polygon([(s, a), (s, b), (s + h, b), (s + h, a)], (48, 48, 50), 0.35)
    for _ in range(int(rng.integers(5, 12))):
        s, t = rng.uniform(first, block.end), rng.uniform(-left.kerb, right.kerb)
        angle = rng.uniform(-0.6, 0.6)
        for _ in range(int(rng.integers(4, 12))):
            angle += rng.normal(0, 0.4)
            s2, t2 = s + 0.7 * math.cos(angle), t + 0.7 * math.sin(angle)
            if -left.kerb < t2 < right.kerb:
                p.polygon([(s, t - 0.025), (s2, t2 - 0.025), (s2, t2 + 0.025), (s, t + 0.025)], (44, 44, 46), 0.5)
            s, t = s2, t2
    for _ in range(int(rng.integers(4, 9))):
        s, t = rng.uniform(first, block.end), rng.uniform(-left.kerb + 1, right.kerb - 1)
        ring = [(s + 0.36 * math.cos(a), t + 0.36 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20)]
        core = [(s + 0.29 * math.cos(a), t + 0.29 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 20)]
        p.polygon(ring, (46, 45, 44), 0.9)
        p.polygon(core, (92, 88, 84), 0.8)
    for side in block.sides:
        inner = side.sign * (side.kerb - 0.12)
        p.bar(
            first + block.junction + 4,
            block.end,
            min(inner, inner + side.sign * 0.1),
            max(inner, inner + side.sign * 0.1),
            (44, 44, 44),
            0.4,
        )
        for s in np.arange(first + 20, block.end, 25.0):
            t0, t1 = sorted((side.sign * (side.kerb - 0.5), side.sign * (side.kerb - 0.08)))
            p.polygon([(s, t0), (s, t1), (s + 0.5, t1), (s + 0.5, t0)], (34, 34, 36), 0.9)


def _markings(p: Painter, block: Block, rng: Rng, traffic: int) -> None:
    left, right = block.sides
    first, end = block.start + block.junction, block.end
    white: tuple[float, float, float] = (228, 228, 222)
    dash, gap = [(2.0, 4.0), (4.0, 2.0), (3.0, 6.0)][int(rng.integers(3))]
    zebra = rng.random() < 0.45
    crossing = end - rng.uniform(7, 12) if rng.random() < 0.7 else first + rng.uniform(20, 60)
    for s in np.arange(first + 3, end - 2, dash + gap):
        if not (zebra and crossing - 3 < s < crossing + 5):
            p.bar(float(s), min(float(s) + dash, end - 1.5), -0.07, 0.07)
    yellow = rng.random() < 0.4
    for side in block.sides:
        if side.parking:
            inner = side.sign * (side.kerb - 2.15)
            if rng.random() < 0.5:
                for s in np.arange(first + 5, end - 5, 5.5):
                    t0, t1 = sorted((inner, side.sign * side.kerb))
                    p.bar(float(s), float(s) + 0.1, t0, t1, white, 0.7)
            for s in np.arange(first + 5, end - 6, 2.2):
                p.bar(float(s), float(s) + 1.1, inner - 0.05, inner + 0.05, white, 0.7)
        elif yellow:
            for offset in (0.3, 0.48):
                t = side.sign * (side.kerb - offset)
                p.bar(first + 4, end - 3, t - 0.045, t + 0.045, (214, 176, 60), 0.75)
        elif side.kerb > LANE + 1.2:
            t = side.sign * (side.kerb - 1.35)
            p.bar(first + 3, end - 2, t - 0.06, t + 0.06, white, 0.75)
            if rng.random() < 0.5:
                t0, t1 = sorted((t + side.sign * 0.06, side.sign * (side.kerb - 0.1)))
                p.bar(first + 3, end - 2, t0, t1, (128, 70, 58), 0.55)
    if zebra:
        for t in np.arange(-left.kerb + 0.4, right.kerb - 0.3, 1.1):
            p.bar(crossing, crossing + 3.0, float(t), float(t) + 0.55)
        for offset in (-1.2, 4.0):
            p.bar(crossing + offset, crossing + offset + 0.25, -left.kerb + 0.2, right.kerb - 0.2, white, 0.8)
    ours, theirs = sorted((0.1 * traffic, traffic * (LANE + 0.1))), sorted((-0.1 * traffic, -traffic * (LANE + 0.1)))
    p.bar(end - 1.2, end - 0.85, ours[0], ours[1], white, 0.85)
    if block.junction:
        p.bar(first + 0.9, first + 1.25, theirs[0], theirs[1], white, 0.85)
        for side in block.sides:  # give-way lines of the side streets
            for s in np.arange(block.start + 0.6, first - 0.5, 0.9):
                t = side.sign * (side.kerb + 1.2)
                p.bar(float(s), float(s) + 0.55, t - 0.12, t + 0.12, white, 0.75)
    if rng.random() < 0.5:
        s, t = end - rng.uniform(14, 22), traffic * LANE / 2
        p.polygon([(s, t - 0.08), (s, t + 0.08), (s + 2.4, t + 0.08), (s + 2.4, t - 0.08)], white, 0.8)
        p.polygon([(s + 2.2, t - 0.32), (s + 2.2, t + 0.32), (s + 3.8, t)], white, 0.8)
