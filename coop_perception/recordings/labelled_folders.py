"""Folders of images with labels, paired by file stem: `images/NAME.jpg` and `labels/NAME.png`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass
from coop_perception.image_files import DatasetError, image_files, read_image, read_orientation, read_values

CAMVID_VOID = 11
BLACK = (0, 0, 0)
LOOKED_AT = 50
"""Images whose EXIF orientation is read, or somewhat more."""
LabelValue = int | tuple[int, int, int]
"""What a pixel of a label file holds: a number, or a colour."""


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
    label_files = _label_files(labels)
    missing = [path for stem, path in found.items() if stem not in label_files]
    if missing:
        raise DatasetError(
            f"{missing[0]}: has no label {labels / (missing[0].stem + '.png')}"
            + (f" (nor have {len(missing) - 1} other images)" if len(missing) > 1 else "")
        )
    return [Pair(path, label_files[stem]) for stem, path in found.items()]


def _label_files(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in image_files(folder) if path.suffix.lower() == ".png"}


def odd_pairs(images: Path, labels: Path) -> list[str]:
    """What is said of folders whose images all have their labels: labels that are left over, and images that EXIF turns
    or mirrors without exchanging their sides, so that the label's size does not tell of which view it is. Some images,
    evenly spread, are looked at.

    Raises:
        DatasetError: as `find_pairs`, or an image cannot be read.
    """
    pairs = find_pairs(images, labels)
    lines, every = [], len(_label_files(labels))
    if every > len(pairs):
        lines.append(f"{every - len(pairs)} of {every} labels in {labels} belong to no image in {images}")
    looked_at = pairs[:: max(1, len(pairs) // LOOKED_AT)]
    turned = [pair.image for pair in looked_at if read_orientation(pair.image) in (2, 3, 4)]
    if turned:
        lines.append(
            f"{turned[0]}: EXIF turns or mirrors it and {len(turned) - 1} others, of {len(looked_at)} looked at; "
            "pixels are taken as they are stored, so labels have to be of these"
        )
    return lines


def find_references(images: Path, references: Path) -> dict[Path, Path]:
    """The clean image of each degraded one, by file name, in order of the degraded ones' names; folders may hold more
    folders.

    Their stems are the same, or one is the other with more words before or behind it (`rain_001` and `001`,
    `aachen_000000` and `aachen_000000_foggy_beta_0.01`, `rain-001` and `norain-001`): 1 is no part of 10. Of several
    clean images whose stems are part of a degraded one's, the longest is meant.

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
        parts = [path.stem] if path.stem in clean else [stem for stem in clean if _is_part(stem, path.stem)]
        longest = max(map(len, parts), default=0)
        fitting = [stem for stem in parts if len(stem) == longest]
        fitting = fitting or [stem for stem in clean if _is_part(path.stem, stem)]
        if not fitting:
            raise DatasetError(
                f"{path}: has no clean image in {references}; expected one of the same stem, or with more words before "
                "or behind in one of the two stems"
            )
        if len(fitting) > 1:
            raise DatasetError(
                f"{path}: may belong to {clean[fitting[0]].name} or to {clean[fitting[1]].name}; rename it"
            )
        pairs[path] = clean[fitting[0]]
    return pairs


def _is_part(part: str, whole: str) -> bool:
    """Whether a stem is another, longer one without words before or behind. No word ends between two digits or two
    letters, but for letters before a name with a number in it: `norain-001`."""
    if len(part) >= len(whole):
        return False
    if whole.startswith(part) and not _one_word(part[-1], whole[len(part)]):
        return True
    before, first = whole.removesuffix(part)[-1:], part[0]
    letters = before.isalpha() and first.isalpha() and any(map(str.isdigit, part))
    return whole.endswith(part) and (letters or not _one_word(before, first))


def _one_word(left: str, right: str) -> bool:
    return (left.isdigit() and right.isdigit()) or (left.isalpha() and right.isalpha())


def label_ids(classes: Sequence[SemanticClass]) -> dict[LabelValue, int]:
    """What the pixels of a label file mean that holds these classes' own ids or colours: value → id in masks.

    255, black that is no class's, and CamVid's void where the classes are CamVid's, are IGNORE_ID. A colour of several
    classes means none.
    """
    ids: dict[LabelValue, int] = {IGNORE_ID: IGNORE_ID, BLACK: IGNORE_ID}
    if tuple(classes) == CAMVID_CLASSES:
        ids[CAMVID_VOID] = IGNORE_ID
    colours = [c.rgb for c in classes]
    for c in classes:
        ids[c.id] = c.id
        if colours.count(c.rgb) == 1:
            ids[c.rgb] = c.id
        else:
            ids.pop(c.rgb, None)
    return ids


CAMVID_LABEL_IDS = label_ids(CAMVID_CLASSES)


def read_label(path: Path, ids: Mapping[LabelValue, int] = CAMVID_LABEL_IDS) -> NDArray[np.uint8]:
    """A label file as a mask uint8 [H,W]; `ids` says which id in masks each value in the file stands for.

    Raises:
        DatasetError: no PNG of one channel with 8 bits or fewer, nor an indexed one, nor, where `ids` has colours, one
            of opaque colours; or a value that `ids` does not have.
    """
    label = read_values(path)
    colours = {value: i for value, i in ids.items() if isinstance(value, tuple)}
    if colours and label.ndim == 3 and label.shape[2] in (3, 4) and label.dtype == np.uint8:
        return _of_colours(path, label, colours)
    if label.ndim != 2 or label.dtype != np.uint8:
        raise DatasetError(
            f"{path}: is {label.dtype} of shape {label.shape}; a label is one channel of 8-bit class ids, "
            f"{'8-bit RGB of the colours of classes, ' if colours else ''}or an indexed PNG"
        )
    numbers = {value: i for value, i in ids.items() if isinstance(value, int)}
    table = np.full(256, IGNORE_ID, np.uint8)
    table[list(numbers)] = list(numbers.values())
    wrong = [int(i) for i in np.unique(label) if int(i) not in numbers]
    if wrong:
        scored = sorted(value for value, i in numbers.items() if i != IGNORE_ID)
        ignored = sorted(value for value, i in numbers.items() if i == IGNORE_ID)
        raise DatasetError(
            f"{path}: holds label ids {wrong}; expected {_ranges(scored)}, or {_ranges(ignored)} (not scored)"
        )
    return np.asarray(table[label], np.uint8)


def _of_colours(path: Path, label: NDArray[np.uint8], ids: Mapping[tuple[int, int, int], int]) -> NDArray[np.uint8]:
    """A mask of a label in colours, uint8 [H,W,3] BGR, or BGRA where all is opaque."""
    if label.shape[2] == 4 and (label[..., 3] != 255).any():
        raise DatasetError(f"{path}: is transparent in places; a label's colours are opaque, save it without alpha")
    known = {_code(*rgb): i for rgb, i in sorted(ids.items())}
    codes = np.array(list(known), np.int32)
    blue, green, red = (label[..., channel].astype(np.int32) for channel in range(3))
    found = _code(red, green, blue)
    place = np.minimum(np.searchsorted(codes, found), len(codes) - 1)
    strange, pixels = np.unique(found[codes[place] != found], return_counts=True)
    if strange.size:
        most = [
            (f"[{c >> 16}, {c >> 8 & 255}, {c & 255}]", n) for n, c in sorted(zip(pixels, strange, strict=True))[-3:]
        ]
        named = ", ".join(f"{colour} ({n} pixels)" for colour, n in reversed(most))
        raise DatasetError(
            f"{path}: holds {named}{f' and {strange.size - 3} other colours' if strange.size > 3 else ''}, each of no "
            "class, or of several; expected the classes' rgb, unblended (no smoothed edges, no scaling), or a colour "
            "that is ignored"
        )
    return np.asarray(np.array(list(known.values()), np.uint8)[place])


def _code(red: Any, green: Any, blue: Any) -> Any:
    return red << 16 | green << 8 | blue


def read_pair(
    pair: Pair, ids: Mapping[LabelValue, int] = CAMVID_LABEL_IDS
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
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
