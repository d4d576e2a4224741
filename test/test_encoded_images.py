"""What the bytes of an image claim: refused before memory is taken for it, and read as it is stored."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coop_perception.encoded_images import CAMERAS, FILES, Limits, decode, decode_values, inspect
from coop_perception.image_headers import EncodedImageError
from coop_perception.png_bytes import SIGNATURE

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
GREY, INDEXED = 0, 3


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, samples: bytes, bits: int = 8, colour: int = GREY, interlaced: bool = False) -> bytes:
    """Of rows as they are stored, each behind the byte of its filter."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    palette = chunk(b"PLTE", b"\1\2\3" * 2**bits) if colour == INDEXED else b""
    return SIGNATURE + header + palette + chunk(b"IDAT", zlib.compress(samples)) + chunk(b"IEND", b"")


def rows(values: np.ndarray, bits: int, interlaced: bool = False) -> bytes:
    """Of values below 2**bits, unfiltered."""
    parts = [values[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [values]
    stored = b""
    for part in parts:
        for row in part if part.size else ():
            stored += b"\0" + np.packbits(np.unpackbits(row[:, np.newaxis], axis=1)[:, 8 - bits :]).tobytes()
    return stored


def saved(file_format: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    (image or Image.fromarray(noise)).save(stream, file_format, **options)
    return stream.getvalue()


def patched(data: bytes, at: int, code: str, *values: int) -> bytes:
    return data[:at] + struct.pack(code, *values) + data[at + struct.calcsize(code) :]


def jpeg_size(data: bytes, width: int, height: int) -> bytes:
    frame = next(at for at in (data.find(bytes([0xFF, 0xC0 + kind])) for kind in (0, 2)) if at > 0)
    return patched(data, frame + 5, ">HH", height, width)


def tiff_tag(data: bytes, tag: int, value: int) -> bytes:
    """With that tag's one number replaced."""
    (start,) = struct.unpack_from("<I", data, 4)
    at = next(at for at in range(start + 2, len(data), 12) if struct.unpack_from("<H", data, at) == (tag,))
    return patched(data, at + 2, "<HII", 4, 1, value)


def scans(count: int) -> bytes:
    whole = saved("JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (count - whole.count(b"\xff\xda")) + b"\xff\xd9"


HUGE = 30_000
TIFF, WEBP = saved("TIFF"), saved("WEBP", lossless=True)
BOMBS = {
    "PNG chunk": (
        SIGNATURE + struct.pack(">I", 0xFFFFFF00) + b"IDAT" + bytes(25),
        "'IDAT' at byte 8 claims 4294967040",
    ),
    "PNG size": (png(HUGE, HUGE, bytes(9)), "PNG of 30000x30000, 900000000 pixels, expected at most 64000000"),
    "PNG samples": (png(8, 8, bytes(10**8)), "PNG of 8x8 with more data than the 72 bytes"),
    "JPEG size": (jpeg_size(saved("JPEG"), HUGE, HUGE), "JPEG of 30000x30000"),
    "JPEG blocks": (jpeg_size(saved("JPEG"), 8000, 8000), "fewer than a bit for each of its 1000000 blocks"),
    "progressive JPEG blocks": (jpeg_size(saved("JPEG", progressive=True), 8000, 8000), "fewer than a bit for each"),
    "JPEG scans": (scans(1000), "more than 20 scans"),
    "GIF size": (patched(saved("GIF"), 6, "<HH", HUGE, HUGE), "GIF of 30000x30000"),
    "BMP size": (patched(saved("BMP"), 18, "<ii", HUGE, -HUGE), "BMP of 30000x30000"),
    "TIFF size": (tiff_tag(tiff_tag(TIFF, 256, HUGE), 257, HUGE), "TIFF of 30000x30000"),
    "TIFF samples": (tiff_tag(TIFF, 277, 2**31), "TIFF of 2147483648 samples a pixel, expected at most 4"),
    "TIFF of floats": (cv2.imencode(".tiff", np.zeros((4, 5, 3), np.float32))[1].tobytes(), "samples of 32 bits"),
    "TIFF strip": (tiff_tag(TIFF, 278, 2**31), f"TIFF of 20x12, {20 * 2**31} pixels"),
    "WebP size": (patched(WEBP, 21, "<I", 0x0FFFFFFF), "WEBP of 16384x16384"),
}
IN_A_PROCESS = """
import resource, sys
from pathlib import Path
from coop_perception.encoded_images import FILES, EncodedImageError, decode
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20),) * 2)
for length in map(int, sys.argv[1:]):
    try:
        print("decoded", decode(sys.stdin.buffer.read(length), -1, FILES).shape)
    except EncodedImageError as error:
        print(error)
"""


def test_bombs_are_refused_without_the_memory_that_they_claim() -> None:
    """64 MB more than the process has before; each claims hundreds."""
    bombs = [bomb for bomb, _ in BOMBS.values()]
    command = [sys.executable, "-c", IN_A_PROCESS, *(str(len(bomb)) for bomb in bombs)]
    done = subprocess.run(command, input=b"".join(bombs), capture_output=True, timeout=60, check=False)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, len(lines)) == (0, len(bombs)), done.stderr.decode()
    assert {name: line for (name, (_, says)), line in zip(BOMBS.items(), lines, strict=True) if says not in line} == {}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(name: str) -> None:
    begun = time.process_time()
    with pytest.raises(EncodedImageError):
        decode(BOMBS[name][0], cv2.IMREAD_UNCHANGED, FILES)
    assert time.process_time() - begun < 0.5


SOUND = {
    "jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True),
    "grey jpeg": saved("JPEG", Image.new("L", (20, 12), 100)),
    "cmyk": saved("JPEG", Image.new("CMYK", (20, 12))),
    "restarts": cv2.imencode(".jpg", np.zeros((12, 20, 3), np.uint8), [cv2.IMWRITE_JPEG_RST_INTERVAL, 1])[1].tobytes(),
    "exif": saved("JPEG", exif=b"Exif\0\0a thumbnail: \xff\xd8 \xff\xda \xff\xd9"),
    "png": saved("PNG"),
    "indexed": saved("PNG", Image.new("P", (20, 12), 3)),
    "one bit": saved("PNG", Image.new("1", (20, 12), 1)),
    "animated": saved("PNG", save_all=True, append_images=[Image.new("RGB", (20, 12))]),
    "bmp": saved("BMP"),
    "gif": saved("GIF"),
    "tiff": TIFF,
    "webp": saved("WEBP"),
    "lossless webp": WEBP,
    "WEBP with a profile": saved("WEBP", icc_profile=b"profile"),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_cameras_and_tools_write_is_decoded(name: str) -> None:
    header = inspect(SOUND[name] + b"\0\0appended", FILES)
    assert (header.width, header.height, header.orientation) == (20, 12, 1)
    assert decode(SOUND[name], cv2.IMREAD_COLOR, FILES).shape == (12, 20, 3)


@pytest.mark.parametrize("progressive", [False, True])
def test_the_smallest_jpeg_of_its_size_is_decoded(progressive: bool) -> None:
    data = saved("JPEG", Image.new("L", (2000, 1200)), progressive=progressive, optimize=True, quality=1)
    assert decode(data, cv2.IMREAD_UNCHANGED, CAMERAS).shape == (1200, 2000)


def test_limits_are_those_given() -> None:
    decode(SOUND["jpeg"], cv2.IMREAD_COLOR, Limits(max_pixels=240))
    with pytest.raises(EncodedImageError, match="JPEG of 20x12, 240 pixels, expected at most 239; scale it down"):
        decode(SOUND["jpeg"], cv2.IMREAD_COLOR, Limits(max_pixels=239))
    with pytest.raises(EncodedImageError, match="is GIF, expected JPEG or PNG; convert it"):
        decode(SOUND["gif"], cv2.IMREAD_COLOR, CAMERAS)
    decode(SOUND["gif"], cv2.IMREAD_COLOR, Limits(("png", "gif")))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (
            b"P6 20 12 255\n",
            "begins with 50 36 20 32 30 20 31 32, which is no image format; expected JPEG or PNG or BMP",
        ),
        (SOUND["jpeg"][:-2], "is JPEG that is cut off"),
        (SOUND["jpeg"][:30], "claims 67 bytes, 8 follow: it is cut off"),
        (SOUND["png"][:-12], "is PNG that is cut off"),
        (jpeg_size(SOUND["jpeg"], 0, 12), "is JPEG of 0x12: it has no pixels"),
        (b"\xff\xd8\xff\xd9", "is JPEG without an image"),
        (png(0, 4, b""), "is PNG of 0x4: it has no pixels"),
        (png(4, 4, bytes(19)), "PNG of 4x4 with less data than the 20 bytes"),
        (patched(SOUND["png"], 19, "B", 21), "'IHDR' has another checksum"),
        (patched(SOUND["png"], 60, "B", SOUND["png"][60] ^ 255), "'IDAT' has another checksum"),
        (SOUND["bmp"][:20], "is BMP that is cut off"),
    ],
)
def test_what_is_damaged_is_said(data: bytes, says: str) -> None:
    with pytest.raises(EncodedImageError, match=says):
        decode(data, cv2.IMREAD_COLOR, FILES)


MOST = 4096


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """A sound file with a few bytes changed, removed or put in, or its beginning with anything behind it."""
    data = bytearray(draw(st.sampled_from(sorted(SOUND.values()))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, min(len(data), draw(st.sampled_from([60, len(data)]))) - 1)))
        put_in = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff\xda", b"\xff\xd9", b"\xff\xff\xff\xff"]))
        )
        data[at : at + draw(st.sampled_from([0, len(put_in), len(put_in), 9]))] = put_in
    return bytes(data[: draw(st.sampled_from([len(data), len(data), draw(st.integers(0, len(data)))]))])


@settings(deadline=None)
@given(st.one_of(altered(), st.binary(max_size=64).map(lambda tail: SIGNATURE + tail), st.binary(max_size=64)))
def test_any_bytes_are_an_image_within_the_limit_or_the_gates_error(data: bytes) -> None:
    for decoder in (lambda given, limits: decode(given, cv2.IMREAD_COLOR, limits), decode_values):
        try:
            image = decoder(data, Limits(FILES.formats, MOST))
        except EncodedImageError:
            continue
        assert 0 < image.shape[0] * image.shape[1] <= MOST


@settings(deadline=None)
@given(
    st.integers(1, 19),
    st.integers(1, 19),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([GREY, INDEXED]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_stored_values_are_read_whatever_they_look_like(
    width: int, height: int, bits: int, colour: int, interlaced: bool, seed: int
) -> None:
    """Grey of few bits, which OpenCV scales, and indices of a palette whose colours are all the same."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (height, width), np.uint8)
    data = png(width, height, rows(values, bits, interlaced), bits, colour, interlaced)
    np.testing.assert_array_equal(decode_values(data), values)


def test_values_of_more_channels_and_bits_are_read_as_they_are() -> None:
    deep = np.arange(240, dtype=np.uint16).reshape(12, 20) * 257
    np.testing.assert_array_equal(decode_values(cv2.imencode(".png", deep)[1]), deep)
    assert decode_values(SOUND["png"]).shape == (12, 20, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pixels_are_those_stored_and_orientation_is_told(kind: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = saved(kind, exif=exif)
    assert inspect(turned, CAMERAS).orientation == 6
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_UNCHANGED):
        np.testing.assert_array_equal(decode(turned, flags, CAMERAS), decode(saved(kind), flags, CAMERAS))
