"""What an encoded image claims of itself, read from its first bytes; BMP, GIF, TIFF and WebP, whose headers say it all.

JPEG and PNG have files of their own: `jpeg_bytes.py` and `png_bytes.py`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_PARTS = 100_000
"""JPEG segments or PNG chunks of one image. At 8 KiB each, as libpng writes them, that is 800 MB."""

_SHORT, _LONG = 3, 4
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SAMPLES, _TIFF_STRIP, _TIFF_TILE = 256, 257, 277, 278, (322, 323)
_TIFF_BITS = 258
_TIFF_SIZES = (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SAMPLES, _TIFF_STRIP, *_TIFF_TILE)
_ONE_STRIP = 2**32 - 1


class EncodedImageError(ValueError):
    """Bytes that are not decoded; the message says what they are, and what is expected.

    Args:
        found: the message.
        damaged: whether the bytes have been altered or cut off, so that another copy may be good.
    """

    def __init__(self, found: str, damaged: bool = False) -> None:
        super().__init__(found)
        self.damaged = damaged


class BeyondLimitsError(EncodedImageError):
    """A format or a number of pixels that is not taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Size in pixels, EXIF orientation 1..8 (1: as stored), and `piece`, the pixels of the largest part that is decoded
    at once, where a file may claim more for one than for the whole."""

    width: int
    height: int
    orientation: int = 1
    piece: int = 0


def read_bmp(data: memoryview) -> Header:
    """Raises struct.error where the data ends before the size."""
    (kind,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if kind == 12 else "<ii", data, 18)
    return Header(width=width, height=abs(height))  # below 0: rows from the top


def read_gif(data: memoryview) -> Header:
    """Raises struct.error where the data ends before the size."""
    width, height = struct.unpack_from("<HH", data, 6)
    return Header(width=width, height=height)


def read_webp(data: memoryview) -> Header:
    """Raises struct.error where the data ends before the size, EncodedImageError where its first chunk has none."""
    kind = bytes(data[12:16])
    if kind == b"VP8X":
        low, high, low_2, high_2 = struct.unpack_from("<HBHB", data, 24)
        return Header(width=(high << 16 | low) + 1, height=(high_2 << 16 | low_2) + 1)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header(width=(bits & 0x3FFF) + 1, height=(bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header(width=width & 0x3FFF, height=height & 0x3FFF)
    raise EncodedImageError(f"is WebP whose first chunk is {kind!r}, expected VP8, VP8L or VP8X", damaged=True)


def read_tiff(data: memoryview) -> Header:
    """Raises struct.error where the data ends before the size, EncodedImageError where more than four samples make a
    pixel, these are not of 8 or 16 bits, or sizes are no numbers of 16 or 32 bits."""
    tags = tiff_tags(data)
    wrong = [tag for tag in _TIFF_SIZES if tags.get(tag, 0) is None]
    if wrong:
        raise EncodedImageError(f"is TIFF whose tag {wrong[0]}, a size, is no number of 16 or 32 bits")
    if (samples := tags.get(_TIFF_SAMPLES) or 1) > 4:
        raise EncodedImageError(f"is TIFF of {samples} samples a pixel, expected at most 4")
    if (bits := tags.get(_TIFF_BITS) or 8) > 16:
        raise EncodedImageError(f"is TIFF with samples of {bits} bits, expected 8 or 16: depth, or floats; convert it")
    width, height = tags.get(_TIFF_WIDTH) or 0, tags.get(_TIFF_HEIGHT) or 0
    rows = tags.get(_TIFF_STRIP) or 0
    tile = [tags.get(tag) or 0 for tag in _TIFF_TILE]
    return Header(width=width, height=height, piece=max(0 if rows == _ONE_STRIP else width * rows, tile[0] * tile[1]))


def tiff_tags(data: memoryview) -> dict[int, int | None]:
    """The tags of the first directory of a TIFF file, which EXIF is too: the number where one of 16 or 32 bits stands
    there, of the bits of several samples the first, None for all else.

    Raises:
        struct.error: the data ends before the directory does.
    """
    order = "<" if bytes(data[:2]) == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, int | None] = {}
    for place in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, place)
        code = {_SHORT: "H", _LONG: "I"}.get(kind) if number == 1 or tag == _TIFF_BITS else None
        where = place + 8
        if number > 2 and code == "H":  # too many to stand there
            (where,) = struct.unpack_from(order + "I", data, where)
        tags.setdefault(tag, struct.unpack_from(order + code, data, where)[0] if code else None)
    return tags


def exif_orientation(exif: memoryview) -> int:
    """1..8, of EXIF's TIFF part; 1 where it has none, or none that can be read."""
    try:
        orientation = tiff_tags(exif).get(274)
    except struct.error:
        return 1
    return orientation if orientation in range(1, 9) else 1  # type: ignore[return-value]
