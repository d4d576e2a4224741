"""JPEG files: their segments, walked as libjpeg does, before OpenCV sees them."""

from __future__ import annotations

import re
import struct

from coop_perception.image_headers import MAX_PARTS, EncodedImageError, Header, exif_orientation

MAX_SCANS = 20
"""Each scan goes over the whole image again. Cameras write one, or one for each colour; libjpeg's progressive files
have 10, of four colours 18."""

# Neither what stands for 0xff within a scan, nor restarts, nor fill bytes, which have no length behind them.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_EXIF = b"Exif\0\0"


def read_jpeg(data: memoryview) -> Header:
    """Size and orientation.

    Raises:
        EncodedImageError: cut off, a segment's length beyond the data, no frame or several, a kind of frame or a number
            of colours or scans that no camera writes; a size that these bytes cannot fill.
        struct.error: cut off within a segment's length.
    """
    size: tuple[int, int] | None = None
    orientation, scans, position = 1, 0, 2
    for _ in range(MAX_PARTS):
        match = _MARKER.search(data, position)
        if match is None:
            raise EncodedImageError("is JPEG that is cut off", damaged=True)
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            break
        (length,) = (2,) if marker == _SOI else struct.unpack_from(">H", data, position)
        if length < 2 or position + length > len(data):
            raise EncodedImageError(
                f"is JPEG whose segment {marker:02x} at byte {match.start()} claims {length} bytes, "
                f"{len(data) - position} follow: it is cut off",
                damaged=True,
            )
        segment = data[position + 2 : position + length]
        if marker in _OTHER_FRAMES or marker == _SOI or (marker in _FRAMES and size is not None):
            raise EncodedImageError(
                f"is JPEG with marker {marker:02x} at byte {match.start()}, expected one baseline or progressive frame",
            )
        if marker in _FRAMES:
            height, width, colours = struct.unpack_from(">xHHB", segment)
            if colours not in (1, 3, 4):
                raise EncodedImageError(f"is JPEG of {colours} colours, expected 1, 3 or 4")
            size = width, height
        elif marker == _APP1 and bytes(segment[: len(_EXIF)]) == _EXIF:
            orientation = exif_orientation(segment[len(_EXIF) :])
        elif marker == _SOS:
            scans += 1
            if size is None:
                raise EncodedImageError("is JPEG with a scan before its size", damaged=True)
            if scans > MAX_SCANS:
                raise EncodedImageError(f"is JPEG of more than {MAX_SCANS} scans; cameras write one, or one per colour")
        position += length
    else:
        raise EncodedImageError(f"is JPEG of more than {MAX_PARTS} segments")
    if size is None or not scans:
        raise EncodedImageError("is JPEG without an image", damaged=True)
    if (blocks := size[0] * size[1] // 64) > 8 * len(data):  # libjpeg would fill up what is not there
        raise EncodedImageError(
            f"is JPEG of {size[0]}x{size[1]} in {len(data)} bytes, fewer than a bit for each of its {blocks} blocks",
            damaged=True,
        )
    return Header(width=size[0], height=size[1], orientation=orientation)
