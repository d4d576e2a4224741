"""Which adverse conditions a frame shows, as the networks estimate them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PRESENT = 0.5
"""A condition is said to be there where its presence is at least this."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one frame, or over time.

    presence float32 [K], the probability of each condition, independent of the others'; strength float32 [K], how
    strong it then is, 0..1; familiarity 0..1, how far restoration is to be trusted with the frame.
    """

    presence: NDArray[np.float32]
    strength: NDArray[np.float32]
    familiarity: float


def present(names: Sequence[str], conditions: Conditions) -> tuple[str, ...]:
    """Those of the bundle's conditions, by name, that are there."""
    return tuple(name for name, probability in zip(names, conditions.presence, strict=True) if probability >= PRESENT)
