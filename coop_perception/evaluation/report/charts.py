"""Curves over a drive as SVG coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from coop_perception.evaluation.report.frames import FrameScore
from coop_perception.metrics import PSNR_CAP

WIDTH, HEIGHT = 1000, 190
"""Of the drawing, in SVG units."""
LEFT, TOP, RIGHT, BOTTOM = 48, 10, WIDTH - 12, HEIGHT - 26
"""Of the plot's area in it."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity: `pieces` are the points of its polylines, broken where frames have no value."""

    label: str
    role: str
    """What its colour says: before (the networks), after, or time."""
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """A chart over time in seconds."""

    title: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def timelines(series: Sequence[FrameScore]) -> list[Timeline]:
    """mIoU, PSNR and latency over the drive, without charts and curves that have no value."""
    ordered = sorted(series, key=lambda score: score.time_s)
    times = [score.time_s for score in ordered]
    charts = (
        _timeline(
            "mIoU per frame, %",
            times,
            [
                ("raw", "before", [_scaled(score.miou_raw, 100) for score in ordered]),
                ("refined", "after", [_scaled(score.miou, 100) for score in ordered]),
            ],
        ),
        _timeline(
            "PSNR per frame, dB",
            times,
            [
                ("degraded", "before", [_capped(score.psnr_degraded) for score in ordered]),
                ("restored", "after", [_capped(score.psnr_restored) for score in ordered]),
            ],
        ),
        _timeline(
            "Latency per frame, ms",
            times,
            [("latency", "time", [_scaled(score.latency_ms, 1) for score in ordered])],
            from_zero=True,
        ),
    )
    return [chart for chart in charts if chart is not None]


def _timeline(
    title: str,
    times: Sequence[float],
    quantities: Sequence[tuple[str, str, Sequence[float | None]]],
    from_zero: bool = False,
) -> Timeline | None:
    values = [value for _, _, column in quantities for value in column if value is not None]
    if not values:
        return None
    begin, end = times[0], max(times[-1], times[0] + 1e-3)
    high = max(values)
    # At least one unit from bottom to top: a closer look would make hills of rounding.
    low = 0.0 if from_zero else min(min(values), max(high - 1, 0.0))
    levels = _round_levels(low, max(high, low + 1), 4)
    bottom, top = levels[0], levels[-1]

    def x(time: float) -> float:
        return LEFT + (time - begin) / (end - begin) * (RIGHT - LEFT)

    def y(value: float) -> float:
        return round(BOTTOM - (value - bottom) / (top - bottom) * (BOTTOM - TOP), 1)

    curves = []
    for label, role, column in quantities:
        places = [(x(t), None if value is None else y(value)) for t, value in zip(times, column, strict=True)]
        pieces = tuple(_pieces(places))
        if pieces:
            curves.append(Curve(label, role, pieces))
    seconds = [level for level in _round_levels(begin, end, 10) if begin <= level <= end]
    return Timeline(
        title,
        tuple(curves),
        tuple(Tick(round(x(level), 1), f"{level:g}") for level in seconds),
        tuple(Tick(y(level), f"{level:g}") for level in levels),
    )


def _pieces(places: Sequence[tuple[float, float | None]]) -> Iterator[str]:
    """Polylines of the places that have a y. Of the frames that share a column, the extremes are drawn: an hour's
    recording then weighs no more than a minute's, and no peak is lost."""
    column = 0
    for present, run in groupby(places, key=lambda place: place[1] is not None):
        if not present:
            continue
        points = []
        for column, frames in groupby(run, key=lambda place: round(place[0])):
            heights = [height for _, height in frames if height is not None]
            points += [(column, height) for height in dict.fromkeys((min(heights), max(heights)))]
        if len(points) == 1:
            points *= 2  # a line from a point to itself is drawn as a dot
        yield " ".join(f"{column},{height:g}" for column, height in points)


def _round_levels(low: float, high: float, count: int) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten, from at or below low to at or above high."""
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if rough <= factor * magnitude * (1 + 1e-9))
    return [round(index * step, 9) for index in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _scaled(value: float | None, factor: float) -> float | None:
    return value * factor if value is not None and math.isfinite(value) else None


def _capped(psnr: float | None) -> float | None:
    """An image that equals its reference is drawn at the value that it has in means."""
    return None if psnr is None or math.isnan(psnr) else min(psnr, PSNR_CAP)
