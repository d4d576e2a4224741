"""Layouts with one folder of images and one of labels, paired by file stem."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from coop_perception.camera import Intrinsics
from coop_perception.degradations.depth import ground_plane_depth, with_unknown_filled
from coop_perception.degradations.street import SKY, depth_from_street_labels, is_street, street_ids
from coop_perception.image_files import DatasetError
from coop_perception.recordings.labelled_folders import Pair, find_pairs, read_pair
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.depth import find_depth, read_depth
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


DEPTH = "depth"
"""Folder of depth files in a user's own data, beside `images` and `labels`."""


def own_items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
    """Lists `images/<split>` with `labels/<split>`, and where there is a folder of depth, with `depth/<split>`."""
    measured = root / DEPTH / split if depth and (root / DEPTH).is_dir() else None
    return paired_items(root / "images" / split, root / "labels" / split, classes, depth, measured)


def paired_items(
    images: Path | Sequence[Path], labels: Path | None, classes: ClassList, depth: bool, measured: Path | None = None
) -> list[Item]:
    """Lists one folder of images, or these, with one of labels; None: without. With `depth`, it is that of the files in
    the folder `measured`, else estimated from the labels."""
    pairs = find_pairs(images, labels)
    files: Sequence[Path | None] = find_depth(measured, pairs) if measured else [None] * len(pairs)
    return [
        Item(pair.name, partial(read_frame, pair, classes, depth, file))
        for pair, file in zip(pairs, files, strict=True)
    ]


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


def read_frame(pair: Pair, classes: ClassList, depth: bool, measured: Path | None = None) -> LabelledFrame:
    """A frame of a camera without calibration. With `depth`, it is that of the file `measured`, and elsewhere estimated
    from labels of a street.

    Raises:
        DatasetError: a file cannot be used, or they differ in size.
    """
    image, mask = read_pair(pair, classes.label_ids)
    height, width = mask.shape
    intrinsics = Intrinsics.from_fov(width, height)
    estimated = None
    if depth and is_street(classes.classes):
        estimated = depth_from_street_labels(mask, image, intrinsics, classes.classes)
    if depth and measured is not None:
        otherwise = ground_plane_depth(intrinsics) if estimated is None else estimated
        found = with_unknown_filled(read_depth(measured, height, width), otherwise)
        found[street_ids(classes.classes)[mask] == SKY] = np.inf  # whatever was measured there
    elif estimated is not None:
        found = estimated
    else:
        return LabelledFrame(image, mask, NO_DEPTH, intrinsics)
    with np.errstate(over="ignore"):  # farther than float16 reaches is as good as infinite
        return LabelledFrame(image, mask, found.astype(np.float16), intrinsics)
