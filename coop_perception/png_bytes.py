"""PNG files: their chunks, checked before OpenCV sees them; of these it gets what makes the picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from coop_perception.image_headers import MAX_PARTS, EncodedImageError, Header, exif_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
_GREY, _INDEXED = 0, 3
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT")
_BITS = (1, 2, 4, 8, 16)
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row, and steps."""
_PIECE = 1 << 14  # bytes inflated at once, to 17 MB at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Png(Header):
    """Its bits per sample, colour type, and the chunks that make the picture, whole: PLTE and tRNS, and IDAT."""

    bits: int
    colour: int
    interlaced: bool
    colours: list[memoryview]
    data: list[memoryview]

    def picture(self) -> bytes:
        """The file without all that is not the picture: texts, profiles, orientation, further frames.

        Raises:
            EncodedImageError: its samples are damaged, or more or fewer than the size needs.
        """
        return b"".join([SIGNATURE, self._header(self.colour), *self.colours, *self._samples(), _chunk(b"IEND")])

    def as_grey(self) -> bytes:
        """An indexed or grey file's stored values as those of a grey one, which are laid out alike.

        Raises:
            EncodedImageError: as `picture`.
        """
        return b"".join([SIGNATURE, self._header(_GREY), *self._samples(), _chunk(b"IEND")])

    @property
    def has_values(self) -> bool:
        """Whether each pixel is one number of at most 8 bits: a level of grey, or an index."""
        return self.colour in (_GREY, _INDEXED) and self.bits <= 8

    @property
    def unit(self) -> int:
        """What OpenCV multiplies the stored values of a grey file with, so that the largest becomes 255."""
        return 255 // ((1 << self.bits) - 1)

    def _header(self, colour: int) -> bytes:
        fields = struct.pack(">IIBBBBB", self.width, self.height, self.bits, colour, 0, 0, self.interlaced)
        return _chunk(b"IHDR", fields)

    def _samples(self) -> list[bytes]:
        """Chunks of the samples, inflated. A few bytes may inflate to gigabytes, which libpng would work through to the
        end; what is inflated already, it takes as it is."""
        expected, found, chunks = self._sample_bytes(), 0, []
        contents = (chunk[8:-4] for chunk in self.data)
        pieces = (content[start : start + _PIECE] for content in contents for start in range(0, len(content), _PIECE))
        inflate, store = zlib.decompressobj(), zlib.compressobj(0)
        try:
            for piece in pieces:
                samples = inflate.decompress(piece)
                found += len(samples)
                if found > expected:
                    break
                chunks.append(_chunk(b"IDAT", store.compress(samples)))
                if inflate.eof:
                    break
        except zlib.error as error:
            raise EncodedImageError(f"is PNG that is damaged ({error})", damaged=True) from error
        if found != expected:
            raise EncodedImageError(
                f"is PNG of {self.width}x{self.height} with {'more' if found > expected else 'less'} data than the "
                f"{expected} bytes that this needs",
                damaged=True,
            )
        return [*chunks, _chunk(b"IDAT", store.flush())]

    def _sample_bytes(self) -> int:
        """Of all rows, each with the byte that names its filter."""
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        sizes = ((-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in passes)
        bits = self.bits * _SAMPLES[self.colour]
        return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)


def read_png(data: memoryview) -> Png:
    """What the chunks say; the samples are not looked at.

    Raises:
        EncodedImageError: cut off, a chunk's length beyond the data, or no image header as the format has it.
    """
    header = b""
    orientation = 1
    colours: dict[bytes, memoryview] = {}
    samples: list[memoryview] = []
    for number, (kind, chunk) in enumerate(_chunks(data)):
        if (number == 0) != (kind == b"IHDR"):
            raise EncodedImageError("is PNG that does not begin with its one header", damaged=True)
        if kind in _PICTURE and zlib.crc32(chunk[4:-4]).to_bytes(4, "big") != chunk[-4:]:
            raise EncodedImageError(f"is PNG whose chunk {kind.decode()!r} has another checksum", damaged=True)
        if number == 0:
            header = bytes(chunk[8:-4])
        elif kind in (b"PLTE", b"tRNS"):
            colours.setdefault(kind, chunk)
        elif kind == b"IDAT":
            samples.append(chunk)
        elif kind == b"eXIf":
            orientation = exif_orientation(chunk[8:-4])
    if len(header) != 13:
        raise EncodedImageError(f"is PNG with a header of {len(header)} bytes, expected 13", damaged=True)
    width, height, bits, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", header)
    if colour not in _SAMPLES or bits not in _BITS or compression or filters or interlace > 1:
        raise EncodedImageError(f"is PNG of an unknown kind (header {header[8:].hex(' ')})", damaged=True)
    return Png(
        width=width,
        height=height,
        orientation=orientation,
        bits=bits,
        colour=colour,
        interlaced=bool(interlace),
        colours=[colours[kind] for kind in (b"PLTE", b"tRNS") if kind in colours],
        data=samples,
    )


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and bytes, length and checksum included, of each chunk before IEND."""
    position = len(SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            raise EncodedImageError("is PNG that is cut off", damaged=True)
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            raise EncodedImageError(
                f"is PNG whose chunk {kind.decode('ascii', 'replace')!r} at byte {position} claims {length} bytes, "
                f"{len(data) - position - 12} follow: it is cut off",
                damaged=True,
            )
        if kind == b"IEND":
            return
        yield kind, data[position : position + 12 + length]
        position += 12 + length
    raise EncodedImageError(f"is PNG of more than {MAX_PARTS} chunks")


def _chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
