"""Whether an exported graph does what its network does in PyTorch, on frames under every condition."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coop_perception.contracts import CONTRACTS
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.image_files import read_image
from coop_perception.recordings.labelled_folders import find_pairs
from coop_perception.sample_scene.drive import SampleDrive
from coop_training.config import TrainConfig
from coop_training.frames import data_items
from coop_training.layouts.frame import Item

MASK_AGREEMENT = 0.999
SAME_PIXELS = 0.999
FRAME_STEP = 7
"""Frames of the sample drive between two that are taken: what they show differs."""


class ExportError(RuntimeError):
    """A graph that does not do what its network does; the message gives the figures."""


def check_frames(config: TrainConfig, images: Path | None = None) -> tuple[NDArray[np.uint8], str]:
    """A clear frame, and one under each condition of the configuration at its strongest.

    Args:
        config: of the training.
        images: folder that the frames are taken from, evenly spread; None: the images trained on, or a sample drive
            where they are not there. Fog and rain get the sample drive's depth in either case: it is what graphs
            compute that is compared, not how true the fog is.

    Returns:
        uint8 [1+K,H,W,3] RGB, and where they come from, in words.

    Raises:
        DatasetError: the folder holds no image, or one cannot be read.
    """
    cases = config.all_conditions
    size = (config.width, config.height)
    if images:
        reads = [partial(read_image, pair.image) for pair in find_pairs(images, None)]
    elif config.data.root and config.data.root.is_dir():
        reads = [partial(_image_of, item) for item in data_items(config.data, ())]
    else:
        reads = []
    drive = SampleDrive(1, *size)
    frames = []
    for index, condition in enumerate(cases):
        scene = drive.frame(FRAME_STEP * index)
        image = scene.image
        if reads:
            read = reads[index * len(reads) // len(cases)]()
            image = np.asarray(cv2.resize(read, size, interpolation=cv2.INTER_AREA), np.uint8)
        if condition != "clear":
            level = len(CONDITIONS[condition].levels)
            image = degrade(image, condition, level, seed=index, depth=scene.depth, intrinsics=drive.intrinsics)
        frames.append(image)
    return np.stack(frames), str(images or config.data.root) if reads else "a sample drive"


def _image_of(item: Item) -> NDArray[np.uint8]:
    return item.read().image


def compare(name: str, path: Path, values: Mapping[str, Tensor]) -> str:
    """Run a written graph on PyTorch's inputs and compare what it gives with PyTorch's; a line with the figures.

    Args:
        name: the graph's in the bundle.
        path: its file.
        values: every tensor of its contract by name, as PyTorch has it.

    Raises:
        ExportError: in some frame masks agree in fewer than 99.9 % of pixels, restored images within one grey level in
            fewer, or another output is off by more than 2 % in more than one of a thousand values.
    """
    contract = CONTRACTS[name]
    found = OnnxRuntimeEngine(path).run({key: values[key].numpy() for key in contract.inputs}, contract.outputs)
    expected = {output: values[output].numpy() for output in contract.outputs}
    for output, share in _agreement(found, expected).items():
        least = MASK_AGREEMENT if output.startswith("mask") else SAME_PIXELS
        if share < least:
            raise ExportError(
                f"{path}: {output} agrees with PyTorch in {share:.4%} of a frame, expected {least:.1%} or more"
            )
    return agreements(found, expected)


def agreements(found: Mapping[str, NDArray[np.generic]], expected: Mapping[str, NDArray[np.generic]]) -> str:
    """How far outputs agree, in the frame where they do least, in words."""
    return ", ".join(f"{output} {share:.3%}" for output, share in _agreement(found, expected).items())


def _agreement(
    found: Mapping[str, NDArray[np.generic]], expected: Mapping[str, NDArray[np.generic]]
) -> dict[str, float]:
    """By output, the share of pixels or values that are the same in the frame where fewest are: equal classes, all
    three channels within one grey level, numbers within 2 %."""
    shares = {}
    for output, theirs in expected.items():
        ours, theirs = found[output].astype(np.float32), theirs.astype(np.float32)
        if output.startswith("mask"):
            same = ours == theirs
        elif output == "restored":
            same = (np.abs(ours - theirs) <= 1).all(-1)
        else:
            same = np.abs(ours - theirs) <= (1 if found[output].dtype == np.uint8 else 0.02)
        shares[output] = float(same.reshape(len(same), -1).mean(1).min())
    return shares
