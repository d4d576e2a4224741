"""Whether an exported graph does what its network does, on frames under every condition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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


ReadImage = Callable[[], NDArray[np.uint8]]
"""Reads an image, uint8 [H,W,3] RGB."""


class ExportError(RuntimeError):
    """A graph that does not do what its network does; the message gives the figures."""


def check_frames(
    conditions: Sequence[str], size: tuple[int, int], reads: Sequence[ReadImage] = ()
) -> NDArray[np.uint8]:
    """A clear frame, and one under each condition at its strongest.

    Args:
        conditions: names, `clear` first.
        size: height and width.
        reads: of images that the frames are taken from, evenly spread; none: of a sample drive. Fog and rain get the
            sample drive's depth in either case: it is what graphs compute that is compared, not how true the fog is.

    Returns:
        uint8 [1+K,H,W,3] RGB.

    Raises:
        DatasetError: an image cannot be read.
    """
    height, width = size
    drive = SampleDrive(1, width, height)
    frames = []
    for index, condition in enumerate(conditions):
        scene = drive.frame(FRAME_STEP * index)
        image = scene.image
        if reads:
            read = reads[index * len(reads) // len(conditions)]()
            image = np.asarray(cv2.resize(read, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if condition != "clear":
            level = len(CONDITIONS[condition].levels)
            image = degrade(image, condition, level, seed=index, depth=scene.depth, intrinsics=drive.intrinsics)
        frames.append(image)
    return np.stack(frames)


def listed_images(folder: Path) -> list[ReadImage]:
    """Raises DatasetError where the folder holds no image."""
    return [partial(read_image, pair.image) for pair in find_pairs(folder, None)]


def trained_images(config: TrainConfig) -> list[ReadImage]:
    """The images that a run was trained on, where they are still there."""
    if config.data.root is None or not config.data.root.is_dir():
        return []
    return [partial(_image_of, item) for item in data_items(config.data, ())]


def _image_of(item: Item) -> NDArray[np.uint8]:
    return item.read().image


def compare(name: str, path: Path, values: Mapping[str, Tensor]) -> str:
    """Run a written graph and compare what it gives with what is expected of it; a line with the figures.

    Args:
        name: the graph's in the bundle.
        path: its file.
        values: every tensor of its contract by name, as PyTorch or the graph's parts have it.

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
                f"{path}: {output} is as expected in {share:.4%} of a frame, at least {least:.1%} are needed"
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
