"""What is kept of each frame: one row, from which every score of a run is computed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from coop_perception.evaluation.evaluation import Found

Status = Literal["processed", "dropped", "failed"]


@dataclass(slots=True)
class Row:
    """One frame that was read. Numbers that do not exist are None: a frame without results, without a reference.

    Counts are of pixels and add up over frames: `confusion_raw` and `confusion` are confusion matrices [C, C + 1] row
    by row, `confidences` is [256, 2] (see `coop_perception.metrics`).
    """

    camera: str
    frame: int
    stamp_ns: int
    time_s: float
    status: Status
    reason: str = ""
    """Of a frame that was dropped or failed."""
    warnings: list[str] = field(default_factory=list)
    height: float | None = None
    width: float | None = None
    latency_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    presence: dict[str, float] = field(default_factory=dict)
    """Of each condition, as are strength and what was applied; see `conditions.Estimated`."""
    strength: dict[str, float] = field(default_factory=dict)
    familiarity: float | None = None
    presence_filtered: dict[str, float] = field(default_factory=dict)
    strength_filtered: dict[str, float] = field(default_factory=dict)
    familiarity_filtered: float | None = None
    restoration_ran: float | None = None
    """1 or 0."""
    applied: dict[str, float] = field(default_factory=dict)
    """The level of each condition that the recording says was applied; 0 where it was not."""
    miou_raw: float | None = None
    """Of this frame alone, over the classes that its reference holds."""
    miou: float | None = None
    psnr_degraded: float | None = None
    psnr_restored: float | None = None
    """dB; inf for an image that equals its reference."""
    ssim_degraded: float | None = None
    ssim_restored: float | None = None
    disagreement: float | None = None
    confidence: float | None = None
    flicker_raw: float | None = None
    flicker: float | None = None
    sharpness: float | None = None
    sharpness_restored: float | None = None
    contrast: float | None = None
    contrast_restored: float | None = None
    noise: float | None = None
    noise_restored: float | None = None
    confusion_raw: list[int] | None = None
    confusion: list[int] | None = None
    confidences: list[int] | None = None

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in NAMES}

    def flat(self) -> dict[str, Any]:
        """As a row of a table: what is by stage or by condition gets a column for each, `presence.fog`."""
        values: dict[str, Any] = {}
        for name, value in self.as_dict().items():
            if isinstance(value, dict):
                values |= {f"{name}.{key}": part for key, part in value.items()}
            else:
                values[name] = "\n".join(value) if name == "warnings" else value
        return values


NAMES = tuple(f.name for f in fields(Row))
_KINDS = get_type_hints(Row)
_TYPES: dict[object, set[type]] = {str: {str}, int: {int}, float: {int, float}}
"""Of a value as JSON has carried it."""
_LARGEST = 2**63


def parsed_row(values: object) -> Row:
    """The row that `Row.as_dict` gave, once JSON has carried it.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(values, dict):
        raise TypeError("no mapping")
    for name, value in values.items():
        if not _fits(value, _KINDS.get(name)):
            raise TypeError(name)
    return Row(**values)


def _fits(value: object, kind: Any) -> bool:
    """Whether it is of a kind: a type, a choice of words, a list or a mapping of one type, or one of these or None."""
    if get_origin(kind) is UnionType:
        return value is None or _fits(value, get_args(kind)[0])
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    inner = get_args(kind)[-1] if get_args(kind) else kind
    if get_origin(kind) is list:
        held = value if isinstance(value, list) else [None]
    elif get_origin(kind) is dict:
        held = list(value.values()) if isinstance(value, dict) else [None]
    else:
        held = [value]
    whole = {type(each) for each in held} <= _TYPES.get(inner, set())
    return whole and all(-_LARGEST <= each < _LARGEST for each in held if type(each) is int)


COUNTS = ("confusion_raw", "confusion", "confidences")
TEXTS = ("camera", "status", "reason", "warnings")
WHOLE = ("frame", "stamp_ns")
BY_KEY = ("stages_ms", "presence", "strength", "presence_filtered", "strength_filtered", "applied")
NUMBERS = tuple(name for name in NAMES if name not in (*COUNTS, *TEXTS, *WHOLE, *BY_KEY))


def row_of(camera: str, found: Found, status: Status, reason: str = "") -> Row:
    return Row(camera, found.index, found.stamp_ns, found.time_s, status, reason)
