"""CelebAMask-HQ as it is unpacked: faces of 1024x1024 pixels, one binary 512x512 mask per face and class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.image_files import DatasetError, read_image
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.frame import NO_DEPTH, Item, LabelledFrame, scaled_image

IMAGES, MASKS, MAPPING = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
SPLITS = {"train": range(162_770), "val": range(162_770, 182_637), "test": range(182_637, 202_599)}
"""CelebA's partition, by the image's number in CelebA, which counts from 0."""


def celebamask_items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
    """Lists the faces of CelebA's train, val or test partition; the empty split is all of them."""
    folder = root / IMAGES
    images = {int(path.stem): path for path in folder.glob("*.jpg") if path.stem.isdecimal()}
    if not images:
        raise DatasetError(f"{folder}: holds no <number>.jpg; the root is the unpacked CelebAMask-HQ.zip")
    masks: dict[int, list[Path]] = defaultdict(list)
    for path in (root / MASKS).glob("[!.]*/[!.]*_*.png"):
        number = path.name.split("_")[0]
        if number.isdecimal():
            masks[int(number)].append(path)
    ids = {c.name: c.id for c in classes.classes}
    items = []
    for number in sorted(images) if not split else _partition(root / MAPPING, split):
        if number not in images:
            raise DatasetError(f"{folder / f'{number}.jpg'}: missing, though {MAPPING} names it")
        if number not in masks:
            raise DatasetError(f"{images[number]}: has no mask {root / MASKS}/{number // 2000}/{number:05d}_*.png")
        unknown = [path for path in masks[number] if _class_name(path) not in ids]
        if unknown:
            raise DatasetError(f"{unknown[0]}: its name is no class's; known: {', '.join(ids)}")
        layers = sorted((ids[_class_name(path)], path) for path in masks[number])
        items.append(Item(str(number), partial(_read, images[number], layers)))
    return items


def _class_name(mask: Path) -> str:
    return mask.stem.partition("_")[2]


def _partition(mapping: Path, split: str) -> list[int]:
    """Numbers of the faces in a partition, from lines of number, number in CelebA, file name in CelebA."""
    if split not in SPLITS:
        raise DatasetError(f"{mapping.parent}: has no split {split!r}; known: {', '.join(SPLITS)}, or '' for all")
    try:
        rows = [line.split() for line in mapping.read_text().splitlines()[1:] if line.strip()]
        return sorted(int(row[0]) for row in rows if int(row[1]) in SPLITS[split])
    except (OSError, ValueError, IndexError) as error:
        raise DatasetError(
            f"{mapping}: cannot be read ({error}); it is part of CelebAMask-HQ.zip and names the splits"
        ) from error


def _read(image: Path, layers: Sequence[tuple[int, Path]]) -> LabelledFrame:
    """The face, scaled to its masks' size; of masks that overlap, the later class's wins."""
    mask: NDArray[np.uint8] | None = None
    for class_id, path in layers:
        layer = read_image(path)[..., 0] > 0
        if mask is None:
            mask = np.zeros(layer.shape, np.uint8)
        if layer.shape != mask.shape:
            raise DatasetError(f"{path}: is {layer.shape[1]}x{layer.shape[0]}, others {mask.shape[1]}x{mask.shape[0]}")
        mask[layer] = class_id
    assert mask is not None  # an item has at least one mask
    height, width = mask.shape
    face = scaled_image(read_image(image), height, width)
    return LabelledFrame(face, mask, NO_DEPTH, Intrinsics.from_fov(width, height))
