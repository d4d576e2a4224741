"""What is told of an image window by window, each as high as the image and so wide as what the networks learn on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ASPECT = 0.375
"""Width of a window over its height. Restoration learns on crops of 360x136; told of such windows instead of the whole
of an image, what it takes off fog and rain is 1 dB nearer to the truth."""
PER_WIDTH = 4
"""Windows that begin within the width of one."""
SPREAD = 0.25
"""Standard deviation, in widths of a window, of how far what is told of it reaches. Between windows half their width
apart, linearly, a dense fog's sky was restored in upright bands."""


def window_count(x: Tensor) -> int:
    """How many windows maps [N,C,h,w] are told of: one, if they are no wider than a window."""
    size = ASPECT * x.shape[-2]
    return 1 + max(0, round((x.shape[-1] - size) / (size / PER_WIDTH)))


def windows(x: Tensor, count: int) -> Tensor:
    """So many windows of maps [N,C,h,w] → [N,count,C,h,·]; one is all of it."""
    width = x.shape[-1]
    size = width if count == 1 else round(ASPECT * x.shape[-2])
    starts = [round(start) for start in np.linspace(0, width - size, count)]
    return torch.stack([x[..., start : start + size] for start in starts], 1)


def window_means(x: Tensor, count: int) -> Tensor:
    """Means of maps [N,C,h,w] over each of `count` windows, whatever the scale of the maps. [N,count,C]"""
    columns = x.mean(2)
    if count == 1:
        return columns.mean(2)[:, None]
    left, size = _lefts(x, count)
    edges = np.arange(x.shape[-1] + 1.0)[:, None]
    inside = np.diff(np.clip(edges, left, left + size), axis=0) / size
    return (columns @ _constant(inside, columns)).transpose(1, 2)


def over_columns(told: Tensor, like: Tensor) -> Tensor:
    """What is told of windows, [N,S,C], at each column of maps `like` [N,·,h,w], whatever their scale: of the windows
    about it the mean, weighted by how near their centres are. [N,C,1,w], of one window [N,C,1,1]."""
    count, width = told.shape[1], like.shape[-1]
    if count == 1:
        return told.transpose(1, 2)[:, :, None]
    left, size = _lefts(like, count)
    away = (np.arange(width) + 0.5 - (left + size / 2)[:, None]) / (SPREAD * size)
    weights = np.exp(-(away**2) / 2)
    return (told.transpose(1, 2) @ _constant(weights / weights.sum(0), told))[:, :, None]


def _lefts(x: Tensor, count: int) -> tuple[NDArray[np.float64], float]:
    """Where windows begin, in columns of x, and how wide they are."""
    size = ASPECT * x.shape[-2]
    return np.linspace(0, x.shape[-1] - size, count), size


def _constant(values: NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype)
