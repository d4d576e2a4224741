"""What moves: cars, cyclists and pedestrians, and where each is at a given time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coop_perception.sample_scene.figures import BIKE_SIZE, PHASES, RIDER_ACROSS_SIZE, RIDER_SIZE, WALKER_SIZE
from coop_perception.sample_scene.layouts import CLASS, LANE, Billboard
from coop_perception.sample_scene.models import Models
from coop_perception.sample_scene.planner import add_vehicle
from coop_perception.sample_scene.raster import SurfaceList
from coop_perception.sample_scene.street import Street

BEHIND = 14.0
"""Metres behind the camera where an agent leaves, to come back at its window's far end."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Moves along the street at `speed` m/s (negative: towards the camera), in a window of `length` metres."""

    kind: str
    variant: int
    speed: float
    offset: float
    length: float
    place: float

    def ahead(self, time: float, camera_s: float) -> tuple[float, int]:
        """Metres ahead of the camera, and how often the window has been passed: a new look each time."""
        travelled = self.offset + self.speed * time - camera_s
        turn, rest = divmod(travelled, self.length)
        return rest - BEHIND, int(turn)


@dataclass(frozen=True, slots=True)
class Traffic:
    """All agents of a drive. A car's `place` is its lane, +1 the camera's; the others' metres from the kerb, signed."""

    agents: tuple[Agent, ...]
    lead: float
    """Metres to the car ahead; from 30 on there is none."""

    @classmethod
    def draw(cls, rng: np.random.Generator, camera_speed: float, side: int) -> Traffic:
        agents = []
        count = int(rng.integers(3, 7))
        oncoming, space = -float(rng.uniform(7, 11)), 260.0 / count
        for i in range(count):
            offset = space * (i + float(rng.uniform(0, 0.6)))
            agents.append(Agent("car", int(rng.integers(100)), oncoming, offset, 260.0, -1.0))
        for _ in range(int(rng.integers(14, 26))):
            walk = float(rng.uniform(1.0, 1.6) * rng.choice([-1, 1]))
            place = float(rng.choice([-1, 1]) * rng.uniform(0.9, 2.4))
            agents.append(Agent("pedestrian", int(rng.integers(100)), walk, rng.uniform(0, 130), 130.0, place))
        for _ in range(int(rng.integers(2, 5))):
            with_us = rng.random() < 0.65
            speed = camera_speed - rng.uniform(0.8, 3.0) if with_us else -rng.uniform(4, 6)
            agents.append(
                Agent(
                    "cyclist",
                    int(rng.integers(100)),
                    speed,
                    rng.uniform(0, 110),
                    110.0,
                    (side if with_us else -side) * rng.uniform(0.5, 0.9),
                )
            )
        return cls(tuple(agents), float(rng.uniform(16, 36)))

    def add(
        self,
        street: Street,
        models: Models,
        time: float,
        camera_s: float,
        solids: SurfaceList,
        figures: list[Billboard],
    ) -> list[tuple[float, float, float, float]]:
        """Puts every agent in its place; returns their footprints for contact shade: s, t, length, width."""
        shades = []
        side = street.traffic
        lead = self.lead + 6.0 * math.sin(time * 0.11) + 2.0 * math.sin(time * 0.23 + 1)
        cars = [(int(self.lead * 97), lead, 1.0)] if self.lead < 30 else []
        for agent in self.agents:
            ahead, turn = agent.ahead(time, camera_s)
            if agent.kind == "car":
                cars.append((agent.variant + turn * 7, ahead, agent.place))
                continue
            s = camera_s + ahead
            block = street.block(street.number(s))
            edge = block.sides[0 if agent.place < 0 else 1]
            sign = edge.sign
            variant = (agent.variant + turn) % 9
            if agent.kind == "pedestrian":
                t = sign * (edge.kerb + edge.verge + min(abs(agent.place), edge.path - 0.3))
                self._walker(street, models, variant, agent.speed, time, s, t, figures)
                shades.append((s, t, 0.5, 0.6))
            else:
                t = sign * (edge.kerb - abs(agent.place) - 2.1 * edge.parking)
                self._rider(street, models, variant % 4, agent.speed, time, s, t, solids, figures)
                shades.append((s, t, 1.8, 0.6))
        for variant, ahead, lane in cars:
            kinds = ("hatchback", "saloon", "estate", "suv", "hatchback", "van", "saloon", "bus")
            car = models.vehicle(kinds[variant % len(kinds)], variant % 3)
            if lane > 0:
                ahead += car.shape.length / 2
            s, t = camera_s + ahead, side * lane * LANE / 2
            x, z = street.line.at(s, t)
            add_vehicle(solids, models, car, x, z, street.line.heading(s) + (0.0 if lane > 0 else math.pi))
            shades.append((s, t, car.shape.length, car.shape.width))
        self._crossing(street, models, time, camera_s, solids, figures, shades)
        return shades

    def _walker(
        self,
        street: Street,
        models: Models,
        variant: int,
        speed: float,
        time: float,
        s: float,
        t: float,
        figures: list[Billboard],
    ) -> None:
        phase = int(time * abs(speed) * 5.2 + variant * 3) % PHASES
        x, z = street.line.at(s, t)
        texture = models.walker(variant, "back" if speed > 0 else "front", phase)
        figures.append(Billboard(x, 0.0, z, *WALKER_SIZE, texture, CLASS["Pedestrian"]))

    def _rider(
        self,
        street: Street,
        models: Models,
        variant: int,
        speed: float,
        time: float,
        s: float,
        t: float,
        solids: SurfaceList,
        figures: list[Billboard],
    ) -> None:
        phase = int(time * 8.0 + variant * 2) % PHASES
        x, z = street.line.at(s, t)
        heading = street.line.heading(s)
        figures.append(
            Billboard(
                x,
                0.0,
                z,
                *RIDER_SIZE,
                models.rider(variant, "back" if speed > 0 else "front", phase),
                CLASS["Bicyclist"],
            )
        )
        length, height = BIKE_SIZE
        forward = np.array((math.sin(heading), 0.0, math.cos(heading))) * math.copysign(length, speed)
        middle = np.array((x, height, z))
        down = (0.0, -height, 0.0)
        right_seen = models.bicycle(variant)  # the bicycle heads right for whoever sees its right flank
        for texture, along in ((right_seen, forward), (right_seen.mirrored(), -forward)):
            solids.add(middle - along / 2, along, down, texture, CLASS["Bicyclist"])

    def _crossing(
        self,
        street: Street,
        models: Models,
        time: float,
        camera_s: float,
        solids: SurfaceList,
        figures: list[Billboard],
        shades: list[tuple[float, float, float, float]],
    ) -> None:
        """People and riders crossing at the junctions ahead."""
        first = street.number(camera_s)
        for k in range(first, first + 3):
            block = street.block(k)
            if not block.junction:
                continue
            rng = np.random.default_rng([abs(k), 77])
            for i in range(3):
                span = rng.uniform(11, 15)
                speed = rng.uniform(1.1, 1.5) if i < 2 else rng.uniform(3.5, 5)
                phase = rng.uniform(0, 100)
                s = block.start + (
                    rng.choice([-1.6, block.junction + 1.6]) if i < 2 else rng.uniform(2, block.junction - 2)
                )
                reach = span if i < 2 else 45.0
                cycle = (time * speed + phase) % (4 * reach)
                t = cycle - reach if cycle < 2 * reach else 3 * reach - cycle
                rightward = cycle < 2 * reach
                if s - camera_s < 2.0:
                    continue
                x, z = street.line.at(s, t)
                shades.append((s, t, 0.6, 0.6))
                if i < 2:
                    texture = models.walker((k * 5 + i * 3) % 9, "side", int(time * speed * 5.2 + i) % PHASES)
                    figures.append(
                        Billboard(
                            x, 0.0, z, *WALKER_SIZE, texture if rightward else texture.mirrored(), CLASS["Pedestrian"]
                        )
                    )
                else:
                    texture = models.rider((k + i) % 4, "side", int(time * 8) % PHASES)
                    figures.append(
                        Billboard(
                            x,
                            0.0,
                            z,
                            *RIDER_ACROSS_SIZE,
                            texture if rightward else texture.mirrored(),
                            CLASS["Bicyclist"],
                        )
                    )
