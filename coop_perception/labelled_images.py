"""Folders of images with labels, paired by file stem: `images/NAME.jpg` and `labels/NAME.png`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CAMVID_VOID = 11


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its label file (None where the folder has no labels)."""

    image: Path
    label: Path | None

    @property
    def name(self) -> str:
        return self.image.stem


def find_pairs(images: Path, labels: Path | None) -> list[Pair]:
    """Pairs in order of file name.

    Raises:
        DatasetError: a folder is missing or has no image, two images share a stem, or an image has no label.
    """
    found: dict[str, Path] = {}
    for path in sorted(_files(images)):
        if path.stem in found:
            raise DatasetError(
                f"{path}: has the same stem as {found[path.stem].name}; names must be unique without suffix"
            )
        found[path.stem] = path
    if labels is None:
        return [Pair(path, None) for path in found.values()]
    label_files = {path.stem: path for path in _files(labels) if path.suffix.lower() == ".png"}
    missing = [path for stem, path in found.items() if stem not in label_files]
    if missing:
        raise DatasetError(
            f"{missing[0]}: has no label {labels / (missing[0].stem + '.png')}"
            + (f" (nor have {len(missing) - 1} other images)" if len(missing) > 1 else "")
        )
    return [Pair(path, label_files[stem]) for stem, path in found.items()]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    files = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        raise DatasetError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H,W,3] RGB.

    Raises:
        DatasetError: the file cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"{path}: cannot be decoded as an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def read_label(path: Path) -> NDArray[np.uint8]:
    """A label file as a mask uint8 [H,W] of CamVid's class ids and IGNORE_ID, which its void (11) becomes.

    Raises:
        DatasetError: no single-channel 8-bit image, or an id that is no class.
    """
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if label is None:
        raise DatasetError(f"{path}: cannot be decoded as an image")
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(
            f"{path}: is {label.dtype} of shape {label.shape}; a label is one channel of 8-bit class ids"
        )
    ids = {c.id for c in CAMVID_CLASSES}
    table = np.full(256, IGNORE_ID, np.uint8)
    table[list(ids)] = list(ids)
    wrong = [int(i) for i in np.unique(label) if i not in ids | {IGNORE_ID, CAMVID_VOID}]
    if wrong:
        raise DatasetError(
            f"{path}: holds label ids {wrong}; expected 0..{max(ids)}, {CAMVID_VOID} or {IGNORE_ID} (not scored)"
        )
    return np.asarray(table[label], np.uint8)


def read_pair(pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 [H,W,3] RGB and mask uint8 [H,W] (all IGNORE_ID where the pair has no label).

    Raises:
        DatasetError: a file cannot be used, or the two differ in size.
    """
    image = read_image(pair.image)
    if pair.label is None:
        return image, np.full(image.shape[:2], IGNORE_ID, np.uint8)
    mask = read_label(pair.label)
    if mask.shape != image.shape[:2]:
        raise DatasetError(
            f"{pair.label}: is {mask.shape[1]}x{mask.shape[0]}, its image {image.shape[1]}x{image.shape[0]}"
        )
    return image, mask
