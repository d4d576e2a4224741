"""Which conditions a recording has when: a file says it in segments.

    unit: share                 # of the recording; without it: seconds
    segments:
      - {condition: fog, start: 0.2, end: 0.3, level: [0, 2]}           # a ramp, from level 0 (absent) to 2
      - {condition: fog, start: 0.3, end: 0.5, level: 2}
      - {condition: rain, start: 0.4, end: 1, parameter: [0.005, 0.015]}

Segments of several conditions may overlap. Outside of all segments it is clear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from coop_perception.degradations import CONDITIONS
from coop_perception.documents import read_yaml
from coop_perception.shown import shown

UNITS = ("seconds", "share")
_FIELDS = ("condition", "start", "end", "level", "parameter")


class ScheduleError(ValueError):
    """A file that is no schedule: one line with the file, the field, what it is, and what is expected."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A condition from `start` to before `end`, in the schedule's unit.

    `ramp`: at both; levels (0 is absent, others than whole ones lie between) or, with `levels` False, values of the
    condition's parameter.
    """

    condition: str
    start: float
    end: float
    ramp: tuple[float, float]
    levels: bool = True

    def parameter(self, at: float) -> float:
        """Of the condition, at a time within the segment; on a line from the one end to the other."""
        value = float(np.interp(at, (self.start, self.end), self.ramp))
        return CONDITIONS[self.condition].at(value) if self.levels else value


@dataclass(frozen=True, slots=True)
class Schedule:
    """Segments; those of one condition do not overlap. `unit` is one of UNITS."""

    segments: tuple[Segment, ...]
    unit: str = "seconds"

    @property
    def conditions(self) -> tuple[str, ...]:
        """Those that there are at any time, in order of appearance."""
        return tuple(dict.fromkeys(segment.condition for segment in sorted(self.segments, key=lambda s: s.start)))

    @property
    def needs_depth(self) -> bool:
        return any(CONDITIONS[condition].needs_depth for condition in self.conditions)

    @property
    def is_constant(self) -> bool:
        """Whether it is the same at any time."""
        return all(segment.start == 0 and math.isinf(segment.end) for segment in self.segments)

    @property
    def end(self) -> float:
        """That of the last segment."""
        return max((segment.end for segment in self.segments), default=0.0)

    def parameters(self, seconds: float, share: float) -> dict[str, float]:
        """For `degradations.degrade_by`, at a frame that is so far from the first one."""
        at = seconds if self.unit == "seconds" else share
        return {s.condition: s.parameter(at) for s in self.segments if s.start <= at < s.end}

    def levels(self, seconds: float, share: float) -> dict[str, float]:
        """The same as levels, 0 (absent) to that of the strongest."""
        return {name: CONDITIONS[name].level_of(value) for name, value in self.parameters(seconds, share).items()}


def always(levels: Mapping[str, int]) -> Schedule:
    """These conditions at these levels, throughout."""
    return Schedule(tuple(Segment(name, 0.0, math.inf, (level, level)) for name, level in levels.items()))


def read_schedule(path: Path) -> Schedule:
    """Read a schedule file, as the module's docstring shows one.

    Raises:
        DocumentError: it cannot be read as YAML.
        ScheduleError: it says something else than a schedule can.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("segments"), list):
        raise ScheduleError(f"{path}: expected 'segments:' with a list of segments, and perhaps 'unit:'")
    _refuse_unknown(str(path), "", raw, ("unit", "segments"))
    unit = raw.get("unit", UNITS[0])
    if unit not in UNITS:
        raise ScheduleError(f"{path}: unit is {shown(unit)}, expected one of {', '.join(UNITS)}")
    segments = [_segment(str(path), f"segments[{i}]", entry, unit) for i, entry in enumerate(raw["segments"])]
    for condition in CONDITIONS:
        _refuse_overlaps(str(path), [(i, s) for i, s in enumerate(segments) if s.condition == condition])
    return Schedule(tuple(segments), unit)


def _segment(path: str, name: str, raw: Any, unit: str) -> Segment:
    if not isinstance(raw, dict):
        raise ScheduleError(f"{path}: {name} is {shown(raw)}, expected {', '.join(_FIELDS[:4])}")
    _refuse_unknown(path, f"{name}.", raw, _FIELDS)
    condition = raw.get("condition")
    if not isinstance(condition, str) or condition not in CONDITIONS:
        raise ScheduleError(f"{path}: {name}.condition is {shown(condition)}, expected one of {', '.join(CONDITIONS)}")
    highest = 1.0 if unit == "share" else math.inf
    start, end = (_number(path, f"{name}.{field}", raw.get(field), unit, highest) for field in ("start", "end"))
    if not start < end:
        raise ScheduleError(f"{path}: {name}.end is {end:g}, expected more than its start, {start:g}")
    if ("level" in raw) == ("parameter" in raw):
        found = "both" if "level" in raw else "neither"
        raise ScheduleError(f"{path}: {name} has {found} of level and parameter, expected one of them")
    field = "level" if "level" in raw else "parameter"
    ramp = _ramp(path, f"{name}.{field}", raw[field], condition, field == "level")
    return Segment(condition, start, end, ramp, field == "level")


def _number(path: str, field: str, value: Any, unit: str, highest: float) -> float:
    if not _is_number(value) or not 0 <= value <= highest:
        bounds = "0..1 (share of the recording)" if unit == "share" else "0 or more (seconds)"
        raise ScheduleError(f"{path}: {field} is {shown(value)}, expected {bounds}")
    return float(value)


def _ramp(path: str, field: str, value: Any, condition: str, levels: bool) -> tuple[float, float]:
    known, ends = CONDITIONS[condition], value if isinstance(value, list) else [value, value]
    highest = len(known.levels)
    wanted = f"0..{highest} (levels of {condition})" if levels else f"{known.parameter} ({condition})"
    right = len(ends) == 2 and all(map(_is_number, ends)) and (not levels or all(0 <= end <= highest for end in ends))
    if not right:
        raise ScheduleError(
            f"{path}: {field} is {shown(value)}, expected a number or [at start, at end], each {wanted}"
        )
    if not levels:
        for end in ends:
            _try(path, field, condition, float(end))
    return float(ends[0]), float(ends[1])


def _try(path: str, field: str, condition: str, parameter: float) -> None:
    """Whether a parameter is in its domain, the condition itself knows."""
    if parameter == CONDITIONS[condition].absent:
        return
    grey, depth = np.full((16, 16, 3), 128, np.uint8), np.full((16, 16), 10, np.float32)
    try:
        CONDITIONS[condition].apply(grey, parameter, np.random.default_rng(0), depth)
    except ValueError as error:
        raise ScheduleError(f"{path}: {field} is {shown(parameter)}: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_unknown(path: str, prefix: str, raw: Mapping[Any, Any], known: Sequence[str]) -> None:
    for field in raw:
        if field not in known:
            raise ScheduleError(f"{path}: {prefix}{shown(field)} is not known; expected {', '.join(known)}")


def _refuse_overlaps(path: str, segments: list[tuple[int, Segment]]) -> None:
    for (first, before), (second, after) in pairwise(sorted(segments, key=lambda each: each[1].start)):
        if after.start < before.end:
            raise ScheduleError(
                f"{path}: segments[{second}].start is {after.start:g}, but {after.condition} lasts until "
                f"{before.end:g} by segments[{first}]; expected one segment of a condition at a time"
            )
