"""The drive's stock of things, each made on first use from a generator of its own, so that order does not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from coop_perception.sample_scene import facades, figures, foliage, furniture, vehicles
from coop_perception.sample_scene.light import Light
from coop_perception.sample_scene.raster import Texture

Made = TypeVar("Made")
Sized = tuple[Texture, float, float]

TREES = ("broad", "tall", "young", "bare", "conifer")
SIGNS = ("limit", "warning", "order", "direction", "street", "parking", "crossing")


class Models:
    """`variant` numbers the different things of one kind; the same number gives the same thing."""

    def __init__(self, seed: int, light: Light) -> None:
        self.light = light
        self._seed = seed
        self._made: dict[tuple[str, str, int], object] = {}

    def _get(self, group: str, kind: str, variant: int, make: Callable[[np.random.Generator], Made]) -> Made:
        key = (group, kind, variant)
        if key not in self._made:
            name = int.from_bytes(f"{group}/{kind}".encode(), "little")
            self._made[key] = make(np.random.default_rng([self._seed, name, variant]))
        return self._made[key]  # type: ignore[return-value]

    def facade(self, use: str, variant: int) -> facades.Facade:
        return self._get("facade", use, variant, lambda rng: facades.facade(rng, use))

    def tree(self, kind: str, variant: int) -> Sized:
        return self._get("tree", kind, variant, lambda rng: foliage.tree(rng, self.light, kind))

    def hedge(self, ragged: bool, variant: int) -> Sized:
        width, height = (5.0, 2.3) if ragged else (5.0, 1.3)
        make = lambda rng: (foliage.hedge(rng, self.light, width, height, 0.5 if ragged else 0.08), width, height)  # noqa: E731
        return self._get("hedge", str(ragged), variant, make)

    def vehicle(self, kind: str, variant: int) -> vehicles.Vehicle:
        return self._get("vehicle", kind, variant, lambda rng: vehicles.vehicle(rng, kind))

    def look(self, variant: int) -> figures.Look:
        return self._get("look", "", variant, lambda rng: figures.look(rng, variant % 7 == 6))

    def walker(self, variant: int, view: str, phase: int) -> Texture:
        make = lambda rng: figures.walker(rng, self.look(variant), view, phase, self.light)  # noqa: E731
        return self._get("walker", f"{view}{phase}", variant, make)

    def rider(self, variant: int, view: str, phase: int) -> Texture:
        make = lambda rng: figures.rider(rng, self.look(variant), view, phase, self.light)  # noqa: E731
        return self._get("rider", f"{view}{phase}", variant, make)

    def bicycle(self, variant: int) -> Texture:
        return self._get("bicycle", "", variant, lambda rng: figures.bicycle(rng, self.look(variant), self.light))

    def fence(self, kind: str, variant: int) -> tuple[Texture, float]:
        return self._get("fence", kind, variant, lambda rng: furniture.fence(rng, kind))

    def sign(self, kind: str, variant: int) -> Sized:
        return self._get("sign", kind, variant, lambda rng: furniture.sign(rng, self.light, kind))

    def pole(self, variant: int) -> Texture:
        return self._get("pole", "", variant, lambda rng: furniture.pole(rng, self.light))

    def lamp_arm(self) -> Sized:
        return self._get("lamp", "", 0, lambda rng: furniture.lamp_arm(self.light))

    def traffic_light(self, lamp: int) -> Sized:
        return self._get("traffic light", "", lamp, lambda rng: furniture.traffic_light(self.light, lamp))

    def lantern(self) -> Sized:
        return self._get("lantern", "", 0, lambda rng: furniture.lantern(self.light))
