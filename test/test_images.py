"""Image messages to arrays and back."""

from __future__ import annotations

import io
from array import array
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import sensor_msgs.msg
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.encoded_images import Limits
from coop_perception.images import (
    ImageError,
    decode,
    decode_compressed,
    encode_compressed,
    fill_compressed,
    fill_image,
    leaves_high_bits_empty,
    to_depth,
    to_mask,
    to_rgb,
)


@dataclass
class Image:
    """The fields of sensor_msgs/Image."""

    height: int = 0
    width: int = 0
    encoding: str = ""
    is_bigendian: int = 0
    step: int = 0
    data: Any = field(default_factory=lambda: np.empty(0, np.uint8))


@dataclass
class CompressedImage:
    """The fields of sensor_msgs/CompressedImage."""

    format: str = ""
    data: Any = b""


def image(samples: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """A message of [H,W,channels] samples, with rows padded by bytes that are no pixels."""
    height, width = samples.shape[:2]
    if samples.dtype == np.uint16:
        samples = samples.astype(">u2" if big_endian else "<u2")
    rows = np.frombuffer(samples.tobytes(), np.uint8).reshape(height, -1)
    rows = np.hstack([rows, np.full((height, padding), 173, np.uint8)])
    return Image(height, width, encoding, int(big_endian), rows.shape[1], rows.tobytes())


def random_image(seed: int, height: int, width: int, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (height, width, channels), dtype, endpoint=True)


def stripes(height: int, width: int, *colours: tuple[int, int, int]) -> np.ndarray:
    """Vertical stripes of equal width."""
    result = np.empty((height, width, 3), np.uint8)
    for index, colour in enumerate(colours):
        result[:, index * width // len(colours) : (index + 1) * width // len(colours)] = colour
    return result


def distance(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


sizes = st.integers(1, 17)
seeds = st.integers(0, 2**32 - 1)
paddings = st.integers(0, 9)
CHANNEL_ORDERS = {"rgb": [0, 1, 2], "bgr": [2, 1, 0], "rgba": [0, 1, 2], "bgra": [2, 1, 0]}


@settings(deadline=None)
@given(seeds, sizes, sizes, paddings, st.sampled_from(sorted(CHANNEL_ORDERS)))
def test_8_bit_colours_are_exact_whatever_the_row_padding(seed, height, width, padding, order):
    samples = random_image(seed, height, width, len(order))
    expected = samples[:, :, CHANNEL_ORDERS[order]]
    np.testing.assert_array_equal(to_rgb(image(samples, f"{order}8", padding)), expected)


@settings(deadline=None)
@given(seeds, sizes, sizes, paddings, st.sampled_from(sorted(CHANNEL_ORDERS)), st.booleans())
def test_16_bit_colours_are_scaled_in_either_byte_order(seed, height, width, padding, order, big_endian):
    samples = random_image(seed, height, width, len(order), np.uint16)
    expected = np.rint(samples[:, :, CHANNEL_ORDERS[order]] / 257)
    np.testing.assert_array_equal(to_rgb(image(samples, f"{order}16", padding, big_endian)), expected)


@settings(deadline=None)
@given(seeds, sizes, sizes, paddings, st.booleans())
def test_grey_becomes_three_equal_channels(seed, height, width, padding, big_endian):
    grey = random_image(seed, height, width, 1)
    expected = np.repeat(grey, 3, axis=2)
    np.testing.assert_array_equal(to_rgb(image(grey, "mono8", padding)), expected)
    np.testing.assert_array_equal(to_rgb(image(grey.astype(np.uint16) * 257, "mono16", padding, big_endian)), expected)


def test_types_without_colours_are_read_in_opencv_order():
    samples = random_image(0, 4, 5)
    np.testing.assert_array_equal(to_rgb(image(samples, "8UC3")), samples[:, :, ::-1])
    np.testing.assert_array_equal(to_rgb(image(samples[:, :, :1], "8UC1")), np.repeat(samples[:, :, :1], 3, axis=2))
    four = random_image(0, 4, 5, 4)
    np.testing.assert_array_equal(to_rgb(image(four, "8UC4")), four[:, :, 2::-1])


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize(
    "make_data", [bytes, lambda data: array("B", data), lambda data: np.frombuffer(data, np.uint8)]
)
def test_rgb8_and_masks_are_views_of_the_message(padding, make_data):
    message = image(random_image(0, 6, 7), "rgb8", padding)
    message.data = make_data(message.data)
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))
    mask = image(random_image(0, 6, 7, 1), "mono8", padding)
    mask.data = make_data(mask.data)
    assert np.shares_memory(to_mask(mask), np.frombuffer(mask.data, np.uint8))


MOSAIC = {"r": 0, "g": 1, "b": 2}


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("bits", "big_endian"), [(8, False), (16, False), (16, True)])
@pytest.mark.parametrize("padding", [0, 6])
def test_bayer_mosaics_of_a_known_scene(pattern, bits, big_endian, padding):
    scene = stripes(32, 96, (230, 40, 20), (20, 210, 60), (30, 50, 220))
    mosaic = np.empty((32, 96, 1), np.uint8)
    for index, letter in enumerate(pattern):  # the pattern names the pixels of the first two rows
        row, column = divmod(index, 2)
        mosaic[row::2, column::2, 0] = scene[row::2, column::2, MOSAIC[letter]]
    samples = mosaic if bits == 8 else mosaic.astype(np.uint16) * 257
    rgb = to_rgb(image(samples, f"bayer_{pattern}{bits}", padding, big_endian))
    inside = [slice(4, 28), slice(36, 60), slice(68, 92)]
    for columns in inside:
        assert distance(rgb[4:28, columns], scene[4:28, columns]) <= 1


def yuv_bt601(rgb: np.ndarray) -> np.ndarray:
    """Video-range BT.601, as cameras send it, by its definition."""
    matrix = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    return np.rint(rgb @ matrix.T + [16, 128, 128]).astype(np.uint8)


SCENE = stripes(8, 24, (200, 30, 40), (40, 180, 60), (50, 60, 190))


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "y_at", "u_at", "v_at"),
    [("yuv422", (1, 3), 0, 2), ("uyvy", (1, 3), 0, 2), ("yuv422_yuy2", (0, 2), 1, 3), ("yuyv", (0, 2), 1, 3)],
)
def test_yuv_422(encoding, y_at, u_at, v_at, padding):
    yuv = yuv_bt601(SCENE)
    packed = np.empty((8, 12, 4), np.uint8)
    packed[:, :, y_at[0]], packed[:, :, y_at[1]] = yuv[:, 0::2, 0], yuv[:, 1::2, 0]
    packed[:, :, u_at], packed[:, :, v_at] = yuv[:, ::2, 1], yuv[:, ::2, 2]
    assert distance(to_rgb(image(packed.reshape(8, 24, 2), encoding, padding)), SCENE) <= 3


@pytest.mark.parametrize("padding", [0, 2])
@pytest.mark.parametrize(("encoding", "chroma"), [("nv12", (1, 2)), ("nv21", (2, 1))])
def test_yuv_420_semi_planar(encoding, chroma, padding):
    yuv = yuv_bt601(SCENE)
    planes = np.vstack([yuv[:, :, 0], yuv[::2, ::2, chroma].reshape(4, 24)])
    message = image(planes[:, :, np.newaxis], encoding, padding)
    message.height = 8
    assert distance(to_rgb(message), SCENE) <= 3


@settings(deadline=None)
@given(seeds, sizes, sizes, st.sampled_from(["rclpy", "ndarray"]))
def test_what_is_filled_in_is_read_back(seed, height, width, kind):
    empty: Any = array("B") if kind == "rclpy" else np.empty(0, np.uint8)
    pixels = random_image(seed, height, width)
    message = Image(data=empty)
    fill_image(message, pixels[::-1], "rgb8")
    assert (message.encoding, message.step, type(message.data)) == ("rgb8", 3 * width, type(empty))
    np.testing.assert_array_equal(to_rgb(message), pixels[::-1])
    fill_image(message, pixels[:, :, 1], "mono8")
    np.testing.assert_array_equal(to_mask(message), pixels[:, :, 1])


def test_a_message_that_is_filled_again_keeps_its_memory_and_shares_none():
    first, second = random_image(1, 4, 6), random_image(2, 4, 6)
    message = Image(data=array("B"))
    fill_image(message, first, "rgb8")
    data = message.data
    fill_image(message, second[:, ::-1], "rgb8")
    assert message.data is data
    np.testing.assert_array_equal(to_rgb(message), second[:, ::-1])
    second[:] = 0
    assert to_rgb(message).any()
    fill_image(message, first[:2], "rgb8")
    np.testing.assert_array_equal(to_rgb(message), first[:2])


@settings(deadline=None)
@given(seeds, sizes, sizes)
def test_png_is_lossless(seed, height, width):
    pixels = random_image(seed, height, width)
    message = CompressedImage()
    fill_compressed(message, pixels, "png")
    assert message.format == "rgb8; png compressed bgr8"
    np.testing.assert_array_equal(decode(message), pixels)
    fill_compressed(message, pixels[:, :, 0], "png")
    np.testing.assert_array_equal(to_mask(message), pixels[:, :, 0])
    np.testing.assert_array_equal(decode(message), np.repeat(pixels[:, :, :1], 3, axis=2))


@pytest.mark.parametrize(
    "text", ["jpeg", "JPEG", "png", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8", "compressed RGB8", ""]
)
def test_jpeg_keeps_its_colours_whatever_the_format_string(text):
    rgb = decode_compressed(
        CompressedImage(text, encode_compressed(stripes(16, 48, (200, 30, 40), (30, 40, 200)), "jpeg"))
    )
    assert distance(rgb[4:12, 4:20], np.broadcast_to((200, 30, 40), (8, 16, 3))) <= 8


def test_samples_compressed_as_rgb_are_swapped_back():
    pixels = random_image(0, 4, 4)
    swapped = encode_compressed(np.ascontiguousarray(pixels[:, :, ::-1]), "png")
    np.testing.assert_array_equal(decode(CompressedImage("rgb8; png compressed rgb8", swapped)), pixels)


@pytest.mark.parametrize("encoding", ["mono16", "bayer_rggb16", "mono8"])
def test_sensors_of_fewer_bits_than_their_encoding(encoding):
    """Of 12 bits, not shifted up; what has 8 bits may be as dark as it likes."""
    samples = np.random.default_rng(0).integers(0, 64 if encoding == "mono8" else 4096, (4, 6, 1))
    dark = image(samples.astype(np.uint8 if encoding == "mono8" else np.uint16), encoding)
    assert leaves_high_bits_empty(dark, to_rgb(dark)) == (encoding != "mono8")
    bright = image((16 * samples + 15).astype(np.uint16), "mono16")
    assert not leaves_high_bits_empty(bright, to_rgb(bright)) or encoding == "mono8"
    _, data = cv2.imencode(".png", samples[..., 0].astype(np.uint16))
    for text in ("mono16; png compressed mono16", "png", "mono8; jpeg compressed"):  # which says what it likes
        packed = CompressedImage(text, data.tobytes())
        assert leaves_high_bits_empty(packed, decode(packed))


def test_compressed_mosaic_is_demosaiced():
    mosaic = np.zeros((16, 16), np.uint8)
    mosaic[::2, ::2] = 200  # the red pixels of rggb
    data = encode_compressed(mosaic, "png")
    rgb = decode(CompressedImage("bayer_rggb8; png compressed bayer_rggb8", data))
    assert distance(rgb[4:12, 4:12], np.broadcast_to((200, 0, 0), (8, 8, 3))) == 0


@pytest.mark.parametrize("reading", [decode, to_mask, to_depth])
@pytest.mark.parametrize("size", [1, 2**20])
def test_a_text_of_megabytes_is_shortened(reading, size):
    text = "\x1b[2J" * 10**6
    messages = [Image(size, size, text, 0, 1, b"\0")]
    messages += [CompressedImage(text, b"nothing")] if reading is not to_depth else []
    for message in messages:
        with pytest.raises(ImageError) as caught:
            reading(message)
        assert len(str(caught.value)) < 1000


def test_16_bit_and_transparent_png():
    pixels = random_image(0, 5, 6)
    _, deep = cv2.imencode(".png", pixels[:, :, ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(CompressedImage("rgb16; png compressed bgr16", deep.tobytes())), pixels)
    _, transparent = cv2.imencode(".png", np.dstack([pixels[:, :, ::-1], pixels[:, :, 0]]))
    np.testing.assert_array_equal(decode(CompressedImage("png", transparent.tobytes())), pixels)


def good() -> Image:
    return image(random_image(0, 4, 6), "rgb8")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"width": 0}, ["0x4", "no pixels"]),
        ({"height": 0}, ["6x0", "no pixels"]),
        ({"step": 17}, ["6x4", "step 17", "18 bytes"]),
        ({"data": b"\0" * 71}, ["step 18", "71 bytes", "72"]),
        ({"data": b"\0" * 73}, ["step 18", "73 bytes", "72"]),
        ({"data": b""}, ["0 bytes", "72"]),
        ({"step": 2**32 - 1}, ["step 4294967295", "72 bytes"]),
        ({"encoding": "yuv422", "width": 5, "step": 18}, ["5x4", "even"]),
        ({"encoding": "bayer_rggb8", "width": 5}, ["5x4", "even"]),
        ({"encoding": "nv12", "height": 3, "step": 16}, ["6x3", "even"]),
        ({"encoding": "32FC1"}, ["32FC1", "6x4", "cv_bridge", "rgb8"]),
        ({"encoding": ""}, ["''", "rgb8"]),
    ],
)
def test_bad_messages_are_answered_with_their_numbers(change, found, monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    message = good()
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ImageError) as error:
        decode(message)
    assert [text for text in found if text not in str(error.value)] == []


ROW_BYTES = {"rgb8": 3, "bgra16": 8, "mono16": 2, "bayer_grbg8": 1, "bayer_rggb16": 2, "nv21": 1, "yuyv": 2, "16UC1": 2}


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from(sorted(ROW_BYTES)), st.integers(0, 1), paddings, st.integers(-1, 1))
def test_any_message_is_an_image_or_an_image_error(height, width, encoding, is_bigendian, padding, excess):
    step = width * ROW_BYTES[encoding] + padding
    rows = height * 3 // 2 if encoding == "nv21" else height
    message = Image(height, width, encoding, is_bigendian, step, bytes(step * rows + excess))
    in_pairs = encoding in ("nv21", "yuyv") or encoding.startswith("bayer")
    sound = (
        encoding != "16UC1" and not excess and not (in_pairs and width % 2) and not (encoding == "nv21" and height % 2)
    )
    if sound:
        rgb = decode(message)
        assert (rgb.shape, rgb.dtype) == ((height, width, 3), np.uint8)
    else:
        with pytest.raises(ImageError, match=f"{width}x{height}"):
            decode(message)


@settings(deadline=None)
@given(st.sampled_from(["jpeg", "png"]), st.integers(0, 400), st.binary(max_size=8))
def test_damaged_files_are_an_image_or_an_image_error(file_format, length, tail):
    data = encode_compressed(random_image(0, 8, 8), file_format)[:length] + tail
    try:
        rgb = decode(CompressedImage(file_format, data))
    except ImageError:
        return
    assert rgb.shape == (8, 8, 3)


@pytest.mark.parametrize("text", ["PNG", "png", "mono8; png compressed mono8", "jpeg", ""])
def test_masks_are_png_by_their_bytes_whatever_the_format_string(text):
    ids = np.array([[0, 3, 255], [1, 2, 3]], np.uint8)
    np.testing.assert_array_equal(to_mask(CompressedImage(text, encode_compressed(ids, "png"))), ids)
    indexed = io.BytesIO()
    picture = PIL.Image.fromarray(ids, "P")
    picture.putpalette([0] * 768)
    picture.save(indexed, "PNG")
    np.testing.assert_array_equal(to_mask(CompressedImage(text, indexed.getvalue())), ids)


def test_depth_and_float_samples_are_no_camera_image():
    _, inverse_depth = cv2.imencode(".png", np.ones((4, 4), np.uint16))
    with pytest.raises(ImageError, match="is a depth image, expected a camera's"):
        decode(CompressedImage("32FC1; compressedDepth png", bytes(12) + inverse_depth.tobytes()))
    for text in ("16UC1; png compressed ", "16UC1; compressedDepth png"):  # as image_transport's `compressed` has it
        with pytest.raises(ImageError, match="is a depth image, expected a camera's"):
            decode(CompressedImage(text, inverse_depth.tobytes()))
    assert decode(CompressedImage("mono16; png compressed mono16", inverse_depth.tobytes())).shape == (4, 4, 3)
    with pytest.raises(ImageError, match="mask of uint16"):
        to_mask(CompressedImage("png", inverse_depth.tobytes()))
    _, metres = cv2.imencode(".tiff", np.ones((4, 4), np.float32))
    with pytest.raises(ImageError, match=r"is TIFF, expected JPEG or PNG; convert it .*image_formats"):
        decode(CompressedImage("32FC1; tiff compressed 32FC1", metres.tobytes()))
    with pytest.raises(ImageError, match="is TIFF with samples of 32 bits, expected 8 or 16"):
        decode(CompressedImage("32FC1; tiff compressed 32FC1", metres.tobytes()), Limits(("tiff",)))


@pytest.mark.parametrize("encoding", ["rgb8", "nv12", "unknown to us"])
def test_images_of_more_pixels_than_the_limit_are_refused(encoding, monkeypatch):
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    message = Image(4, 6, encoding, 0, 18, bytes(4 * 18))
    with pytest.raises(ImageError, match=r"of 6x4: 24 pixels, expected at most 23; scale it down .*max_image_pixels"):
        decode(message, Limits(max_pixels=23))
    message.width, message.height = 2**32 - 1, 2**32 - 1
    with pytest.raises(ImageError, match=r"of 4294967295x4294967295: .* expected at most 64000000"):
        decode(message)
    np.testing.assert_array_equal(decode(good(), Limits(max_pixels=24)), decode(good()))


def test_masks_refuse_what_would_alter_class_ids():
    with pytest.raises(ImageError, match="rgb8"):
        to_mask(good())
    with pytest.raises(ImageError, match="jpeg"):
        to_mask(CompressedImage("mono8; jpeg compressed mono8", encode_compressed(np.zeros((4, 4), np.uint8), "jpeg")))
    with pytest.raises(ImageError, match="one channel"):
        to_mask(CompressedImage("png", encode_compressed(random_image(0, 4, 4), "png")))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros(4, np.uint8),
    ],
)
def test_arrays_that_are_no_image_are_refused(pixels):
    with pytest.raises(ImageError, match="uint8"):
        fill_image(Image(), pixels, "rgb8")
    with pytest.raises(ImageError, match="uint8"):
        encode_compressed(pixels, "png")


def test_other_encodings_go_through_an_installed_cv_bridge(tmp_path, monkeypatch):
    """A stand-in for ROS's package, which its own tests cover."""
    (tmp_path / "share/cv_bridge").mkdir(parents=True)
    (tmp_path / "share/cv_bridge/package.xml").touch()
    (tmp_path / "cv_bridge.py").write_text(
        "import numpy as np\n"
        "class CvBridge:\n"
        "    def imgmsg_to_cv2(self, message, desired_encoding):\n"
        "        if message.encoding != 'nv24': raise TypeError('no conversion')\n"
        "        assert desired_encoding == 'rgb8'\n"
        "        return np.full((message.height, message.width, 3), 7, np.uint8)\n"
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    monkeypatch.syspath_prepend(tmp_path)
    message = good()
    message.encoding = "nv24"
    assert (to_rgb(message) == 7).all()
    message.encoding = "32FC2"
    with pytest.raises(ImageError, match=r"32FC2.*no conversion"):
        to_rgb(message)


def test_messages_of_rclpy():
    pixels = random_image(0, 5, 6)
    message = sensor_msgs.msg.Image()
    fill_image(message, pixels, "rgb8")
    np.testing.assert_array_equal(to_rgb(message), pixels)
    assert np.shares_memory(to_rgb(message), np.frombuffer(message.data, np.uint8))
    compressed = sensor_msgs.msg.CompressedImage()
    fill_compressed(compressed, pixels, "png")
    np.testing.assert_array_equal(decode(compressed), pixels)
