"""What an evaluation does to a clear image: the published conditions and levels, variants of a suite, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.depth import ground_plane_depth
from coop_perception.degradations.realistic.suites import SUITES, Scene, Variant
from coop_perception.image_files import DatasetError, read_image
from coop_training.layouts.frame import Item, LabelledFrame

CLEAR = "clear"
PUBLISHED = "published"
READY_MADE = "ready_made"
MIXED = "mixed"
SUITE_NAMES = (PUBLISHED, *SUITES)
Pixels = NDArray[np.uint8]
_BROADER: Mapping[str, str] = {
    **dict.fromkeys(("gaussian_blur", "motion_blur", "defocus", "anisotropic_blur", "motion"), "blur"),
    **dict.fromkeys(("aberration_radial", "aberration_shift", "aberration"), "chromatic_aberration"),
    **dict.fromkeys(("gaussian_noise", "noise_poisson", "noise_bayer", "noise_grey", "bayer"), "noise"),
    "impulses_random": "impulse_noise",
    **dict.fromkeys(("jpeg", "jpeg_offset", "jpeg_twice", "jpeg_scaled", "webp", "JPEG", "WebP"), "compression"),
    "haze": "fog",
    "rain_streaks": "rain",
    **dict.fromkeys(("lens_drops", "lens_dirt", "drops", "dirt"), "soiling"),
    **dict.fromkeys(("night", "low light"), "low_light"),
    "reflection_street": "reflection",
}
"""By published condition, family of a suite or part of a mixture: the condition that a bundle may know it as."""


@dataclass(frozen=True, slots=True)
class Case:
    """A condition at one of its levels, counted from 1; ("clear", 0) leaves images as they are. `variant`: of a suite,
    whose family is the condition."""

    condition: str
    level: int = 0
    variant: Variant | None = None

    @property
    def published(self) -> bool:
        return self.level > 0 and self.condition in CONDITIONS

    @property
    def strength(self) -> float:
        """0 for clear, 1 at a published condition's last level: what the estimate is fitted to say."""
        return self.level / len(CONDITIONS[self.condition].levels) if self.published else 0.0

    @property
    def label(self) -> str:
        """The level in words."""
        if self.variant is not None:
            return self.variant.name.removeprefix(f"{self.condition} ")
        if not self.published:
            return self.condition
        return f"{self.level} ({CONDITIONS[self.condition].levels[self.level - 1]:g})"

    @property
    def clear(self) -> bool:
        """Whether its images are clear ones, in which nothing is to be mended."""
        return self.level == 0 or (self.variant is not None and self.variant.clear)

    def applied(self, known: Sequence[str]) -> tuple[str, ...]:
        """Which of the conditions that a bundle knows it puts images under: those of its own names, else broader ones;
        none where the bundle knows none of them."""
        if self.clear:
            return ()
        mixed = self.variant is not None and self.variant.family == MIXED
        parts = self.variant.name.split(", ") if mixed and self.variant else [self.condition]
        names = [part if part in known else _BROADER.get(part, part) for part in parts]
        return tuple(dict.fromkeys(name for name in names if name in known))


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a data set. `seed` is its number in the whole set, so that a part of it is degraded as the whole."""

    item: Item
    seed: int

    def under(self, case: Case, frame: LabelledFrame) -> Pixels:
        """The image as read, under a condition; equal calls give equal bytes. Without depth of the frame's own, that of
        an empty, level street is taken.

        Raises:
            DatasetError: a degraded image that comes with the frame cannot be read, or has another size.
        """
        if not case.level:
            return frame.image
        if case.condition == READY_MADE:
            (height, width), path = frame.image.shape[:2], frame.ready_made[case.level - 1].path
            image = read_image(path)
            if image.shape[:2] != (height, width):
                raise DatasetError(
                    f"{path}: is {image.shape[1]}x{image.shape[0]}, its clean image {width}x{height}; scale one of them"
                )
            return image
        depth = frame.depth.astype(np.float32) if frame.depth.size else ground_plane_depth(frame.intrinsics)
        if case.variant is not None:
            return case.variant.apply(frame.image, Scene(frame.intrinsics, depth), self.seed)
        return degrade(
            frame.image, case.condition, case.level, seed=self.seed, depth=depth, intrinsics=frame.intrinsics
        )


def published_cases(conditions: Sequence[str]) -> list[Case]:
    """Every level of each condition."""
    return [Case(name, level) for name in conditions for level in range(1, len(CONDITIONS[name].levels) + 1)]


def suite_cases(name: str) -> list[Case]:
    """Every variant of a suite of SUITES, by families."""
    counts: dict[str, int] = {}
    cases = []
    for variant in SUITES[name]:
        counts[variant.family] = counts.get(variant.family, 0) + 1
        cases.append(Case(variant.family, counts[variant.family], variant))
    return cases


def ready_made_case() -> Case:
    """The degraded image that comes with each frame."""
    return Case(READY_MADE, 1)
