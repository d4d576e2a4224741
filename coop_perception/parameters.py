"""The perception node's parameters: each one's name, default, range and meaning stand here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Definition:
    """One parameter. `low` and `high` bound numbers, both included; `choices` lists what a string may be."""

    name: str
    default: bool | int | float | str | tuple[str, ...]
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


PARAMETERS: tuple[Definition, ...] = (
    Definition("cameras", ("front",), "Cameras to serve; camera `front` is read from `front/image_raw`."),
    Definition("bundle", "", "Directory of the model bundle; empty: the one that is installed with the package."),
    Definition(
        "image_transport",
        "raw",
        "Which image topic to read: `raw` is `<camera>/image_raw`, `compressed` is `<camera>/image_raw/compressed`.",
        choices=("raw", "compressed"),
    ),
    Definition("threads", 0, "CPU threads of the networks; 0: one per core.", low=0, high=256),
    Definition("overlay_opacity", 0.5, "Share of the class colours in the overlay.", low=0.0, high=1.0),
    Definition("status_period", 1.0, "Time between two status messages, in seconds.", low=0.05, high=60.0),
)
"""All read when the node is configured; the node refuses to change them until it is cleaned up."""


def parameters_yaml() -> str:
    """A parameters file with every default and, above it, what it means: `config/pipeline.yaml` is this text."""
    lines = [
        "# The perception node's parameters: defaults and meaning. Made from coop_perception/parameters.py.",
        "/**:",
    ]
    lines.append("  ros__parameters:")
    for p in PARAMETERS:
        lines += [f"    # {p.description}{_limits(p)}", f"    {p.name}: {_yaml(p.default)}"]
    return "\n".join(lines) + "\n"


def parameters_table() -> str:
    """The same as a Markdown table, as the README has it."""
    lines = ["| parameter | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{p.name}` | `{_yaml(p.default)}` | {p.description}{_limits(p)} |" for p in PARAMETERS]
    return "\n".join(lines) + "\n"


def _limits(definition: Definition) -> str:
    if definition.low is None:
        return ""
    return f" {definition.low:g} to {definition.high:g}."


def _yaml(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(value) + "]"
    return '""' if value == "" else str(value)
