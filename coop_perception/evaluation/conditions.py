"""What is said of a frame's adverse conditions, by the networks, by a node, and by the recording that made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coop_perception.degradations import KINDS
from coop_perception.model.conditions import Conditions

CLEAR = "clear"
"""What frames are called in which nothing is present."""
APPLIED = 1.0
"""Level from which on a condition that was applied should be found; weaker ones may be found or not."""


@dataclass(frozen=True, slots=True)
class Estimated:
    """Of one frame, by condition: its own estimate, what held over time with it, and whether restoration ran, which is
    conditioned on the latter."""

    names: tuple[str, ...]
    frame: Conditions
    over_time: Conditions
    restoration_ran: bool

    def columns(self) -> dict[str, Any]:
        """As a row holds it."""
        found: dict[str, Any] = {"restoration_ran": float(self.restoration_ran)}
        for suffix, conditions in (("", self.frame), ("_filtered", self.over_time)):
            found[f"presence{suffix}"] = dict(zip(self.names, conditions.presence.tolist(), strict=True))
            found[f"strength{suffix}"] = dict(zip(self.names, conditions.strength.tolist(), strict=True))
            found[f"familiarity{suffix}"] = conditions.familiarity
        return found


def conditions_of(
    names: Sequence[str], presence: Mapping[str, float], strength: Mapping[str, float], familiarity: float
) -> Conditions:
    """From columns of a row, to the last digit."""
    return Conditions(
        np.array([presence[name] for name in names], np.float32),
        np.array([strength[name] for name in names], np.float32),
        familiarity,
    )


def of_message(message: Any) -> Estimated:
    """What a node says in a coop_perception_msgs/ImageCondition.

    Raises:
        ValueError: it does not say as much of each condition.
    """
    names = tuple(message.conditions)
    for field in ("presence", "strength", "presence_filtered", "strength_filtered"):
        if len(getattr(message, field)) != len(names):
            raise ValueError(
                f"an ImageCondition has {len(names)} conditions and {len(getattr(message, field))} values of {field}: "
                "the node is of another version"
            )
    return Estimated(
        names,
        Conditions(_array(message.presence), _array(message.strength), float(message.familiarity)),
        Conditions(
            _array(message.presence_filtered), _array(message.strength_filtered), float(message.familiarity_filtered)
        ),
        bool(message.restoration_ran),
    )


def _array(values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def by_estimated_name(levels: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """Levels of the conditions that were applied, 0 for the others; by the name under which each is estimated.

    Args:
        levels: by names of `degradations.CONDITIONS`.
        names: the bundle's conditions; what it has no name for is left out.
    """
    found = dict.fromkeys(names, 0.0)
    for applied, level in levels.items():
        name = applied if applied in found else KINDS.get(applied, applied)
        if name in found:
            found[name] = max(found[name], level)
    return found
