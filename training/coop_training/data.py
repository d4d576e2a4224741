"""Adverse crops of labelled frames, as training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from coop_perception.degradations import CONDITIONS
from coop_training.frames import TrainingFrames
from coop_training.label_survey import frames_by_class
from coop_training.layouts.frame import LabelledFrame, scaled
from coop_training.mixtures import Scene, mixture, other_camera
from coop_training.strength import strength_of

CROP_GRID = 16
"""Crops start at multiples of it, so that a JPEG's blocks, 16x16 in its chroma, lie in a crop as in a whole frame."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample, or a batch of them with a leading N, at a camera's own resolution.

    clear, degraded uint8 [3,h,w]; mask int64 [h,w], indices of `DataConfig.label_sets`, or 255; strengths float32 [K],
    of each condition in 0..1, 0 where it is not there.
    """

    clear: Tensor
    degraded: Tensor
    mask: Tensor
    strengths: Tensor


@dataclass(frozen=True, slots=True)
class Conditions:
    """What befalls frames.

    names: of the conditions. mixed: whether they are those of `mixtures.KINDS`, of which several may show at once, on
    frames of other cameras too; else each is a published one. clear: the share of frames that stay so. shares: how
    often each condition is met, against 1 for those left out.
    """

    names: Sequence[str]
    clear: float
    mixed: bool = False
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Degraded:
    """A view of a frame, what has become of its image (uint8 [h,w,3]), and the strengths [K] of the conditions."""

    view: LabelledFrame
    image: NDArray[np.uint8]
    strengths: NDArray[np.float32]


class DegradedFrames:
    """Views of frames under conditions, whole.

    Args:
        frames: drawn evenly, or by their `weights` where they have some.
        conditions: that they are put under.
        scales: of the views against the frames, the smallest and the largest.
        at_least: height and width of a view in pixels.
    """

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        conditions: Conditions,
        scales: tuple[float, float],
        at_least: tuple[int, int] = (1, 1),
    ) -> None:
        self.frames, self.conditions, self.scales, self.at_least = frames, conditions, scales, at_least
        self.weights = frames.weights if isinstance(frames, TrainingFrames) else np.ones(len(frames))
        self.all = np.arange(len(frames))
        shares = np.array([conditions.shares.get(name, 1.0) for name in conditions.names])
        self.probabilities = shares / shares.sum()
        self._none = np.zeros(len(conditions.names), np.float32)

    def draw(self, among: NDArray[np.int64], rng: np.random.Generator) -> Degraded:
        """One of the frames with these indices."""
        frame = self.frames[self._drawn(among, rng)]
        view_seed = int(rng.integers(2**63))
        view = random_view(frame, self.at_least, self.scales, np.random.default_rng(view_seed))
        if self.conditions.mixed:
            view = replace(view, image=other_camera(view.image, rng))
        if not self.conditions.names or rng.random() < self.conditions.clear:
            return Degraded(view, view.image, self._none)
        if self.conditions.mixed:
            return Degraded(view, *self._mixture(view, rng))
        return Degraded(view, *self._single(frame, view, view_seed, rng))

    def _single(
        self, frame: LabelledFrame, view: LabelledFrame, view_seed: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A view of a frame under one condition, and its strengths [K]."""
        strengths = self._none.copy()
        index = int(rng.choice(len(self.conditions.names), p=self.probabilities))
        name = self.conditions.names[index]
        ready_made = [one for one in frame.ready_made if one.condition == name]
        if ready_made:
            chosen = ready_made[rng.integers(len(ready_made))]
            other = replace(frame, image=chosen.read(*frame.mask.shape))
            strengths[index] = chosen.strength
            return random_view(other, self.at_least, self.scales, np.random.default_rng(view_seed)).image, strengths
        # The whole frame is degraded, then cropped: airlight is a property of the whole scene.
        degraded, strengths[index] = degrade_randomly(view, name, rng, self._reflected(name, rng))
        return degraded, strengths

    def _mixture(self, view: LabelledFrame, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        depth = view.depth.astype(np.float32) if view.depth.size else None
        other = self.frames[self._drawn(self.all, rng)].image
        return mixture(Scene(view, depth, other), self.probabilities, rng)

    def _drawn(self, among: NDArray[np.int64], rng: np.random.Generator) -> int:
        weights = self.weights[among]
        if weights.min() == weights.max():
            return int(among[rng.integers(len(among))])
        cumulative = np.cumsum(weights)
        return int(among[np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")])

    def _reflected(self, name: str, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        """What a reflection shows: half the time another frame, else (None) the inside of a vehicle."""
        if name != "reflection" or rng.random() < 0.5:
            return None
        return self.frames[int(rng.integers(len(self.frames)))].image


class AdverseCrops(Dataset[Sample]):
    """Sample i is a function of (seed, i) alone: a resumed run sees what the uninterrupted one would have seen."""

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        length: int,
        crop: tuple[int, int],
        conditions: Conditions,
        seed: int,
        scales: tuple[float, float],
    ) -> None:
        """crop: height and width in pixels; the others as `DegradedFrames`'."""
        self.length, self.crop, self.seed = length, crop, seed
        self.degraded = DegradedFrames(frames, conditions, scales, crop)
        self.holding = [(label, np.array(indices)) for label, indices in frames_by_class(frames).items()]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)  # which ends an iteration
        rng = np.random.default_rng((self.seed, index))
        crop_seed = int(rng.integers(2**63))  # the same crop whatever the condition, which draws as many as it likes
        wanted, among = None, self.degraded.all
        if self.holding and rng.random() < 0.5:
            # Half of the crops show a class drawn evenly, so that rare ones are met more often (Zhu et al., "Improving
            # semantic segmentation via video propagation and label relaxation", CVPR 2019).
            wanted, among = self.holding[rng.integers(len(self.holding))]
        drawn = self.degraded.draw(among, rng)
        top, left = place_crop(drawn.view.mask, self.crop, wanted, np.random.default_rng(crop_seed))
        window = (slice(top, top + self.crop[0]), slice(left, left + self.crop[1]))
        return Sample(
            planes(drawn.view.image[window]),
            planes(drawn.image[window]),
            torch.from_numpy(drawn.view.mask[window].astype(np.int64)),
            torch.from_numpy(drawn.strengths),
        )


def planes(image: NDArray[np.uint8]) -> Tensor:
    """uint8 [H,W,3] → [3,H,W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def place_crop(
    mask: NDArray[np.uint8], crop: tuple[int, int], wanted: int | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Top and left of a random crop on the grid, about a random pixel of class `wanted` where the mask has one."""
    pixels = np.argwhere(mask == wanted) if wanted is not None else np.empty((0, 2), int)
    pixel = pixels[rng.integers(len(pixels))] if len(pixels) else None
    corner = []
    for axis in (0, 1):
        room = (mask.shape[axis] - crop[axis]) // CROP_GRID
        if pixel is None:
            at = rng.integers(room + 1)
        else:
            # Rounding down to the grid moves the crop by less than its step: the pixel stays within.
            before = rng.integers(max(crop[axis] - CROP_GRID, 0) + 1)
            at = np.clip((pixel[axis] - before) // CROP_GRID, 0, room)
        corner.append(CROP_GRID * int(at))
    return corner[0], corner[1]


def degrade_randomly(
    frame: LabelledFrame, name: str, rng: np.random.Generator, reflected: NDArray[np.uint8] | None
) -> tuple[NDArray[np.uint8], float]:
    """A frame under a condition, evenly in the parameter's logarithm from a little below the first level to a little
    above the last. Image uint8 [H,W,3] and its strength.

    reflected: what a reflection shows, uint8 [h,w,3]; None: the inside of a vehicle.
    """
    condition = CONDITIONS[name]
    levels = np.log(condition.levels)
    position = rng.uniform(-0.1, 1.15)
    parameter = float(np.exp(levels[0] + position * (levels[-1] - levels[0])))
    depth = frame.depth.astype(np.float32)
    image = condition.apply(frame.image, parameter, rng, depth, frame.intrinsics, reflected)
    return image, strength_of(parameter, condition.levels)


def random_view(
    frame: LabelledFrame, at_least: tuple[int, int], scales: tuple[float, float], rng: np.random.Generator
) -> LabelledFrame:
    """A frame randomly scaled (to `at_least` height and width), mirrored and exposed, with its depth and intrinsics."""
    height, width = frame.mask.shape
    # Half of the views stay as the camera gave them: interpolation blurs, and what runs on a vehicle is not blurred.
    scale = 1.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(*np.log(scales))))
    scale = max(scale, at_least[0] / height, at_least[1] / width)
    view = scaled(frame, max(round(height * scale), at_least[0]), max(round(width * scale), at_least[1]))
    if rng.random() < 0.5:
        k = view.intrinsics
        image, mask, depth = (np.ascontiguousarray(a[:, ::-1]) for a in (view.image, view.mask, view.depth))
        view = replace(view, image=image, mask=mask, depth=depth, intrinsics=replace(k, cx=k.width - 1 - k.cx))
    gain, gamma = rng.uniform(0.8, 1.2), float(np.exp(rng.uniform(-0.25, 0.25)))
    tint = gain * rng.uniform(0.93, 1.07, 3)
    curve = 255 * (np.arange(256)[:, None] / 255) ** gamma * tint
    table = np.clip(np.round(curve), 0, 255).astype(np.uint8)[None]
    return replace(view, image=np.asarray(cv2.LUT(view.image, table), np.uint8))
