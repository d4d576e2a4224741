"""References that lie in folders beside a recording: labels and clean images, matched to frames by stamp or number."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import SemanticClass
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.recordings.labelled_folders import label_ids, read_label

_SECONDS = re.compile(r"(?<!\d)(\d{7,})[._](\d{1,9})$")
_WHOLE = re.compile(r"(?<!\d)\d+$")
_STAMP_DIGITS = 16
"""A whole number of as many digits is a stamp in ns; a shorter one is a frame's number."""


class Folders:
    """Folders of labels (PNG of class ids) and of clean images; None where there is none of a kind.

    A file belongs to the frame whose header stamp its name ends with, in ns (`1700000000123456789.png`) or in seconds
    with a fraction (`front_1700000000.123456789.png`), or else to the frame of that number (`frame_00037.png`).

    Raises:
        DatasetError: a folder is missing, holds no image, one whose name says no frame, or two of one frame.
    """

    def __init__(self, labels: Path | None, images: Path | None, classes: Sequence[SemanticClass]) -> None:
        self._labels = {} if labels is None else _by_frame(labels)
        self._images = {} if images is None else _by_frame(images)
        self._ids = label_ids(classes)
        self._met: set[Path] = set()

    def meet(self, stamp_ns: int, index: int) -> None:
        """There is such a frame: its files are of use, whether they are read or were before."""
        for files in (self._labels, self._images):
            path = self._path(files, stamp_ns, index)
            if path is not None:
                self._met.add(path)

    def mask(self, stamp_ns: int, index: int) -> NDArray[np.uint8] | None:
        """uint8 [H,W] of a frame; None where it has no label."""
        path = self._path(self._labels, stamp_ns, index)
        return None if path is None else read_label(path, self._ids)

    def image(self, stamp_ns: int, index: int) -> NDArray[np.uint8] | None:
        """uint8 [H,W,3] RGB of a frame; None where it has no clean image."""
        path = self._path(self._images, stamp_ns, index)
        return None if path is None else read_image(path)

    def unread(self) -> tuple[int, int]:
        """How many files belong to no frame, and of how many."""
        every = [*self._labels.values(), *self._images.values()]
        return len(set(every) - self._met), len(every)

    def count_from_one(self, frames: int) -> bool:
        """Whether files are numbered 1 to the number of frames, which count from 0: as if each belonged to the frame
        behind its own."""
        return any(("number", frames) in files and ("number", 0) not in files for files in (self._labels, self._images))

    def _path(self, files: dict[tuple[str, int], Path], stamp_ns: int, index: int) -> Path | None:
        return files.get(("stamp", stamp_ns), files.get(("number", index)))


def _by_frame(folder: Path) -> dict[tuple[str, int], Path]:
    found: dict[tuple[str, int], Path] = {}
    for path in sorted(image_files(folder)):
        key = frame_of(path.stem)
        if key is None:
            raise DatasetError(
                f"{path}: its name says no frame; expected a header stamp (1700000000.123456789, or in ns) or the "
                "frame's number at its end"
            )
        if key in found:
            raise DatasetError(f"{path}: is of the same frame as {found[key].name}; keep one")
        found[key] = path
    return found


def frame_of(stem: str) -> tuple[str, int] | None:
    """What a file's name says of its frame: ("stamp", ns) or ("number", index)."""
    seconds = _SECONDS.search(stem)
    if seconds:
        return "stamp", int(seconds[1]) * 10**9 + int(seconds[2].ljust(9, "0"))
    number = _WHOLE.search(stem)
    if not number:
        return None
    return ("stamp" if len(number[0]) >= _STAMP_DIGITS else "number"), int(number[0])
