"""The street: its course, and its blocks, planned and painted as they come into view."""

from __future__ import annotations

import math

import numpy as np

from coop_perception.sample_scene.ground import GroundTextures, Painter, Strip
from coop_perception.sample_scene.layouts import LAYOUTS, Block, CentreLine, Layout
from coop_perception.sample_scene.models import Models
from coop_perception.sample_scene.planner import Planner
from coop_perception.sample_scene.road import paint_block

SPACING = 125.0
"""Mean distance between junctions, metres."""


class Street:
    """Plans and paints blocks on demand; block k depends on the seed and k alone."""

    def __init__(self, seed: int, models: Models) -> None:
        rng = np.random.default_rng([seed, 1])
        self.models = models
        self._seed = seed
        self.traffic = -1 if rng.random() < 0.5 else 1
        """The side that traffic keeps to: -1 left, +1 right."""
        curvy = rng.random() < 0.6
        bends = tuple(
            (rng.uniform(0.3, 1.0) * curvy * amplitude, 2 * math.pi / period, rng.uniform(0, 6.3))
            for amplitude, period in ((14.0, 310.0), (3.5, 170.0))
        )
        self.line = CentreLine(bends)
        order = rng.permutation(len(LAYOUTS))
        self._order = [int(i) for i in order]
        self.ground = GroundTextures(np.random.default_rng([seed, 2]))
        self._edges: dict[int, float] = {}
        self._plans: dict[int, Block] = {}
        self._strips: dict[int, Strip] = {}

    def edge(self, k: int) -> float:
        """Where block k begins, in whole metres."""
        if k not in self._edges:
            self._edges[k] = float(
                round(SPACING * k + np.random.default_rng([self._seed, 3, k + 10**6]).uniform(-25, 25)) - 40
            )
        return self._edges[k]

    def number(self, s: float) -> int:
        """The block that holds s."""
        k = math.floor((s + 40) / SPACING)
        while self.edge(k + 1) <= s:
            k += 1
        while self.edge(k) > s:
            k -= 1
        return k

    def block(self, k: int) -> Block:
        if k not in self._plans:
            if len(self._plans) > 12:
                self._plans.clear()
            rng = np.random.default_rng([self._seed, 4, k + 10**6])
            planner = Planner(rng, self.models, self.line, self.traffic)
            self._plans[k] = planner.plan(self.layout(k), self.edge(k), self.edge(k + 1))
        return self._plans[k]

    def strip(self, k: int) -> Strip:
        if k not in self._strips:
            if len(self._strips) > 5:
                self._strips.clear()
            self._strips[k] = self._paint(k)
        return self._strips[k]

    def layout(self, k: int) -> Layout:
        return LAYOUTS[self._order[k % len(LAYOUTS)]]

    def _paint(self, k: int) -> Strip:
        block = self.block(k)
        rng = np.random.default_rng([self._seed, 5, k + 10**6])
        painter = Painter(rng, block.start, block.end - block.start, self.ground)
        paint_block(painter, block, self.block(k + 1).junction, rng, self.traffic)
        near = [c for i in (k - 1, k, k + 1) for c in self.block(i).casters]
        painter.shade(self.models.light, near)
        for place in block.footprints:
            painter.occlude(*place)
        return painter.done()
