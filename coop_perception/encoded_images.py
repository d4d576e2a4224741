"""The one way from the bytes of an image file to pixels: what they claim is read and bounded before OpenCV sees them.

What the bytes are says their beginning, never a name. OpenCV takes a file's word for its size, and gets memory for it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.image_headers import (
    BeyondLimitsError,
    EncodedImageError,
    Header,
    read_bmp,
    read_gif,
    read_tiff,
    read_webp,
)
from coop_perception.jpeg_bytes import read_jpeg
from coop_perception.png_bytes import Png, read_png

MAX_PIXELS = 64_000_000
"""More than the sensors of vehicles' cameras have; 200 MB in colour."""


@dataclass(frozen=True, slots=True)
class _Format:
    magic: re.Pattern[bytes]
    read: Callable[[memoryview], Header]


_FORMATS = {
    "jpeg": _Format(re.compile(rb"\xff\xd8\xff"), read_jpeg),
    "png": _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), read_png),
    "bmp": _Format(re.compile(rb"BM"), read_bmp),
    "gif": _Format(re.compile(rb"GIF8[79]a"), read_gif),
    "tiff": _Format(re.compile(rb"II\*\0|MM\0\*"), read_tiff),
    "webp": _Format(re.compile(rb"RIFF....WEBP", re.DOTALL), read_webp),
}
FORMATS = tuple(_FORMATS)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is decoded: formats, of FORMATS, and images of at most `max_pixels`."""

    formats: tuple[str, ...] = ("jpeg", "png")
    max_pixels: int = MAX_PIXELS


CAMERAS = Limits()
FILES = Limits(FORMATS)
LABELS = Limits(("png",))


def inspect(data: Any, limits: Limits) -> Header:
    """What an encoded image claims of itself, when nothing speaks against decoding it.

    Args:
        data: bytes-like.
        limits: what is taken.

    Raises:
        EncodedImageError: another format, more pixels, no size, damaged or cut off; and for JPEG and PNG all that
            `read_jpeg` and `read_png` refuse.
    """
    view = memoryview(data)
    if not len(view):
        raise EncodedImageError("is empty", damaged=True)
    expected = " or ".join(known.upper() for known in limits.formats)
    name = next((name for name, known in _FORMATS.items() if known.magic.match(view)), None)
    if name is None:
        raise EncodedImageError(
            f"begins with {bytes(view[:8]).hex(' ')}, which is no image format; expected {expected}"
        )
    if name not in limits.formats:
        raise BeyondLimitsError(f"is {name.upper()}, expected {expected}; convert it")
    try:
        header = _FORMATS[name].read(view)
    except struct.error as error:
        raise EncodedImageError(f"is {name.upper()} that is cut off", damaged=True) from error
    if header.width <= 0 or header.height <= 0:
        raise EncodedImageError(f"is {name.upper()} of {header.width}x{header.height}: it has no pixels", damaged=True)
    if (pixels := max(header.width * header.height, header.piece)) > limits.max_pixels:
        raise BeyondLimitsError(
            f"is {name.upper()} of {header.width}x{header.height}, {pixels} pixels, expected at most "
            f"{limits.max_pixels}; scale it down"
        )
    return header


def decode(data: Any, flags: int, limits: Limits) -> NDArray[Any]:
    """Pixels as stored (no orientation is applied), as OpenCV decodes them.

    Args:
        data: bytes-like.
        flags: cv2.IMREAD_UNCHANGED or IMREAD_COLOR.
        limits: what is taken.

    Raises:
        EncodedImageError: as `inspect` and `Png.picture`, or OpenCV finds it damaged.
    """
    header = inspect(data, limits)
    return _pixels(_picture(data, header), header, flags)


def decode_values(data: Any, limits: Limits = LABELS) -> NDArray[Any]:
    """As `decode` unchanged, but of an indexed or grey PNG the stored values, uint8 [H,W]: indices are not looked up,
    and 1, 2 or 4 bits not scaled to eight.

    Raises:
        EncodedImageError: as `decode`.
    """
    header = inspect(data, limits)
    if isinstance(header, Png) and header.has_values:
        return np.asarray(_pixels(header.as_grey(), header, cv2.IMREAD_UNCHANGED) // header.unit, np.uint8)
    return _pixels(_picture(data, header), header, cv2.IMREAD_UNCHANGED)


def png_bits(data: Any) -> int:
    """Bits of a sample, of a PNG as its header says them; 8 of any other format, and of what is cut off there."""
    head = bytes(memoryview(data)[:25])
    return head[24] if len(head) == 25 and _FORMATS["png"].magic.match(head) else 8


def _picture(data: Any, header: Header) -> Any:
    return header.picture() if isinstance(header, Png) else data


def _pixels(data: Any, header: Header, flags: int) -> NDArray[Any]:
    if flags != cv2.IMREAD_UNCHANGED:  # which implies it
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise EncodedImageError(f"cannot be decoded ({error})", damaged=True) from error
    if image is None or image.shape[:2] != (header.height, header.width):
        raise EncodedImageError("cannot be decoded as an image", damaged=True)
    return np.asarray(image)
