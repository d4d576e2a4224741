"""Image files and folders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


class DatasetError(ValueError):
    """A data set that cannot be used; the message names the file."""


def image_files(folder: Path, below: bool = False) -> list[Path]:
    """The image files in a folder, in no order; with `below` those in folders inside it, too.

    Raises:
        DatasetError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    files = [
        path for path in (folder.rglob("*") if below else folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise DatasetError(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return files


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as uint8 [H,W,3] RGB.

    Raises:
        DatasetError: the file is missing, damaged or cut off, or no image.
    """
    return np.asarray(cv2.cvtColor(decode(content(path), path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)


def content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error


def decode(data: bytes, path: Path, flags: int) -> NDArray[Any]:
    """An image as OpenCV decodes it.

    Args:
        data: the file's bytes.
        path: of the file, for messages.
        flags: cv2.IMREAD_*.

    Raises:
        DatasetError: the file is damaged or cut off, or no image.
    """
    # OpenCV fills what a cut JPEG lacks with grey. Neither marker can occur within compressed data.
    cut = data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data and not cut else None
    if image is None:
        what = "is cut off" if cut else "cannot be decoded as an image"
        raise DatasetError(f"{path}: {what}; copy or download it again")
    return np.asarray(image)
