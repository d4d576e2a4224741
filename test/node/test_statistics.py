"""Counts, rates and percentiles against a clock that the test sets."""

from __future__ import annotations

import math

import pytest

from coop_perception.metrics import percentiles
from coop_perception.node.statistics import WINDOW_S, CameraStatistics


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_window_slides_and_counts_stay() -> None:
    clock = Clock()
    statistics = CameraStatistics(clock)
    for index in range(40):
        clock.now = 100.0 + 0.5 * index
        statistics.received()
        if index % 2:
            statistics.processed(float(index), {"segmenter": index / 2}, index % 4 == 1, ("fog",))
        else:
            statistics.dropped("superseded")
    summary = statistics.summary()
    assert (summary.received, summary.processed, dict(summary.dropped)) == (40, 20, {"superseded": 20})
    assert (summary.clear, summary.present) == (10, ("fog",))
    # The window holds the arrivals of the last 10 s: 109.5, 110.0, ... 119.5.
    assert summary.input_rate == pytest.approx(21 / WINDOW_S)
    assert summary.output_rate == pytest.approx(11 / WINDOW_S)
    kept = [float(index) for index in range(19, 40, 2)]
    assert summary.latency_ms == pytest.approx(percentiles(kept))
    assert summary.stages_ms == {"segmenter": pytest.approx(29 / 2)}


def test_rates_of_a_young_camera_are_over_its_life() -> None:
    clock = Clock()
    statistics = CameraStatistics(clock)
    clock.now += 2.0
    statistics.received()
    assert statistics.summary().input_rate == pytest.approx(0.5)


def test_an_empty_window_has_no_numbers() -> None:
    clock = Clock()
    statistics = CameraStatistics(clock)
    statistics.received()
    clock.now += WINDOW_S + 1
    summary = statistics.summary()
    assert math.isnan(summary.input_rate)
    assert math.isnan(summary.output_rate)
    assert all(map(math.isnan, summary.latency_ms))
    assert summary.received == 1
