"""What a report shows of single frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Sample:
    """One frame of a recording with what the system made of it; None where there is no such picture.

    image, restored, reference_image uint8 [H,W,3] RGB; mask_raw, mask, reference_mask uint8 [H,W] class ids.
    """

    title: str
    """Which frame it is, e.g. "frame 37, 2.47 s"."""
    image: NDArray[np.uint8]
    """As the system got it."""
    mask_raw: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None
    restored: NDArray[np.uint8] | None
    reference_image: NDArray[np.uint8] | None
    reference_mask: NDArray[np.uint8] | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A frame of the gallery: why it is there, and by what it is found."""

    title: str
    sample: Sample
    conditions: tuple[str, ...]
    classes: tuple[str, ...]
    """Those in its reference."""
    scores: Mapping[str, float]
    """By what they are called."""


@dataclass(frozen=True, slots=True)
class FrameScore:
    """One frame's numbers; None where they do not exist: the frame was lost, or has no reference."""

    time_s: float
    """Since the recording's first frame."""
    latency_ms: float | None
    miou_raw: float | None
    """0..1, over the classes that this frame's reference holds."""
    miou: float | None
    psnr_degraded: float | None
    """dB; inf for an image that equals its reference."""
    psnr_restored: float | None
    disagreement: float | None = None
    """0..1, as are the two below."""
    flicker_raw: float | None = None
    flicker: float | None = None
    lost: bool = False
    """Dropped, or failed."""
    presence: Mapping[str, float] = field(default_factory=dict)
    """Of each condition, 0..1; empty where it was not estimated."""
    applied: Mapping[str, float] = field(default_factory=dict)
    """The level of each condition that the recording says was applied, 0 where it was not."""
    familiarity: float | None = None
    restored: bool = False
    """Whether restoration ran for it."""
