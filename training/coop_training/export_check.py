"""Whether an exported graph does what its network does in PyTorch, on frames under every condition."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coop_perception.bundle import CONTRACTS
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.labelled_images import find_pairs, read_image
from coop_perception.sample_drive import SampleDrive
from coop_training.config import TrainConfig

MASK_AGREEMENT = 0.999
SAME_PIXELS = 0.999
FRAME_STEP = 7
"""Frames of the sample drive between two that are taken: what they show differs."""


class ExportError(RuntimeError):
    """A graph that does not do what its network does; the message gives the figures."""


def check_frames(config: TrainConfig, images: Path | None = None) -> NDArray[np.uint8]:
    """A clear frame, and one under each condition of the configuration at its strongest. uint8 [1+K,H,W,3] RGB.

    Args:
        config: of the training.
        images: folder that the frames are taken from, evenly spread; None: a sample drive. Fog and rain get the sample
            drive's depth in either case: it is what graphs compute that is compared, not how true the fog is.

    Raises:
        DatasetError: the folder holds no image, or one cannot be read.
    """
    cases = ("clear", *config.conditions)
    size = (config.width, config.height)
    files = [pair.image for pair in find_pairs(images, None)] if images else []
    drive = SampleDrive(1, *size)
    frames = []
    for index, condition in enumerate(cases):
        scene = drive.frame(FRAME_STEP * index)
        image = scene.image
        if files:
            file = read_image(files[index * len(files) // len(cases)])
            image = np.asarray(cv2.resize(file, size, interpolation=cv2.INTER_AREA), np.uint8)
        if condition != "clear":
            level = len(CONDITIONS[condition].levels)
            image = degrade(image, condition, level, seed=index, depth=scene.depth, intrinsics=drive.intrinsics)
        frames.append(image)
    return np.stack(frames)


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
    report = []
    for output in contract.outputs:
        ours, theirs = found[output].astype(np.float32), values[output].numpy().astype(np.float32)
        if output.startswith("mask"):
            same, least = ours == theirs, MASK_AGREEMENT
        else:
            same, least = np.abs(ours - theirs) <= (1 if found[output].dtype == np.uint8 else 0.02), SAME_PIXELS
        agreement = float(same.reshape(len(same), -1).mean(1).min())
        if agreement < least:
            raise ExportError(
                f"{path}: {output} agrees with PyTorch in {agreement:.4%} of a frame, expected {least:.1%} or more"
            )
        report.append(f"{output} {agreement:.3%}")
    return ", ".join(report)
