"""What is said of a frame's adverse conditions: the one place where the networks' and the node's ways of saying it are
known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coop_perception.model.pipeline import Result

CLEAR = "clear"
PRESENT = 0.5
"""Presence from which on a condition counts as there."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """By condition, without `clear`: the probability that it is there, and how strong it is, both 0..1. Several may be
    there at once. `familiarity`, 0..1, how much the frame resembles what the estimate knows; None: not estimated."""

    presence: Mapping[str, float]
    strength: Mapping[str, float]
    familiarity: float | None = None


def of_result(result: Result, names: Sequence[str]) -> Conditions | None:
    """What the networks say; None where they were not asked. `names`: the bundle's conditions."""
    if result.condition is None:
        return None
    return exclusive(dict(zip(names, map(float, result.condition), strict=True)), result.strength or 0.0)


def of_message(message: Any) -> Conditions:
    """What a node says in a coop_perception_msgs/ImageCondition."""
    return exclusive(dict(zip(message.conditions, message.probabilities, strict=False)), float(message.strength))


def exclusive(probabilities: Mapping[str, float], strength: float) -> Conditions:
    """From probabilities of `clear` and of each condition, of which one is taken to be there, and its strength."""
    presence = {name: value for name, value in probabilities.items() if name != CLEAR}
    most_likely = max(probabilities, key=lambda name: probabilities[name], default=CLEAR)
    return Conditions(presence, {name: strength if name == most_likely else 0.0 for name in presence})


def there(presence: Mapping[str, float]) -> list[str]:
    """The conditions that count as there, or `clear` alone."""
    return [name for name, value in presence.items() if value >= PRESENT] or [CLEAR]
