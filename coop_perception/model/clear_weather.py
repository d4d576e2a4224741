"""Whether restoration is worth its time: in clear weather there is nothing to restore."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BEGIN, END = 0.4, 0.3
"""Restoration begins where any condition is at least this likely, and ends where all are less likely than that. Apart,
so that a presence that hovers about one of them does not switch it on and off."""


def needs_restoration(presence: NDArray[np.float32], restored_before: bool) -> bool:
    """Whether a frame is to be restored.

    Args:
        presence: float [K], each condition's probability, filtered over time (`ConditionFilter`).
        restored_before: the same camera's answer for the frame before; False where the filter has begun anew.
    """
    return bool((presence >= (END if restored_before else BEGIN)).any())
