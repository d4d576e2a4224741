"""How strong a condition is, 0 to 1, from the parameter that its levels are values of.

Level k of n has strength k/n, and strength is linear in the parameter's logarithm between two levels. Weaker than the
first, it falls to 0 as far below the first as the last is above it; stronger than the last, it is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def strength_of(parameter: float, levels: Sequence[float]) -> float:
    """parameter > 0, on the scale of a condition's levels, which may rise or fall. A strength in 0..1."""
    return float(np.interp(np.log(parameter) * _sign(levels), *_nodes(levels)))


def _sign(levels: Sequence[float]) -> float:
    return float(np.sign(levels[-1] - levels[0]))  # JPEG's quality falls as it gets worse


def _nodes(levels: Sequence[float]) -> tuple[list[float], list[float]]:
    """Logarithms, rising, and the strengths there."""
    logarithms = [float(x) for x in _sign(levels) * np.log(levels)]
    count = len(levels)
    return [2 * logarithms[0] - logarithms[-1], *logarithms], [k / count for k in range(count + 1)]
