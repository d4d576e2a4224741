"""What benchmarks/soak.py takes for a failure."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

GOOD = {
    "cameras": {"left": {"unaccounted": 0}, "right": {"unaccounted": 0}},
    "memory_slope_mb_per_minute": 0.99,
    "threads": [23, 23],
    "files": [23, 22],
    "exit_status": 0,
}


@pytest.mark.parametrize(
    ("changes", "failures"),
    [
        ({}, []),
        ({"memory_slope_mb_per_minute": None}, []),  # too short a run
        ({"memory_slope_mb_per_minute": 1.0}, ["memory grows by 1.0 MB a minute"]),
        ({"threads": [23, 24]}, ["24 threads, 23 after warm-up"]),
        ({"files": [23, 24]}, ["24 files, 23 after warm-up"]),
        ({"exit_status": -9}, ["exit status -9"]),
        ({"cameras": {"left": {"unaccounted": 2}, "right": {"unaccounted": 1}}}, ["3 frames unaccounted for"]),
    ],
)
def test_what_the_node_did_not_stand_up_to(
    changes: dict[str, Any], failures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soak(monkeypatch).failed({**GOOD, **changes}) == failures


@pytest.mark.parametrize(
    ("counts", "ends"),
    [([28] * 11 + [29], [28, 28]), ([28, 28, 28, 29, 29, 30, 30, 31, 31], [28, 31]), ([5], [5, 5])],
)
def test_one_reading_is_no_growth(counts: list[int], ends: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert soak(monkeypatch).first_and_last(counts) == ends


def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    return importlib.import_module("soak")
