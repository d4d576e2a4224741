"""Plans a block: what stands where, and the surfaces it is drawn with."""

from __future__ import annotations

import math

import numpy as np

from coop_perception.sample_scene.facades import Facade
from coop_perception.sample_scene.figures import BIKE_SIZE
from coop_perception.sample_scene.furniture import FENCE_LENGTH
from coop_perception.sample_scene.ground import Caster
from coop_perception.sample_scene.layouts import CLASS, LANE, Billboard, Block, CentreLine, Layout, Side
from coop_perception.sample_scene.models import Models
from coop_perception.sample_scene.raster import SurfaceList, Texture, Vector
from coop_perception.sample_scene.vehicles import Vehicle

Rng = np.random.Generator


class Planner:
    """Fills one block."""

    def __init__(self, rng: Rng, models: Models, line: CentreLine, traffic: int) -> None:
        self.rng, self.models, self.line, self.traffic = rng, models, line, traffic
        self.light = models.light
        self.solids = SurfaceList()

    def plan(self, layout: Layout, start: float, end: float) -> Block:
        rng = self.rng
        parking = rng.random(2) < layout.parking
        wide = 1.3 if rng.random() < 0.3 else 0.0
        park_side = int(rng.integers(2)) if layout.park else 2
        verge_on = rng.random() < layout.verge
        made = []
        for i, sign in enumerate((-1, 1)):
            kerb = LANE + 0.25 + 2.1 * bool(parking[i]) + wide
            verge = rng.uniform(1.0, 1.8) if verge_on else 0.0
            path = rng.uniform(*layout.pavement)
            setback = rng.uniform(*layout.setback)
            made.append(
                Side(sign, kerb, bool(parking[i]), verge, path, setback, kerb + verge + path + setback, i == park_side)
            )
        junction = 9.0 if rng.random() < 0.75 else 0.0
        block = Block(start, end, junction, layout, (made[0], made[1]))
        for side in block.sides:
            self._buildings(block, side)
            self._greenery(block, side)
            self._boundary(block, side)
            self._furniture(block, side)
            self._parked(block, side)
        if junction:
            self._cross_street(block)
        block.solids = self.solids.done()
        return block

    def _wall(
        self, a: tuple[float, float], b: tuple[float, float], top: float, height: float, texture: Texture, class_id: int
    ) -> None:
        """An upright surface from (s, t) `a` at its left to `b` at its right, as its viewer sees it."""
        xa, za = self.line.at(*a)
        xb, zb = self.line.at(*b)
        self.solids.add((xa, top, za), (xb - xa, 0.0, zb - za), (0.0, -height, 0.0), texture, class_id)

    def _building(self, block: Block, side: Side, facade: Facade, s0: float, front: float, hidden: float) -> None:
        """`hidden`: height up to which the neighbour before it covers its end wall."""
        deep = 10.0
        s1 = s0 + facade.width
        sign = side.sign
        light, building = self.light, CLASS["Building"]
        flush = (s1 + 0.04, s0 - 0.04) if sign > 0 else (s0 - 0.04, s1 + 0.04)
        to_road = facade.front.lit(light.gain((-float(sign), 0.0, 0.0)))
        self._wall((flush[0], sign * front), (flush[1], sign * front), facade.height, facade.height, to_road, building)
        left, right = (front, front + deep) if sign > 0 else (-front - deep, -front)
        shade = light.gain((0.0, 0.0, -1.0))
        pitched = facade.roof is not None
        rise = 2.4 if pitched else 0.0
        end_wall = (facade.gable if pitched else facade.side).lit(shade)
        if facade.height + rise > hidden:
            self._wall((s0, left), (s0, right), facade.height + rise, facade.height + rise, end_wall, building)
        if facade.roof is not None:
            slope = facade.roof.lit(light.gain((-0.43 * sign, 0.9, 0.0)))
            a, b = (s1, s0) if sign > 0 else (s0, s1)
            ridge = sign * (front + deep / 2)
            xa, za = self.line.at(a, ridge)
            xb, zb = self.line.at(b, ridge)
            self.solids.add(
                (xa, facade.height + rise, za), (xb - xa, 0, zb - za), (-sign * deep / 2, -rise, 0), slope, building
            )
            self._chimney(facade, s0 + 0.6, ridge, facade.height + rise)
        block.casters.append(Caster(s0, s1, min(left, right), max(left, right), facade.height + rise * 0.6))
        block.footprints.append((s0, s1, left, right))

    def _chimney(self, facade: Facade, s: float, t: float, top: float) -> None:
        wide, high = 0.9, 1.5
        for (a, b), normal in (
            (((s, t - wide / 2), (s, t + wide / 2)), (0.0, 0.0, -1.0)),
            (((s + 0.9, t - wide / 2), (s, t - wide / 2)), (-1.0, 0.0, 0.0))
            if t > 0
            else (((s, t + wide / 2), (s + 0.9, t + wide / 2)), (1.0, 0.0, 0.0)),
        ):
            self._wall(a, b, top + high - 0.5, high, facade.side.lit(self.light.gain(normal)), CLASS["Building"])

    def _buildings(self, block: Block, side: Side) -> None:
        if side.park:
            return
        rng, layout = self.rng, block.layout
        s = block.start + (block.junction and block.junction + side.path + 0.5)
        hidden = 0.0
        while s < block.end - 4:
            use = str(rng.choice(layout.uses))
            facade = self.models.facade(use, int(rng.integers(4)))
            if s + facade.width > block.end - 0.5:
                facade = self.models.facade("terrace" if use != "house" else "house", int(rng.integers(4)))
                if s + facade.width > block.end + 1:
                    break
            self._building(
                block, side, facade, s, side.front + (rng.uniform(0, 1.5) if layout.name == "suburb" else 0.0), hidden
            )
            s += facade.width
            hidden = facade.height if layout.name != "suburb" else 0.0
            if rng.random() < layout.gap:
                s += rng.uniform(2.5, 6.0)
                hidden = 0.0

    def _cross_street(self, block: Block) -> None:
        """Fronts along the far side of the side streets."""
        rng = self.rng
        for side in block.sides:
            t = side.front + 10.0 if not side.park else side.front + 6.0
            s = block.start + block.junction + side.path + 0.5
            while t < 62:
                facade = self.models.facade(str(rng.choice(block.layout.uses)), int(rng.integers(4)))
                left = t if side.sign > 0 else -t - facade.width
                texture = facade.front.lit(self.light.gain((0.0, 0.0, -1.0)))
                self._wall(
                    (s, left), (s, left + facade.width), facade.height, facade.height, texture, CLASS["Building"]
                )
                if facade.roof is not None:
                    x, z = self.line.at(s, left)
                    slope = facade.roof.lit(self.light.gain((0.0, 0.9, -0.43)))
                    self.solids.add(
                        (x, facade.height + 2.4, z + 5.0),
                        (facade.width, 0, 0),
                        (0, -2.4, -5.0),
                        slope,
                        CLASS["Building"],
                    )
                block.casters.append(Caster(s, s + 10, left, left + facade.width, facade.height))
                t += facade.width + (rng.uniform(2, 5) if rng.random() < block.layout.gap else 0.0)
            if rng.random() < 0.6:
                self._tree(block, s - 2.5, side.sign * (side.front + 14), block.layout.tree_kinds)

    def _tree(self, block: Block, s: float, t: float, kinds: tuple[str, ...]) -> None:
        rng = self.rng
        texture, width, height = self.models.tree(str(rng.choice(kinds)), int(rng.integers(2)))
        scale = rng.uniform(0.8, 1.15)
        x, z = self.line.at(s, t)
        block.billboards.append(Billboard(x, 0.0, z, width * scale, height * scale, texture, CLASS["Tree"]))
        half = width * scale / 2
        mask = texture.level(2, 2)[..., 3]
        block.casters.append(Caster(s - half, s + half, t - half, t + half, height * scale, mask))
        block.footprints.append((s - 0.2, s + 0.2, t - 0.2, t + 0.2))

    def _greenery(self, block: Block, side: Side) -> None:
        rng, layout, sign = self.rng, block.layout, side.sign
        first = block.start + block.junction + 4
        if rng.random() < layout.trees:
            step = rng.uniform(8, 15)
            t = side.kerb + (side.verge / 2 if side.verge else 0.8)
            for s in np.arange(first + rng.uniform(0, 6), block.end - 3, step):
                if rng.random() < 0.88:
                    self._tree(block, float(s + rng.normal(0, 0.4)), sign * t, layout.tree_kinds)
        if side.park:
            for s in np.arange(first, block.end, 3.6):
                self._tree(
                    block,
                    float(s + rng.normal(0, 1.5)),
                    sign * (side.front + rng.uniform(2, 20)),
                    ("broad", "tall", "bare", "conifer", "broad"),
                )
            for s in np.arange(first, block.end, 6.0):
                self._bush(block, float(s + rng.normal(0, 1.5)), sign * (side.front + rng.uniform(1.0, 8.0)))
        elif layout.name == "suburb":
            for s in np.arange(first, block.end, 9.0):
                if rng.random() < 0.5:
                    self._tree(
                        block,
                        float(s + rng.normal(0, 2)),
                        sign * (side.front - rng.uniform(1.0, 3.0)),
                        layout.tree_kinds,
                    )
                if rng.random() < 0.6:
                    self._bush(block, float(s + rng.normal(0, 2)), sign * (side.front - rng.uniform(0.8, 3.0)))
            for s in np.arange(first, block.end, 12.0):
                self._tree(
                    block,
                    float(s + rng.normal(0, 3)),
                    sign * (side.front + rng.uniform(12, 18)),
                    ("broad", "tall", "conifer"),
                )

    def _bush(self, block: Block, s: float, t: float) -> None:
        texture, width, height = self.models.hedge(True, int(self.rng.integers(3)))
        scale = self.rng.uniform(0.5, 0.95)
        x, z = self.line.at(s, t)
        block.billboards.append(Billboard(x, 0.0, z, width * scale * 0.6, height * scale, texture, CLASS["Tree"]))

    def _boundary(self, block: Block, side: Side) -> None:
        """Fences and hedges along the pavement's outer edge, and guard rails along the kerb."""
        rng, layout, sign = self.rng, block.layout, side.sign
        normal = (-float(sign), 0.0, 0.0)
        first = block.start + block.junction + side.path + 1.0
        if side.setback > 0.7 or side.park:
            t = sign * (side.kerb + side.verge + side.path + 0.05)
            kind, variant = str(rng.choice(layout.fence_kinds)), int(rng.integers(2))
            for s in np.arange(first, block.end - FENCE_LENGTH, FENCE_LENGTH):
                a, b = (s + FENCE_LENGTH, s) if sign > 0 else (s, s + FENCE_LENGTH)
                if rng.random() < 0.1:  # the next garden's own fence
                    kind, variant = str(rng.choice(layout.fence_kinds)), int(rng.integers(2))
                chance = rng.random()
                if chance < layout.fence:
                    texture, height = self.models.fence(kind, variant)
                    self._wall((a, t), (b, t), height, height, texture.lit(self.light.gain(normal)), CLASS["Fence"])
                    block.casters.append(Caster(s, s + FENCE_LENGTH, t - 0.03, t + 0.03, height * 0.8))
                elif chance < layout.fence + layout.hedge:
                    texture, _, height = self.models.hedge(False, int(rng.integers(2)))
                    self._wall((a, t), (b, t), height, height, texture, CLASS["Tree"])
                    self._wall(
                        (float(s), t if sign > 0 else t - 0.7),
                        (float(s), t + 0.7 if sign > 0 else t),
                        height,
                        height,
                        texture,
                        CLASS["Tree"],
                    )
                    block.casters.append(Caster(s, s + FENCE_LENGTH, t - 0.3, t + 0.3, height))
        elif rng.random() < layout.fence * 1.6:
            texture, height = self.models.fence("guard", int(rng.integers(2)))
            run = first + rng.uniform(0, 25)
            t = sign * (side.kerb + 0.3)
            for s in np.arange(run, min(run + rng.uniform(16, 44), block.end - 5), FENCE_LENGTH):
                a, b = (s + FENCE_LENGTH, s) if sign > 0 else (s, s + FENCE_LENGTH)
                self._wall((a, t), (b, t), height, height, texture.lit(self.light.gain(normal)), CLASS["Fence"])
                block.casters.append(Caster(s, s + FENCE_LENGTH, t - 0.03, t + 0.03, height * 0.6))

    def _pole(self, block: Block, s: float, t: float, height: float, width: float) -> tuple[float, float]:
        x, z = self.line.at(s, t)
        block.billboards.append(
            Billboard(x, 0.0, z, width, height, self.models.pole(int(self.rng.integers(3))), CLASS["Pole"])
        )
        block.casters.append(Caster(s - width / 2, s + width / 2, t - width / 2, t + width / 2, height))
        return x, z

    def _sign(self, block: Block, s: float, t: float, kind: str) -> None:
        texture, width, height = self.models.sign(kind, int(self.rng.integers(3)))
        bottom = 0.5 if kind == "street" else 1.7 if kind == "direction" else self.rng.uniform(2.0, 2.4)
        posts = (-0.7, 0.7) if kind == "direction" else (0.0,)
        for offset in posts:
            self._pole(block, s + 0.06, t + offset, bottom + height * 0.9, 0.09)
        x, z = self.line.at(s, t)
        block.billboards.append(Billboard(x, bottom, z, width, height, texture, CLASS["SignSymbol"]))
        if kind in ("limit", "order") and self.rng.random() < 0.35:
            extra, width, height = self.models.sign("warning", 0)
            block.billboards.append(Billboard(x, bottom - height, z, width, height, extra, CLASS["SignSymbol"]))

    def _furniture(self, block: Block, side: Side) -> None:
        rng, sign = self.rng, side.sign
        first = block.start + block.junction + 3
        inner = side.kerb + 0.45
        step = rng.uniform(22, 30)
        high = rng.uniform(6.0, 8.5)
        armed = rng.random() < 0.75
        for s in np.arange(first + rng.uniform(0, step), block.end - 2, step):
            x, z = self._pole(block, float(s), sign * inner, high, 0.17)
            if armed:
                texture, width, height = self.models.lamp_arm()
                if sign > 0:
                    texture = texture.mirrored()
                corner: Vector = (x - (width if sign > 0 else 0.0), high + 0.45, z - 0.02)
                self.solids.add(corner, (width, 0, 0), (0, -height, 0), texture, CLASS["Pole"])
            else:
                lamp, width, height = self.models.lantern()
                block.billboards.append(Billboard(x, high - 0.05, z, width, height, lamp, CLASS["Pole"]))
        kinds = ["limit", "warning", "order", "direction", "street", "parking", "crossing"]
        weights = np.array([0.23, 0.2, 0.17, 0.08, 0.06, 0.14, 0.12])
        for s in np.arange(first + rng.uniform(2, 14), block.end - 4, rng.uniform(13, 22)):
            self._sign(block, float(s), sign * (inner + rng.uniform(0, 0.3)), str(rng.choice(kinds, p=weights)))
        if rng.random() < 0.35:
            for s in np.arange(first + rng.uniform(0, 20), block.end, 2.0)[: int(rng.integers(4, 9))]:
                self._pole(block, float(s), sign * (inner - 0.1), 1.0, 0.14)
        if block.junction and rng.random() < 0.55:
            shown = int(rng.choice([0, 2, 2]))
            texture, width, height = self.models.traffic_light(shown)
            for s in (block.start - 1.5, block.start + block.junction + 1.0):
                x, z = self._pole(block, s + 0.08, sign * (side.kerb + 0.6), 3.1, 0.12)
                block.billboards.append(Billboard(x, 2.2, z - 0.08, width, height, texture, CLASS["SignSymbol"]))
        for s in np.arange(first + rng.uniform(5, 40), block.end - 3, rng.uniform(30, 60)):
            if rng.random() < 0.5:
                self._bikes(block, float(s), sign * (inner + 0.3))

    def _bikes(self, block: Block, s: float, t: float) -> None:
        """Bicycles left at the kerb."""
        for i in range(int(self.rng.integers(1, 4))):
            bike = self.models.bicycle(int(self.rng.integers(4)))
            x, z = self.line.at(s + i * 0.5, t)
            turn = self.rng.uniform(-0.5, 0.5) + math.pi / 2 * (self.rng.random() < 0.5)
            dx, dz = BIKE_SIZE[0] * math.cos(turn), BIKE_SIZE[0] * math.sin(turn)
            for texture, direction in ((bike, 1.0), (bike.mirrored(), -1.0)):
                corner = (x - direction * dx / 2, BIKE_SIZE[1], z - direction * dz / 2)
                self.solids.add(
                    corner, (direction * dx, 0, direction * dz), (0, -BIKE_SIZE[1], 0), texture, CLASS["Bicyclist"]
                )

    def _parked(self, block: Block, side: Side) -> None:
        if not side.parking:
            return
        rng = self.rng
        s = block.start + block.junction + rng.uniform(7, 14)
        while s < block.end - 6:
            kind = str(rng.choice(["hatchback", "saloon", "estate", "suv", "van"], p=[0.34, 0.22, 0.18, 0.18, 0.08]))
            car = self.models.vehicle(kind, int(rng.integers(3)))
            half = car.shape.length / 2
            t = side.sign * (side.kerb - 0.25 - car.shape.width / 2)
            along = side.sign == self.traffic
            heading = self.line.heading(s) + (0.0 if along or rng.random() < 0.2 else math.pi)
            x, z = self.line.at(s, t)
            add_vehicle(self.solids, self.models, car, x, z, heading)
            hw = car.shape.width / 2
            block.casters.append(Caster(s - half, s + half, t - hw, t + hw, car.shape.height * 0.9))
            block.footprints += [(s - half + 0.1, s + half - 0.1, t - hw + 0.1, t + hw - 0.1)] * 2
            s += car.shape.length + rng.uniform(0.7, 2.0) + (rng.uniform(4, 16) if rng.random() < 0.3 else 0.0)


def add_vehicle(surfaces: SurfaceList, models: Models, car: Vehicle, x: float, z: float, heading: float) -> None:
    """The vehicle's faces, standing at world (x, z) and pointing along `heading`."""
    sin, cos = math.sin(heading), math.cos(heading)
    turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
    quadrant = round(heading / (math.pi / 4)) * (math.pi / 4)  # few light directions, so that textures are shared
    qs, qc = math.sin(quadrant), math.cos(quadrant)
    for face in car.faces:
        nx, ny, nz = face.normal
        gain = models.light.gain((round(qc * nx + qs * nz, 2), round(float(ny), 2), round(-qs * nx + qc * nz, 2)))
        corner = turn @ face.corner + (x, 0.0, z)
        surfaces.add(corner, turn @ face.right, turn @ face.down, face.texture.lit(gain), CLASS["Car"])
