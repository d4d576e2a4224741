"""benchmarks/weather.py: what is counted of a drive's weather."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import weather as benchmark

from coop_perception.model.conditions import Conditions


@pytest.mark.parametrize(
    ("presence", "name"), [([0.2, 0.4], "clear"), ([0.6, 0.5], "fog"), ([0.6, 0.9], "rain"), ([0.5, 0.1], "fog")]
)
def test_the_most_present_condition_is_the_name(presence: list[float], name: str) -> None:
    conditions = Conditions(np.array(presence, np.float32), np.zeros(2, np.float32), 1.0)
    assert benchmark.name(("fog", "rain"), conditions) == name


def test_frames_count_from_a_second_after_a_change() -> None:
    a_second = int(benchmark.RATE)
    weathers = ["clear"] * (a_second + 2) + ["fog"] * a_second + ["rain"] * (a_second + 1)
    assert benchmark.settled_frames(weathers) == [a_second, a_second + 1, len(weathers) - 1]
    assert benchmark.changes(weathers) == 2
    assert benchmark.changes(["clear", "fog", "clear", "clear"]) == 2
