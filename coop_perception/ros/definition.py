"""What a node says of one parameter, and which values it takes. Imports no ROS, for what has to start fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coop_perception.shown import shown

_MOST_CAMERAS, _LONGEST_CAMERA = 64, 100
_CAMERA = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Definition:
    """One parameter. `low` and `high` bound numbers, both included; `choices` lists what a string may be, or each of
    several.

    A dynamic parameter takes effect on the next frame; the others are read when the node is configured. One that is
    `read_only` is what it was when the node started.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False
    read_only: bool = False


def refusal(definition: Definition, value: object) -> str:
    """Why a value of the right type and range cannot be taken; empty where it can.

    Args:
        definition: of the parameter.
        value: as ROS has it: None for an empty list.
    """
    choices = definition.choices
    if choices and isinstance(definition.default, tuple):
        several: Sequence[str] = value or []  # type: ignore[assignment]
        if not several or not set(several) <= set(choices):
            return f"parameter {definition.name} is {shown(list(several))}, expected some of {', '.join(choices)}"
    elif choices and value not in choices:
        return f"parameter {definition.name} is {shown(value)}, expected one of {', '.join(choices)}"
    return _cameras_refusal(value or []) if definition.name == "cameras" else ""  # type: ignore[arg-type]


def _cameras_refusal(cameras: Sequence[str]) -> str:
    if not cameras or len(set(cameras)) != len(cameras):
        return f"parameter cameras is {shown(list(cameras))}, expected distinct names such as ['front']"
    if len(cameras) > _MOST_CAMERAS:
        return f"parameter cameras has {len(cameras)} names, expected at most {_MOST_CAMERAS}"
    for camera in cameras:
        if len(camera) > _LONGEST_CAMERA:
            return f"parameter cameras: {shown(camera)} is longer than {_LONGEST_CAMERA} characters"
        if camera.startswith(("/", "~")):
            return f"parameter cameras: {camera!r} is not relative; write {camera.strip('/~')!r}, and set a namespace"
        if not _CAMERA.fullmatch(camera):
            return (
                f"parameter cameras: {camera!r} is no topic name; expected letters, digits, underscores and single "
                "slashes, no part starting with a digit"
            )
    return ""


def constraints(definition: Definition) -> str:
    """What else there is to know: unit, range or choices, and when a change takes effect."""
    words = [f"in {definition.unit}"] if definition.unit else []
    if definition.low is not None:
        words.append(f"{definition.low:g} to {definition.high:g}")
    if definition.choices:
        words.append(
            ("some of " if isinstance(definition.default, tuple) else "one of ") + ", ".join(definition.choices)
        )
    if definition.read_only:
        words.append("set when the node starts")
    else:
        words.append("dynamic" if definition.dynamic else "read when the node is configured")
    return "; ".join(words)


def default_text(definition: Definition) -> str:
    """A parameter's default as one writes it behind `-p NAME:=` and in a parameters file."""
    value = definition.default
    if isinstance(value, tuple):
        return "[" + ", ".join(each or '""' for each in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)
