"""Layouts with one folder of images and one of labels, paired by file stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.image_files import DatasetError
from coop_perception.recordings.labelled_folders import Pair, find_pairs, read_pair
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.depth import depth_from_street_labels
from coop_training.layouts.frame import NO_DEPTH, Item, LabelledFrame


def paired_folders(
    labels: str, splits: Mapping[str, str] | None = None
) -> Callable[[Path, str, ClassList, bool], list[Item]]:
    """Lists `images/<split>` with `<labels>/<split>`; `splits` names the folders of train and val where they differ."""
    names = splits or {}

    def items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
        folder = names.get(split, split)
        return paired_items(root / "images" / folder, root / labels / folder, classes, depth)

    return items


def paired_items(images: Path | Sequence[Path], labels: Path | None, classes: ClassList, depth: bool) -> list[Item]:
    """Lists one folder of images, or these, with one of labels; None: without."""
    return [Item(pair.name, partial(read_frame, pair, classes, depth)) for pair in find_pairs(images, labels)]


def voc_items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
    """Lists what ImageSets/Segmentation/<split>.txt names, of JPEGImages and SegmentationClass."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = path.read_text().split()
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); the root is VOC2012, its splits are train, val, trainval"
        ) from error
    pairs = [Pair(root / "JPEGImages" / f"{n}.jpg", root / "SegmentationClass" / f"{n}.png") for n in names]
    for pair in pairs:
        for file in (pair.image, pair.label):
            if file is not None and not file.is_file():
                raise DatasetError(f"{file}: missing, though {path} names it")
    return [Item(pair.name, partial(read_frame, pair, classes, depth)) for pair in pairs]


def read_frame(pair: Pair, classes: ClassList, depth: bool) -> LabelledFrame:
    """A frame of a camera without calibration; `depth`: estimated from the labels.

    Raises:
        DatasetError: a file cannot be used, or the two differ in size.
    """
    image, mask = read_pair(pair, classes.label_ids)
    intrinsics = Intrinsics.from_fov(image.shape[1], image.shape[0])
    found = depth_from_street_labels(mask, image, intrinsics, classes.classes) if depth else None
    return LabelledFrame(image, mask, NO_DEPTH if found is None else found.astype(np.float16), intrinsics)
