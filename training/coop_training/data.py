"""Labelled images with depth, held in memory, and adverse crops of them as training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from coop_perception.camera import Intrinsics
from coop_perception.classes import IGNORE_ID
from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.depth import depth_from_labels
from coop_perception.labelled_images import DatasetError, find_pairs, read_pair
from coop_perception.sample_drive import SampleDrive
from coop_training.config import DataConfig


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """image uint8 [H,W,3] RGB, mask uint8 [H,W], depth float16 [H,W] metres (inf: sky)."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    depth: NDArray[np.float16]
    intrinsics: Intrinsics


def load_frames(config: DataConfig) -> list[LabelledFrame]:
    """All training frames: the labelled folder's, then the sample drives'."""
    frames: list[LabelledFrame] = []
    if config.root is not None:
        pairs = find_pairs(config.root / "images" / config.split, config.root / "labels" / config.split)
        kept = [pair for pair in pairs if not pair.name.startswith(config.exclude)] if config.exclude else pairs
        for pair in track(kept, f"{config.root.name}: reading"):
            image, mask = read_pair(pair)
            intrinsics = Intrinsics.from_fov(image.shape[1], image.shape[0])
            depth = depth_from_labels(mask, image, intrinsics)
            frames.append(LabelledFrame(image, mask, depth.astype(np.float16), intrinsics))
    seeds = range(config.first_seed, config.first_seed + config.sample_drives)
    for seed in track(seeds, "sample drives: rendering") if config.sample_drives else ():
        drive = SampleDrive(seed)
        for index in range(config.frames_per_drive):
            # 2 s apart: neighbouring frames of a drive are nearly the same picture.
            frame = drive.frame(30 * index)
            frames.append(LabelledFrame(frame.image, frame.mask, frame.depth.astype(np.float16), drive.intrinsics))
    if not frames:
        raise DatasetError(
            "no training frame: data.root is not set or data.exclude leaves none, and sample_drives is 0"
        )
    return frames


@dataclass(frozen=True, slots=True)
class Sample:
    """One training sample, or a batch of them with a leading N.

    clear, degraded uint8 [3,H,W]; mask int64 [H,W]; condition int64 [] (0: clear); strength float32 [] in 0..1, the
    position among the condition's levels.
    """

    clear: Tensor
    degraded: Tensor
    mask: Tensor
    condition: Tensor
    strength: Tensor


class AdverseCrops(Dataset[Sample]):
    """Sample i is a function of (seed, i) alone: a resumed run sees what the uninterrupted one would have seen."""

    def __init__(
        self,
        frames: Sequence[LabelledFrame],
        length: int,
        crop: tuple[int, int],
        conditions: Sequence[str],
        clear: float,
        seed: int,
        scales: tuple[float, float],
        first: int = 0,
    ) -> None:
        self.frames, self.length, self.crop, self.conditions = frames, length, crop, conditions
        self.clear, self.seed, self.scales, self.first = clear, seed, scales, first

    def __len__(self) -> int:
        return self.length - self.first

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)  # which ends an iteration
        rng = np.random.default_rng((self.seed, self.first + index))
        frame = random_view(self.frames[rng.integers(len(self.frames))], self.crop, self.scales, rng)
        degraded, condition, strength = frame.image, 0, 0.0
        if self.conditions and rng.random() >= self.clear:
            condition = 1 + int(rng.integers(len(self.conditions)))
            # The whole frame is degraded, then cropped: airlight is a property of the whole scene.
            degraded, strength = degrade_randomly(frame, self.conditions[condition - 1], rng)
        height, width = frame.mask.shape
        top = int(rng.integers(height - self.crop[0] + 1))
        left = int(rng.integers(width - self.crop[1] + 1))
        window = (slice(top, top + self.crop[0]), slice(left, left + self.crop[1]))
        return Sample(
            torch.from_numpy(np.ascontiguousarray(frame.image[window].transpose(2, 0, 1))),
            torch.from_numpy(np.ascontiguousarray(degraded[window].transpose(2, 0, 1))),
            torch.from_numpy(frame.mask[window].astype(np.int64)),
            torch.tensor(condition),
            torch.tensor(strength),
        )


def degrade_randomly(frame: LabelledFrame, name: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], float]:
    """A frame under a condition, evenly in the parameter's logarithm from a little below the first level to a little
    above the last. Image uint8 [H,W,3] and its strength: k/n at level k of n, linear in the logarithm between."""
    condition = CONDITIONS[name]
    levels = np.log(condition.levels)
    position = rng.uniform(-0.2, 1.05)
    parameter = levels[0] + position * (levels[-1] - levels[0])
    depth = frame.depth.astype(np.float32)
    image = condition.apply(frame.image, float(np.exp(parameter)), rng, depth, frame.intrinsics)
    count = len(levels)
    if position < 0:
        return image, (1 + position) / count
    sign = np.sign(levels[-1] - levels[0])  # JPEG's quality falls as it gets worse
    return image, float(np.interp(sign * parameter, sign * levels, np.arange(1, count + 1) / count))


def random_view(
    frame: LabelledFrame, at_least: tuple[int, int], scales: tuple[float, float], rng: np.random.Generator
) -> LabelledFrame:
    """A frame randomly scaled (to `at_least` height and width), mirrored and exposed, with its depth and intrinsics."""
    height, width = frame.mask.shape
    # Half of the views stay as the camera gave them: interpolation blurs, and what runs on a vehicle is not blurred.
    scale = 1.0 if rng.random() < 0.5 else float(np.exp(rng.uniform(*np.log(scales))))
    scale = max(scale, at_least[0] / height, at_least[1] / width)
    size = (round(width * scale), round(height * scale))
    image, mask, depth, k = frame.image, frame.mask, frame.depth.astype(np.float32), frame.intrinsics
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
        depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT)
        centre = ((k.cx + 0.5) * scale - 0.5, (k.cy + 0.5) * scale - 0.5)  # pixel centres are at integers
        k = Intrinsics(*size, k.fx * scale, k.fy * scale, *centre)
    if rng.random() < 0.5:
        image, mask, depth = image[:, ::-1], mask[:, ::-1], depth[:, ::-1]
        k = replace(k, cx=k.width - 1 - k.cx)
    gain, gamma = rng.uniform(0.8, 1.2), float(np.exp(rng.uniform(-0.25, 0.25)))
    tint = gain * rng.uniform(0.93, 1.07, 3)
    curve = 255 * (np.arange(256)[:, None] / 255) ** gamma * tint
    table = np.clip(np.round(curve), 0, 255).astype(np.uint8)[None]
    image = cv2.LUT(np.ascontiguousarray(image), table)
    return LabelledFrame(image, np.ascontiguousarray(mask), np.ascontiguousarray(depth).astype(np.float16), k)


def class_weights(frames: Sequence[LabelledFrame], classes: int) -> Tensor:
    """1/log(1.1 + share of pixels) per class, mean 1 (ENet, Paszke et al., 2016): rare classes count more. [C]"""
    counts = sum(np.bincount(f.mask.ravel(), minlength=256) for f in frames)
    counts[IGNORE_ID] = 0
    share = counts[:classes] / max(counts.sum(), 1)
    weights = 1 / np.log(1.1 + share)
    return torch.from_numpy(weights / weights.mean()).float()
