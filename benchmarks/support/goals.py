"""A benchmark's figures beside their goals: a table, and a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coop_perception.engines.cpu import cpu_name


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two things that were measured in one run. `at_most`: the goal is an upper bound. None: no goal set."""

    what: str
    figure: float
    goal: float | None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.figure <= self.goal if self.at_most else self.figure >= self.goal


def report(name: str, goals: Sequence[Goal], measured: Mapping[str, object]) -> None:
    """Write out/bench/<name>.json and print the table."""
    rows = [{**asdict(goal), "figure": round(goal.figure, 3), "met": goal.met} for goal in goals]
    result = {"cpu": cpu_name(), "cores": len(os.sched_getaffinity(0)), "goals": rows, **measured}
    out = Path("out/bench") / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    table = Table("", "figure", "goal", "met", title=f"{name}: {out}")
    for goal in goals:
        bound = "" if goal.goal is None else f"at {'most' if goal.at_most else 'least'} {goal.goal:g}"
        met = {None: "", True: "yes", False: "no"}[goal.met]
        table.add_row(goal.what, f"{goal.figure:.2f}", bound, met)
    Console().print(table)
