"""Folders of images with labels, paired by file stem: `images/NAME.jpg` and `labels/NAME.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass
from coop_perception.image_files import DatasetError, image_files, read_image, read_orientation, read_values

CAMVID_VOID = 11


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its label file (None where the folder has no labels)."""

    image: Path
    label: Path | None

    @property
    def name(self) -> str:
        return self.image.stem


def find_pairs(images: Path | Sequence[Path], labels: Path | None) -> list[Pair]:
    """Pairs in order of file name, of a folder of images or of these.

    Raises:
        DatasetError: a folder is missing or has no image, two images share a stem, or an image has no label.
    """
    found: dict[str, Path] = {}
    for path in sorted(image_files(images) if isinstance(images, Path) else images):
        if path.stem in found:
            raise DatasetError(
                f"{path}: has the same stem as {found[path.stem].name}; names must be unique without suffix"
            )
        found[path.stem] = path
    if labels is None:
        return [Pair(path, None) for path in found.values()]
    label_files = {path.stem: path for path in image_files(labels) if path.suffix.lower() == ".png"}
    missing = [path for stem, path in found.items() if stem not in label_files]
    if missing:
        raise DatasetError(
            f"{missing[0]}: has no label {labels / (missing[0].stem + '.png')}"
            + (f" (nor have {len(missing) - 1} other images)" if len(missing) > 1 else "")
        )
    return [Pair(path, label_files[stem]) for stem, path in found.items()]


def find_references(images: Path, references: Path) -> dict[Path, Path]:
    """The clean image of each degraded one, by file name, in order of the degraded ones' names; folders may hold more
    folders.

    Their stems are the same, or one is the other with more before or behind it, as `rain-001` and `norain-001`, or
    `aachen_000000` and `aachen_000000_foggy_beta_0.01`. Of several such clean images the longest stem is meant.

    Raises:
        DatasetError: a folder is missing or has no image, two clean images share a stem, or a degraded one has no clean
            one, or several.
    """
    clean: dict[str, Path] = {}
    for path in sorted(image_files(references, below=True)):
        if path.stem in clean:
            raise DatasetError(f"{path}: has the same stem as {clean[path.stem]}; names must be unique without suffix")
        clean[path.stem] = path
    pairs = {}
    for path in sorted(image_files(images, below=True)):
        stem = path.stem
        fitting = [stem] if stem in clean else [s for s in clean if stem.startswith(s) or s.endswith(stem)]
        if not fitting:
            raise DatasetError(
                f"{path}: has no clean image in {references}; expected one of the same stem, or of part of it"
            )
        longest = sorted(fitting, key=len)[-2:]
        if len(longest) == 2 and len(longest[0]) == len(longest[1]):
            raise DatasetError(
                f"{path}: may belong to {clean[longest[0]].name} or to {clean[longest[1]].name}; rename it"
            )
        pairs[path] = clean[longest[-1]]
    return pairs


def label_ids(classes: Sequence[SemanticClass]) -> dict[int, int]:
    """What the values of a label file mean that holds these classes' own ids: value → id in masks.

    255, and CamVid's void where the classes are CamVid's, are IGNORE_ID.
    """
    void = {CAMVID_VOID: IGNORE_ID} if tuple(classes) == CAMVID_CLASSES else {}
    return {c.id: c.id for c in classes} | void | {IGNORE_ID: IGNORE_ID}


CAMVID_LABEL_IDS = label_ids(CAMVID_CLASSES)


def read_label(path: Path, ids: Mapping[int, int] = CAMVID_LABEL_IDS) -> NDArray[np.uint8]:
    """A label file as a mask uint8 [H,W]; `ids` says which id in masks each value in the file stands for.

    Raises:
        DatasetError: no PNG of one channel with 8 bits or fewer, nor an indexed one, or a value that `ids` does not
            have.
    """
    label = read_values(path)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(
            f"{path}: is {label.dtype} of shape {label.shape}; a label is one channel of 8-bit class ids, or an "
            "indexed PNG"
        )
    table = np.full(256, IGNORE_ID, np.uint8)
    table[list(ids)] = list(ids.values())
    wrong = [int(i) for i in np.unique(label) if int(i) not in ids]
    if wrong:
        scored = sorted(value for value, i in ids.items() if i != IGNORE_ID)
        ignored = sorted(value for value, i in ids.items() if i == IGNORE_ID)
        raise DatasetError(
            f"{path}: holds label ids {wrong}; expected {_ranges(scored)}, or {_ranges(ignored)} (not scored)"
        )
    return np.asarray(table[label], np.uint8)


def read_pair(pair: Pair, ids: Mapping[int, int] = CAMVID_LABEL_IDS) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 [H,W,3] RGB and mask uint8 [H,W] (all IGNORE_ID where the pair has no label).

    The image's pixels as they are stored, as a node sees them. Where a label only fits the image as EXIF turns it, on
    its side, it was made of that: the image is turned.

    Raises:
        DatasetError: a file cannot be used, or the two differ in size.
    """
    image = read_image(pair.image)
    if pair.label is None:
        return image, np.full(image.shape[:2], IGNORE_ID, np.uint8)
    mask = read_label(pair.label, ids)
    if mask.shape != image.shape[:2] and mask.shape == image.shape[1::-1]:
        image = _on_its_side(image, read_orientation(pair.image))
    if mask.shape != image.shape[:2]:
        raise DatasetError(
            f"{pair.label}: is {mask.shape[1]}x{mask.shape[0]}, its image {image.shape[1]}x{image.shape[0]}"
        )
    return image, mask


def _on_its_side(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """As EXIF orientations 5 to 8 show it; unchanged with the others, which keep its sides."""
    turned = image.swapaxes(0, 1)
    if orientation in (6, 7):
        turned = turned[:, ::-1]
    if orientation in (7, 8):
        turned = turned[::-1]
    return np.ascontiguousarray(turned) if orientation in (5, 6, 7, 8) else image


def _ranges(values: Sequence[int]) -> str:
    """Sorted numbers as text, runs of them shortened: 0..10, 255."""
    starts = [v for v in values if v - 1 not in values]
    ends = [v for v in values if v + 1 not in values]
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
