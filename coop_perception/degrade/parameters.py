"""The degrade node's parameters, and what those that can change while frames flow must satisfy."""

from __future__ import annotations

from dataclasses import dataclass, fields

from coop_perception.degradations import CONDITIONS
from coop_perception.ros.definition import Definition, default_text

PARAMETERS: tuple[Definition, ...] = (
    Definition("cameras", ("front",), "Cameras to serve; camera `front` is read from `front/clean/image_raw`."),
    Definition(
        "image_transport",
        "raw",
        "`raw` reads `<camera>/clean/image_raw` and writes `<camera>/image_raw`; `compressed` reads and writes "
        "`/compressed` below them.",
        choices=("raw", "compressed"),
    ),
    Definition(
        "depth_image",
        False,
        "Use `<camera>/depth/image_raw`, registered to the camera, for fog and rain; otherwise depth is that of an "
        "empty, level street.",
    ),
    Definition("condition", "fog", "The adverse condition.", choices=tuple(CONDITIONS), dynamic=True),
    Definition(
        "level", 2, "1 is mild, 3 or 4 the condition's most severe; 0 leaves the image unchanged.", dynamic=True
    ),
    Definition(
        "seed",
        0,
        "Of the condition's randomness; equal seeds and stamps give equal images.",
        low=0,
        high=2**31,
        dynamic=True,
    ),
    Definition(
        "camera_height",
        1.5,
        "Height of the cameras above the street, in metres.",
        unit="m",
        low=0.1,
        high=100.0,
        dynamic=True,
    ),
)
"""`cameras`, `image_transport` and `depth_image` are read at the start; the others take effect on the next frame."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters that may change while frames flow, which have to fit together.

    Raises:
        ValueError: unknown condition, or a level that the condition does not have.
    """

    condition: str
    level: int
    seed: int
    camera_height: float

    def __post_init__(self) -> None:
        if self.condition not in CONDITIONS:
            raise ValueError(f"condition is {self.condition!r}, expected one of {', '.join(CONDITIONS)}")
        highest = len(CONDITIONS[self.condition].levels)
        if not 0 <= self.level <= highest:
            raise ValueError(
                f"level is {self.level}, expected 1 to {highest} for {self.condition}, or 0 for the unchanged image"
            )

    @property
    def needs_depth(self) -> bool:
        return self.level > 0 and CONDITIONS[self.condition].needs_depth


DYNAMIC = tuple(field.name for field in fields(Settings))


def parameters_help() -> str:
    """Each parameter with its default and meaning, for `--help`."""
    return "\n".join(f"  {p.name} (default {default_text(p)})\n    {p.description}" for p in PARAMETERS) + "\n"
