"""What the labels of training frames hold: how much of each class, and in which frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coop_perception.classes import IGNORE_ID
from coop_perception.image_files import DatasetError
from coop_perception.images import is_nearly_black, nearly_black
from coop_training.config import DataConfig
from coop_training.frames import TrainingFrames
from coop_training.layouts.frame import LabelledFrame

SURVEYED_FRAMES = 500
"""Of a data set that is not held in memory, classes are counted in at least so many frames, evenly spread, and in fewer
than twice as many."""
LOOKED_AT_FRAMES = 50
"""How many, or somewhat more, are looked at for whether they show anything."""


def frames_by_class(frames: Sequence[LabelledFrame]) -> dict[int, list[int]]:
    """Indices of the frames that show each class in more than a few pixels; empty for a data set so large that it is
    not surveyed whole."""
    holding: dict[int, list[int]] = {}
    for index in range(len(frames)) if len(surveyed(frames)) == len(frames) else ():
        counts = np.bincount(frames[index].mask.ravel(), minlength=256)
        for class_id in np.flatnonzero(counts[:IGNORE_ID] >= 64).tolist():
            holding.setdefault(class_id, []).append(index)
    return dict(sorted(holding.items()))


def surveyed(frames: Sequence[LabelledFrame]) -> list[int]:
    """Indices of the frames in which classes are counted: of what is held in memory, all."""
    indices: list[int] = []
    first = 0
    for part in frames.parts if isinstance(frames, TrainingFrames) else [frames]:
        step = 1 if isinstance(part, list) else max(1, len(part) // SURVEYED_FRAMES)
        indices += range(first, first + len(part), step)
        first += len(part)
    return indices


def label_counts(frames: Sequence[LabelledFrame]) -> NDArray[np.float64]:
    """Pixels of each label, an index of `DataConfig.label_sets`, weighted by how often frames are drawn. [256]"""
    weights = frames.weights if isinstance(frames, TrainingFrames) else np.ones(len(frames))
    counts = np.zeros(256)
    for index in surveyed(frames):
        counts += weights[index] * np.bincount(frames[index].mask.ravel(), minlength=256)
    return counts


def dark_frames(frames: Sequence[LabelledFrame]) -> str:
    """What is said of clear frames that are nearly black, by some that are evenly spread; empty where none is."""
    indices = surveyed(frames)
    looked_at = indices[:: max(1, len(indices) // LOOKED_AT_FRAMES)]
    dark = sum(is_nearly_black(frames[index].image) for index in looked_at)
    return nearly_black(dark, len(looked_at)) if dark else ""


def class_weights(counts: NDArray[np.float64], labels: int) -> Tensor:
    """1/log(1.1 + share of pixels) per label, a class or a set of them, mean 1 (ENet, Paszke et al., 2016): rare ones
    count more. Of `label_counts`. [labels]"""
    share = counts[:labels] / max(counts[:IGNORE_ID].sum(), 1e-9)
    of_labels = 1 / np.log(1.1 + share)
    return torch.from_numpy(of_labels / of_labels.mean()).float()


def check_labels(counts: NDArray[np.float64], config: DataConfig) -> list[str]:
    """What is wrong with labels that can be learnt from all the same: a line for each class that none has.

    Raises:
        DatasetError: fewer than two classes are left.
    """
    sets, names = config.label_sets, [c.name for c in config.class_list.classes]
    there = frozenset().union(*(among for label, among in enumerate(sets) if counts[label]))
    scored = [str(label) for label in np.flatnonzero(counts[: len(names)])]
    ignored = " (255 is never scored)" if counts[IGNORE_ID] else ""
    found = f"masks hold {', '.join([*scored, *(['255'] if counts[IGNORE_ID] else [])]) or 'nothing'}{ignored}"
    lines = [
        f"{names[i]}: no pixel in the frames that were surveyed; {found}: its label is {i}"
        for i in range(len(names))
        if i not in there
    ]
    if len(there) < min(2, len(names)):
        raise DatasetError("; ".join([*lines, "at least two classes are needed to learn to tell them apart"]))
    return lines
