"""How strong a condition is, 0 to 1, from the parameter that its levels are values of, and back.

Level k of n has strength k/n, and strength is linear in the parameter's logarithm between two levels. Weaker than the
first, it falls to 0 as far below the first as the last is above it; stronger than the last, it is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def strength_of(parameter: float, levels: Sequence[float]) -> float:
    """parameter > 0, on the scale of a condition's levels, which may rise or fall. A strength in 0..1."""
    return float(np.interp(np.log(parameter) * _sign(levels), *_nodes(levels)))


def parameter_of(strength: float, levels: Sequence[float]) -> float:
    """The inverse, of a strength in 0..1."""
    logarithms, strengths = _nodes(levels)
    return float(np.exp(_sign(levels) * np.interp(strength, strengths, logarithms)))


def bends(levels: Sequence[float]) -> tuple[list[float], list[float]]:
    """Where strength bends, on the scale of the parameter's logarithm from 0 at the first level to 1 at the last, and
    by how much its slope changes there: the strength at x is the sum of turn·max(x - bend, 0).

    But beyond the last level, where it stays 1, the sum rises on with slope 0.01: what is to learn it needs one there.
    """
    logarithms, strengths = _nodes(levels)
    first, last = logarithms[1], logarithms[-1]
    places = [(logarithm - first) / (last - first) for logarithm in logarithms]
    slopes = [0.0, *(np.diff(strengths) / np.diff(places)).tolist(), 0.01]
    return places, np.diff(slopes).tolist()


def _sign(levels: Sequence[float]) -> float:
    return float(np.sign(levels[-1] - levels[0]))  # JPEG's quality falls as it gets worse


def _nodes(levels: Sequence[float]) -> tuple[list[float], list[float]]:
    """Logarithms, rising, and the strengths there."""
    logarithms = [float(x) for x in _sign(levels) * np.log(levels)]
    count = len(levels)
    return [2 * logarithms[0] - logarithms[-1], *logarithms], [k / count for k in range(count + 1)]
