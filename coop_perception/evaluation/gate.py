"""What a release must keep to: `--fail-if "miou < 0.55"`, `"psnr_gain.fog < 5"`, `"miou.drop > 0.01 significant"`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coop_perception.evaluation.measures import CLASS_MEASURES, CONDITION_MEASURES, NAMES, SHARES, TIMES
from coop_perception.shown import shown

_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_EXPRESSION = re.compile(
    r"\s*(?P<metric>[a-zA-Z]\w*)(?:\.(?P<segment>[^<>=]*?))?\s*(?P<operator><=|>=|<|>)\s*"
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?P<significant>\s+significant)?\s*"
)
_LONGEST = 200
CHANGES = ("drop", "rise")
"""Of a comparison: by how much a metric of the second run is below that of the first, or above it."""
SEGMENTS = ("camera", "condition", "class", "estimate")
"""Of an estimate: the condition that it is of."""


class GateSyntaxError(ValueError):
    """An expression that says nothing that can be held against results."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition under which results fail. `change` is one of CHANGES, or empty; with `significant` it must hold in
    the whole confidence interval."""

    metric: str
    segment: str
    change: str
    operator: str
    number: float
    significant: bool

    def __str__(self) -> str:
        name = ".".join(filter(None, (self.metric, self.segment, self.change)))
        return f"{name} {self.operator} {self.number:g}{' significant' * self.significant}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a gate: whether the results fail by it, and in words why or why not."""

    gate: Gate
    failed: bool
    reason: str


def parse(text: str, comparing: bool = False) -> Gate:
    """`metric[.segment] op number [significant]`; of a comparison `metric[.segment].drop` or `.rise`.

    Raises:
        GateSyntaxError: it is none; the message says what was expected.
    """
    form = f"metric[.segment]{'.drop or .rise' if comparing else ''} < number, optionally with `significant` behind it"
    match = _EXPRESSION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise GateSyntaxError(f"{shown(text)} is no condition; expected {form} (or with <=, >, >=)")
    metric, segment, change = match["metric"], (match["segment"] or "").strip(), ""
    if match["segment"] is not None and not segment:
        raise GateSyntaxError(f"{shown(text)} names no segment behind the dot; expected {form}")
    if comparing:
        segment, _, change = segment.rpartition(".")
        if change not in CHANGES:
            raise GateSyntaxError(f"{shown(text)} does not say which way it changes; expected {form}")
    if metric not in NAMES:
        raise GateSyntaxError(f"{shown(text)}: there is no metric {shown(metric)}; there are {', '.join(NAMES)}")
    if metric in CLASS_MEASURES and not segment:
        raise GateSyntaxError(f"{shown(text)}: {metric} is of one class; expected {metric}.CLASS")
    if metric in CONDITION_MEASURES and not segment:
        raise GateSyntaxError(f"{shown(text)}: {metric} is of one condition; expected {metric}.CONDITION")
    plain_number = metric in (*TIMES, *SHARES)
    if plain_number and (segment or match["significant"]):
        raise GateSyntaxError(f"{shown(text)}: {metric} is of the whole run, and has no interval to be significant by")
    number = float(match["number"])
    if not math.isfinite(number):
        raise GateSyntaxError(f"{shown(text)}: {match['number']} is no finite number")
    return Gate(metric, segment, change, match["operator"], number, bool(match["significant"]))


def judge(gate: Gate, measures: Mapping[str, Any]) -> Verdict:
    """Hold a gate against scores as summary.json has them under `measures`, or a comparison's differences. What has no
    score fails: a gate must not pass for want of frames."""
    name = ".".join(filter(None, (gate.metric, gate.segment)))
    score = _score(gate, measures)
    if score is None or score["value"] is None:
        return Verdict(gate, True, f"{name} has no value here: {_without(gate, measures)}")
    sign = -1 if gate.change == "drop" else 1
    value = sign * float(score["value"]) + 0.0  # of -0 makes 0
    low, high = (None if score[key] is None else sign * float(score[key]) + 0.0 for key in ("low", "high"))
    words = f"{name}{gate.change and '.' + gate.change} is {value:.4g}"
    if low is not None and high is not None:
        low, high = sorted((low, high))
        words += f", 95 % interval {low:.4g} to {high:.4g}"
    holds = _OPERATORS[gate.operator]
    if not gate.significant:
        return Verdict(gate, holds(value, gate.number), words)
    if low is None or high is None:
        return Verdict(gate, True, f"{words}, without an interval: too few frames to say what is significant")
    return Verdict(gate, holds(low, gate.number) and holds(high, gate.number), words)


def _score(gate: Gate, measures: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not gate.segment:
        found = measures["all"].get(gate.metric)
    else:
        parts = [measures.get(kind, {}).get(gate.segment) for kind in SEGMENTS]
        found = next((part[gate.metric] for part in parts if part and gate.metric in part), None)
    return found if isinstance(found, Mapping) else None


def _without(gate: Gate, measures: Mapping[str, Any]) -> str:
    there = list(dict.fromkeys(name for kind in SEGMENTS for name in measures.get(kind, {})))
    if gate.segment and gate.segment not in there:
        return f"no frame is of {gate.segment!r}; there are {', '.join(there) or 'no segments'}"
    return "nothing was scored by it; are there references?"


def failures(verdicts: Sequence[Verdict]) -> list[str]:
    return [f"{verdict.gate}: {verdict.reason}" for verdict in verdicts if verdict.failed]
