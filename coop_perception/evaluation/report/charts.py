"""Curves over a drive as SVG coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import numpy as np

from coop_perception.evaluation.report.frames import FrameScore
from coop_perception.metrics import PSNR_CAP, percentiles

WIDTH, HEIGHT = 1000, 190
"""Of the drawing, in SVG units."""
LEFT, TOP, RIGHT, BOTTOM = 48, 10, WIDTH - 30, HEIGHT - 26
"""Of the plot's area in it; right of it half of the last label has room."""


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
    lost: tuple[int, ...]
    """Where frames were lost."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Something over the drive that is more or less there: `cells` as (x, width, opacity), `marks` as (x, width) where
    the recording says that it is there."""

    name: str
    cells: tuple[tuple[float, float, float], ...]
    marks: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a histogram."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many frames took how long, with p50, p95 and p99."""

    bins: tuple[Bin, ...]
    marks: tuple[Tick, ...]
    ticks: tuple[Tick, ...]


_BINS = 60
_CELLS = 238
"""Of a strip at most: an hour's is then no larger than a minute's."""
_SHADES = 10


def histogram(latencies: Sequence[float]) -> Histogram | None:
    """Of times in ms; None without any."""
    if not latencies:
        return None
    low, high = min(latencies), max(latencies)
    levels = _round_levels(low, max(high, low * 1.01 + 0.1), 8)
    begin, end = levels[0], levels[-1]

    def x(value: float) -> float:
        return round(LEFT + (value - begin) / (end - begin) * (RIGHT - LEFT), 1)

    counts, edges = np.histogram(latencies, _BINS, (begin, end))
    scale = (BOTTOM - TOP) / counts.max()
    bins = tuple(
        Bin(x(left), round(BOTTOM - count * scale, 1), round(x(right) - x(left) - 0.5, 1), round(count * scale, 1))
        for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False)
        if count
    )
    marks = zip(("p50", "p95", "p99"), percentiles(list(latencies)), strict=True)
    return Histogram(
        bins,
        tuple(Tick(x(value), f"{name} {value:.1f} ms") for name, value in marks),
        tuple(Tick(x(level), f"{level:g}") for level in levels),
    )


def strips(series: Sequence[FrameScore]) -> list[Strip]:
    """How likely each condition is there, when it was applied, and which frames were restored, on the timelines' axis.
    Mean values of the frames of a cell."""
    ordered = sorted(series, key=lambda score: score.time_s)
    names = dict.fromkeys(name for score in ordered for name in score.presence)
    if not names:
        return []
    count = min(_CELLS, len(ordered))
    begin, end = ordered[0].time_s, max(ordered[-1].time_s, ordered[0].time_s + 1e-3)
    cells = np.array([min(int((score.time_s - begin) / (end - begin) * count), count - 1) for score in ordered])

    def means(values: Sequence[float | None]) -> list[float | None]:
        """By cell; one that no frame falls into is as the one before, one whose frames have no value has none."""
        numbers = np.array([np.nan if value is None else value for value in values])
        there = ~np.isnan(numbers)
        frames, known = np.bincount(cells, minlength=count), np.bincount(cells[there], minlength=count)
        sums = np.bincount(cells[there], numbers[there], count)
        found: list[float | None] = []
        for index in range(count):
            empty = None if not found else found[-1]
            found.append(empty if not frames[index] else float(sums[index] / known[index]) if known[index] else None)
        return found

    def of(name: str, values: Sequence[float | None], told: Sequence[float | None]) -> Strip:
        shades = [None if mean is None else round(mean * _SHADES) / _SHADES for mean in means(values)]
        levels = [mean is not None and mean > 0 for mean in means(told)]
        return Strip(
            name,
            tuple((x, width, shade) for x, width, shade in _spans(shades) if shade),
            tuple((x, width) for x, width, level in _spans(levels) if level),
        )

    found = [
        of(name, [s.presence.get(name) for s in ordered], [s.applied.get(name) for s in ordered]) for name in names
    ]
    restored = [float(score.restored) if score.presence else None for score in ordered]
    return [*found, of("restoration ran", restored, [None] * len(ordered))]


V = TypeVar("V")


def _spans(values: Sequence[V]) -> Iterator[tuple[float, float, V]]:
    """Where equal values of neighbouring cells begin, how wide they are, and the value."""
    wide, at = (RIGHT - LEFT) / len(values), 0
    for value, run in groupby(values):
        length = len(list(run))
        yield round(LEFT + at * wide, 1), round(length * wide, 1), value
        at += length


def timelines(series: Sequence[FrameScore]) -> list[Timeline]:
    """mIoU, PSNR and latency over the drive, without charts and curves that have no value."""
    ordered = sorted(series, key=lambda score: score.time_s)
    times = [score.time_s for score in ordered]
    lost = [score.time_s for score in ordered if score.lost]
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
            "Pixels whose class flickers, and on which raw and refined mask differ, %",
            times,
            [
                ("raw flickers", "before", [_scaled(score.flicker_raw, 100) for score in ordered]),
                ("refined flickers", "after", [_scaled(score.flicker, 100) for score in ordered]),
                ("masks differ", "time", [_scaled(score.disagreement, 100) for score in ordered]),
            ],
            from_zero=True,
        ),
        _timeline(
            "Familiarity: how far restoration is to be trusted with a frame, %",
            times,
            [("familiarity", "time", [_scaled(score.familiarity, 100) for score in ordered])],
            from_zero=True,
        ),
        _timeline(
            "Latency per frame, ms",
            times,
            [("latency", "time", [_scaled(score.latency_ms, 1) for score in ordered])],
            from_zero=True,
        ),
    )
    marks = _places(times, lost)
    return [replace(chart, lost=marks) for chart in charts if chart is not None]


def _places(times: Sequence[float], of: Sequence[float]) -> tuple[int, ...]:
    if not times:
        return ()
    begin, end = times[0], max(times[-1], times[0] + 1e-3)
    return tuple(dict.fromkeys(round(LEFT + (time - begin) / (end - begin) * (RIGHT - LEFT)) for time in of))


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
        (),
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
