"""The perception node's parameters: each one's name, default, range, unit and meaning stand here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from coop_perception.engines.backends import AUTO, BACKENDS, PRECISIONS

_CAMERA = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Definition:
    """One parameter. `low` and `high` bound numbers, both included; `choices` lists what a string may be.

    A dynamic parameter takes effect on the next frame; the others are read when the node is configured.
    """

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    dynamic: bool = False


PARAMETERS: tuple[Definition, ...] = (
    Definition("cameras", ("front",), "Cameras to serve; camera `front` is read from `front/image_raw`."),
    Definition("bundle", "", "Directory of the model bundle; empty: the one that is installed with the package."),
    Definition(
        "image_transport",
        "raw",
        "Which image topic to read: `raw` is `<camera>/image_raw`, `compressed` is `<camera>/image_raw/compressed`.",
        choices=("raw", "compressed"),
    ),
    Definition(
        "backend",
        AUTO,
        "What runs the networks; `auto`: TensorRT where it works, else the faster of OpenVINO and ONNX Runtime.",
        choices=(AUTO, *BACKENDS),
    ),
    Definition(
        "precision",
        AUTO,
        "Of the networks' arithmetic; `auto`: the backend's first: "
        + "; ".join(f"{backend} {', '.join(precisions)}" for backend, precisions in BACKENDS.items())
        + ".",
        choices=(AUTO, *PRECISIONS),
    ),
    Definition(
        "engine_cache",
        "",
        "Directory of what is built or measured once per machine; empty: `$COOP_PERCEPTION_CACHE`, else "
        "`~/.cache/coop_perception`.",
    ),
    Definition(
        "fused",
        True,
        "Whether the networks run as one graph when all three are wanted; otherwise each by itself, with its own time "
        "in `~/status`.",
    ),
    Definition("threads", 0, "CPU threads of the networks; 0: one per core.", low=0, high=256),
    Definition("refinement", True, "Whether the refinement stage is on.", dynamic=True),
    Definition("restoration", True, "Whether the restoration stage is on.", dynamic=True),
    Definition(
        "batch_window_ms",
        0.0,
        "How long a frame waits for the other cameras' to be processed in one batch with it; 0: not at all, whatever "
        "waits is one batch.",
        unit="ms",
        low=0.0,
        high=1000.0,
        dynamic=True,
    ),
    Definition(
        "max_age",
        0.0,
        "Frames whose stamp is older than this by the node's clock when their turn comes are dropped; 0: none is.",
        unit="s",
        low=0.0,
        high=3600.0,
        dynamic=True,
    ),
    Definition("overlay_opacity", 0.5, "Share of the class colours in the overlay.", low=0.0, high=1.0, dynamic=True),
    Definition("jpeg_quality", 90, "Quality of `image_restored/compressed`.", low=1, high=100, dynamic=True),
    Definition("status_period", 1.0, "Time between two messages on `~/status`.", unit="s", low=0.05, high=60.0),
)


def refusal(definition: Definition, value: object) -> str:
    """Why a value of the right type and range cannot be taken; empty where it can.

    Args:
        definition: of the parameter.
        value: as ROS has it: None for an empty list.
    """
    if definition.choices and value not in definition.choices:
        return f"parameter {definition.name} is {value!r}, expected one of {', '.join(definition.choices)}"
    return _cameras_refusal(value or []) if definition.name == "cameras" else ""  # type: ignore[arg-type]


def _cameras_refusal(cameras: Sequence[str]) -> str:
    if not cameras or len(set(cameras)) != len(cameras):
        return f"parameter cameras is {list(cameras)}, expected distinct names such as ['front']"
    for camera in cameras:
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
        words.append("one of " + ", ".join(definition.choices))
    words.append("dynamic" if definition.dynamic else "read when the node is configured")
    return "; ".join(words)


def parameters_yaml() -> str:
    """A parameters file with every default and, above it, what it means: `config/pipeline.yaml` is this text."""
    lines = [
        "# The perception node's parameters: defaults and meaning. Made from coop_perception/parameters.py.",
        "/**:",
    ]
    lines.append("  ros__parameters:")
    for p in PARAMETERS:
        lines += [f"    # {p.description}", f"    # ({constraints(p)})", f"    {p.name}: {_yaml(p.default)}"]
    return "\n".join(lines) + "\n"


def parameters_table() -> str:
    """The same as a Markdown table, as the README has it."""
    lines = ["| parameter | default | unit | range | dynamic | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for p in PARAMETERS:
        limits = ", ".join(p.choices) if p.low is None else f"{p.low:g} to {p.high:g}"
        dynamic = "yes" if p.dynamic else ""
        lines.append(f"| `{p.name}` | `{_yaml(p.default)}` | {p.unit} | {limits} | {dynamic} | {p.description} |")
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return '""' if value == "" else str(value)
