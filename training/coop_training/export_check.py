"""Whether an exported graph does what its network does: on frames under every condition, from two cameras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import CONTRACTS, InputSizes, network_size
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.image_files import read_image
from coop_perception.recordings.labelled_folders import find_pairs
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception.views import scene_view, sensor_view
from coop_training.config import TrainConfig
from coop_training.frames import data_items
from coop_training.layouts.frame import Item, LabelledFrame
from coop_training.mixtures import KINDS, Scene

ASPECTS = (4 / 3, 16 / 9)
"""Of the cameras, width over height."""
LEAST_SAME = 0.999
TOLERANCES = {
    "mask": 0.0,
    "mask_raw": 0.0,
    "confidence": 1.0,
    "restored": 1.0,
    "probabilities": 0.01,
    "refined_probabilities": 0.01,
    "presence": 1e-3,
    "strength": 1e-3,
    "familiarity": 1e-3,
}
"""How far a value may be from the one expected: a class, a grey level, a share."""


ReadImage = Callable[[], NDArray[np.uint8]]
"""Reads an image, uint8 [H,W,3] RGB."""
Values = Mapping[str, NDArray[np.generic]]
"""Tensors of `CONTRACTS` by name, of one frame: N is 1."""


class ExportError(RuntimeError):
    """A graph that does not do what its network does; the message gives the figures."""


def check_views(
    conditions: Sequence[str], sizes: InputSizes, reads: Sequence[ReadImage] = ()
) -> list[dict[str, NDArray[np.generic]]]:
    """Of each camera a clear frame, and of one or the other a frame under each condition, with both their views.

    Args:
        conditions: a bundle's.
        sizes: of its networks' inputs. The cameras' frames are a quarter higher than that, and odd.
        reads: of images that the frames are taken from, evenly spread; none: of a sample drive. Conditions that need
            depth get the sample drive's in either case: it is what graphs compute that is compared, not how true the
            fog is.

    Returns:
        frame, image and sensor of each, as the pipeline makes them.

    Raises:
        DatasetError: an image cannot be read.
    """
    height = sizes.height * 5 // 4 | 1
    shown = [(aspect, "") for aspect in ASPECTS]
    shown += [(ASPECTS[index % len(ASPECTS)], name) for index, name in enumerate(conditions)]
    drives = {aspect: SampleDrive(1, round(aspect * height) | 1, height) for aspect in ASPECTS}
    scenes = {aspect: drive.frame(0) for aspect, drive in drives.items()}
    views: list[dict[str, NDArray[np.generic]]] = []
    for index, (aspect, condition) in enumerate(shown):
        scene = scenes[aspect]
        image = scene.image
        if reads:
            read = reads[index * len(reads) // len(shown)]()
            image = np.asarray(cv2.resize(read, (image.shape[1], height), interpolation=cv2.INTER_AREA), np.uint8)
        frame = LabelledFrame(image, scene.mask, scene.depth.astype(np.float16), drives[aspect].intrinsics)
        seen = under(condition, frame, index) if condition else image
        size = network_size(sizes, *seen.shape[:2])
        views.append(
            {
                "frame": seen[None],
                "image": scene_view(seen, size)[None],
                "sensor": sensor_view(seen, sizes.sensor)[None],
            }
        )
    return views


def under(condition: str, frame: LabelledFrame, seed: int) -> NDArray[np.uint8]:
    """A frame under a condition: a published one at its strongest, one of `mixtures.KINDS`, or, where the name is
    neither's, the frame as it is."""
    depth = np.asarray(frame.depth, np.float32)
    if condition in CONDITIONS:
        level = len(CONDITIONS[condition].levels)
        return degrade(frame.image, condition, level, seed=seed, depth=depth, intrinsics=frame.intrinsics)
    for kind in KINDS:
        if kind.name == condition:
            scene = Scene(frame, depth, frame.image[:, ::-1])
            return kind.forms[-1](frame.image, scene, np.random.default_rng(seed))[0]
    return frame.image


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


def compare(name: str, path: Path, values: Sequence[Values]) -> str:
    """Run a written graph and compare what it gives with what is expected of it; a line with the figures.

    Args:
        name: the graph's in the bundle.
        path: its file.
        values: of each frame every tensor of the contract, as PyTorch or the bundle before has it.

    Raises:
        ExportError: in some frame an output's values are within its tolerance in less than 99.9 % of its pixels.
    """
    contract = CONTRACTS[name]
    engine = OnnxRuntimeEngine(path)
    found = [engine.run({key: one[key] for key in contract.inputs}, contract.outputs) for one in values]
    shares = agreement(found, values)
    for output, share in shares.items():
        if share < LEAST_SAME:
            raise ExportError(
                f"{path}: {output} is as expected in {share:.4%} of a frame, at least {LEAST_SAME:.1%} are needed"
            )
    return in_words(shares)


def agreement(found: Sequence[Values], expected: Sequence[Values]) -> dict[str, float]:
    """By output of `found`, the share of pixels or values that are the same within TOLERANCES in the frame where fewest
    are; of a restored pixel all three channels."""
    shares: dict[str, float] = {}
    for one, other in zip(found, expected, strict=True):
        for output, ours in one.items():
            same = np.abs(ours.astype(np.float32) - other[output].astype(np.float32)) <= TOLERANCES[output]
            share = float((same.all(-1) if output == "restored" else same).mean())
            shares[output] = min(share, shares.get(output, 1.0))
    return shares


def in_words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{output} {share:.3%}" for output, share in shares.items())
