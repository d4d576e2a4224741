"""Confidence intervals of scores over frames that resemble their neighbours.

Frames of a drive are correlated, so they are resampled in blocks of consecutive frames (Carlstein, "The Use of
Subseries Values for Estimating the Variance of a General Statistic", Annals of Statistics 1986). Few long blocks are
worth more than many short ones: neighbours are then nearly independent (Schmeiser, "Batch Size Effects in the Analysis
of Simulation Output", Operations Research 1982), and their small number is made up for as that of small samples is
(Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Sums: TypeAlias = NDArray[np.float64]
Value: TypeAlias = Callable[[Sums], Sums]
"""From sums over frames [..., d] to the score [...]; NaN where nothing was scored."""

LEVEL = 0.95
BLOCKS = 12
FEWEST = 2 * BLOCKS
"""Frames; with fewer an interval would say more about the method than about the drive."""
_MOST_SHARED = 0.5
"""Of a block's variance, what may be due to its neighbours."""
_RESAMPLES = 4000
_STEP = 1e-6
_AT_ONCE = 1000
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and where it lies with a probability of LEVEL; low and high are None where too few frames differ."""

    value: float
    low: float | None
    high: float | None

    @property
    def known(self) -> bool:
        return self.low is not None


def interval(series: Sequence[Sums], value: Value) -> Interval | None:
    """The interval of a score of frames in several series (a recording's each), in order.

    Args:
        series: [n, d] each: what a frame adds to the sums that the score is computed from. Rows of zeros were not
            scored. Of BLOCKS series or more each one is a block.
        value: the score of such sums; smooth, as ratios and means are.

    Returns:
        None where nothing was scored. The same arguments give the same interval.
    """
    series = [one for one in (one[np.any(one != 0, axis=1)] for one in series) if len(one)]
    if not series:
        return None
    total = np.sum([one.sum(axis=0) for one in series], axis=0)
    score = float(value(total))
    if not math.isfinite(score):
        return None
    frames = sum(map(len, series))
    if len(series) >= BLOCKS:  # recordings know nothing of each other
        parts, shared = np.stack([one.sum(axis=0) for one in series]), 0.0
    elif frames < FEWEST:
        return Interval(score, None, None)
    else:
        parts = np.concatenate([_blocks(one, frames / BLOCKS) for one in series])
        shared = _reach([_influence(one, total, value) for one in series]) * len(parts) / frames
    if shared > _MOST_SHARED:
        return Interval(score, None, None)
    drawn = np.random.default_rng(0).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), _RESAMPLES)
    low, high = np.nanquantile(value(drawn @ parts), _expanded(len(parts), shared))
    return Interval(score, float(low), float(high))


def _influence(series: Sums, total: Sums, value: Value) -> Sums:
    """How much each frame moves the score, [n]: the derivative by its weight. Some frames at a time, as it takes
    several copies of what they add."""
    score = value(total)
    moved = [value(total + _STEP * series[first : first + _AT_ONCE]) for first in range(0, len(series), _AT_ONCE)]
    return np.asarray((np.concatenate(moved) - score) / _STEP, np.float64)


def _reach(influences: Sequence[Sums]) -> float:
    """The share of a block's variance that is due to its neighbours, times the block's length: of a first-order
    autoregressive process with the frames' correlation from one to the next."""
    mean = np.concatenate(influences).mean()
    centred = [one - mean for one in influences]
    frames = sum(map(len, centred))
    variance = sum(float(one @ one) for one in centred)
    if variance < 1e-24:
        return 0.0
    phi = sum(float(one[1:] @ one[:-1]) for one in centred) / variance
    phi = min(max(0.0, phi + (1 + 3 * phi) / frames), 0.999)  # its own bias (Kendall, 1954)
    return 2 * phi / (1 - phi**2)


def _blocks(series: Sums, length: float) -> Sums:
    """Sums of consecutive frames, in equal blocks of about that length."""
    starts = np.linspace(0, len(series), max(1, round(len(series) / length)), endpoint=False).astype(int)
    return np.asarray(np.add.reduceat(series, starts, axis=0), np.float64)


def _expanded(blocks: int, shared: float) -> tuple[float, float]:
    """The quantiles of an interval: wider for few blocks, as Student's t is, and for what neighbours share."""
    freedom = blocks - 1
    z = _NORMAL.inv_cdf((1 + LEVEL) / 2)
    # Student's quantile by the normal one's (Cornish and Fisher); within 0.002 from 7 degrees of freedom on.
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    # Of blocks that share something, the sample's variance falls short a little more than each block's does.
    tail = _NORMAL.cdf(-t * math.sqrt(blocks / freedom / max(1e-3, 1 - shared * blocks / freedom)))
    return tail, 1 - tail
