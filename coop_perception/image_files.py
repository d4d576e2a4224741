"""Image files and folders of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.encoded_images import FILES, decode, decode_values, inspect
from coop_perception.image_headers import EncodedImageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
OTHER_SUFFIXES = (".avif", ".dng", ".exr", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".pgm", ".ppm")
"""Of images that are not read: where they lie among others, a data set would be smaller than it is, without a word."""
SYSTEM_FOLDERS = {
    *("@eaDir", "__MACOSX", "System Volume Information", "lost+found"),
    *("$RECYCLE.BIN", "#recycle", "@Recycle", "#snapshot", "@Recently-Snapshot"),
}
"""Of thumbnails, forks, bins and earlier states, which systems and network storage leave inside folders."""


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file."""


def image_files(folder: Path, below: bool = False) -> list[Path]:
    """The image files in a folder, in no order; with `below` those in folders inside it, too. Names that begin with a
    dot, and SYSTEM_FOLDERS, are left out: systems leave such files behind, `._0.png` beside `0.png`.

    Raises:
        DatasetError: the folder is missing, holds no image, or one that is not read.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    there = [
        path
        for path in (folder.rglob("*") if below else folder.iterdir())
        if path.suffix.lower() in (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)
        if not any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.relative_to(folder).parts)
    ]
    files = [path for path in there if path.suffix.lower() in IMAGE_SUFFIXES]
    if len(files) < len(there):
        other = min({*there} - {*files})
        raise DatasetError(
            f"{other}: images of this kind are not read ({len(there) - len(files)} of {len(there)} here); convert them "
            f"({', '.join(IMAGE_SUFFIXES)}), or move them away"
        )
    if not files:
        raise DatasetError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H,W,3] RGB, its pixels as they are stored: EXIF orientation turns nothing.

    Raises:
        DatasetError: the file is missing, damaged or cut off, too large, or no image.
    """
    with _answers(path):
        bgr = decode(path.read_bytes(), cv2.IMREAD_COLOR, FILES)
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)


def read_orientation(path: Path) -> int:
    """EXIF orientation, 1..8, of an image file; 1 where it has none.

    Raises:
        DatasetError: as `read_image`.
    """
    with _answers(path):
        return inspect(path.read_bytes(), FILES).orientation


def read_values(path: Path) -> NDArray[Any]:
    """A PNG file's samples as they are stored, [H,W] or [H,W,C], uint8 or uint16; of an indexed one its indices.

    Raises:
        DatasetError: the file is missing, damaged or cut off, too large, or no PNG.
    """
    with _answers(path):
        return decode_values(path.read_bytes())


@contextmanager
def _answers(path: Path) -> Iterator[None]:
    """Turns what may be wrong with a file's bytes into a DatasetError."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    except EncodedImageError as error:
        raise DatasetError(f"{path}: {error}{'; copy or download it again' if error.damaged else ''}") from error
