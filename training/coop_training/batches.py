"""The batches of a stage: which samples, split between processes how, loaded by whom."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from coop_perception.image_files import DatasetError
from coop_training.interrupt import ignore_interrupts

Batch = dict[str, Tensor]
"""Fields of a data set's samples with a leading N."""

MAX_WORKERS = 16


def share(step: int, batch: int, rank: int, processes: int) -> range:
    """Indices of the samples that one process sees in a step. All processes' shares together are the batch that one
    process alone would see. `batch` must be a multiple of `processes`."""
    each = batch // processes
    first = step * batch + rank * each
    return range(first, first + each)


def batch_loader(
    samples: Dataset[Any], shares: Sequence[Sequence[int]], device: torch.device, processes: int
) -> DataLoader[Any]:
    """Yields a `Batch` of the samples of each share in turn, or the DatasetError that one of them met: raised in a
    loading process, it would come with that one's traceback for a message. `processes`: those that this machine's
    cores are split between."""
    # Cores are split between processes, not threads; PyTorch does the same for its own. Set before the workers are
    # forked: in a fork, OpenCV would wait for threads that did not come along.
    cv2.setNumThreads(1)
    return DataLoader(
        _Checked(samples),
        batch_sampler=[list(indices) for indices in shares],
        num_workers=worker_count(device, processes),
        prefetch_factor=4,
        collate_fn=collate,
        worker_init_fn=lambda _: ignore_interrupts(),
        pin_memory=device.type == "cuda",
    )


def worker_count(device: torch.device, processes: int) -> int:
    """Loading processes beside each training process: most of its cores where a GPU computes, a quarter where they
    compute themselves."""
    cores = len(os.sched_getaffinity(0)) // processes
    return min(max(1, cores // 4 if device.type == "cpu" else cores - 1), MAX_WORKERS)


class _Checked(Dataset[Any]):
    """Samples, or why there is none."""

    def __init__(self, samples: Dataset[Any]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Any:
        try:
            return self.samples[index]
        except DatasetError as error:
            return error


def collate(samples: Sequence[Any]) -> Batch | DatasetError:
    """Of dataclasses of one kind, or the first error among them."""
    for sample in samples:
        if isinstance(sample, DatasetError):
            return sample
    names = [field.name for field in fields(samples[0])]
    batch: Batch = default_collate([{name: getattr(sample, name) for name in names} for sample in samples])
    return batch
