"""sensor_msgs Image and CompressedImage to NumPy arrays and back.

Any object with the messages' fields will do: rclpy's messages (``data`` an ``array.array``), and those that rosbags
deserialises (``data`` an ndarray). Encodings are those of sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.encoded_images import CAMERAS, MAX_PIXELS, Limits, decode_values, png_bits
from coop_perception.encoded_images import decode as decode_file
from coop_perception.image_headers import BeyondLimitsError, EncodedImageError
from coop_perception.shown import LONGEST, plain, shown

UInt8Array = NDArray[np.uint8]
CompressedFormat = Literal["jpeg", "png"]


class ImageError(ValueError):
    """An image message that cannot be used, or an array that cannot become one."""


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are used here; ``data`` is bytes-like."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@runtime_checkable
class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are used here; ``data`` is bytes-like."""

    format: str
    data: Any


@dataclass(frozen=True, slots=True)
class _Layout:
    """How an encoding lays out its pixels, and OpenCV's conversion from it to RGB (None: it is RGB)."""

    channels: int
    to_rgb: int | None
    bits: int = 8
    horizontal_pairs: bool = False
    half_height_chroma: bool = False


_YUYV = _Layout(2, cv2.COLOR_YUV2RGB_YUY2, horizontal_pairs=True)
_UYVY = _Layout(2, cv2.COLOR_YUV2RGB_UYVY, horizontal_pairs=True)
# OpenCV names a Bayer pattern after its second row's second and third pixel, ROS after its first two rows.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_LAYOUTS = {
    "rgb8": _Layout(3, None),
    "bgr8": _Layout(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Layout(3, None, 16),
    "bgr16": _Layout(3, cv2.COLOR_BGR2RGB, 16),
    "rgba16": _Layout(4, cv2.COLOR_RGBA2RGB, 16),
    "bgra16": _Layout(4, cv2.COLOR_BGRA2RGB, 16),
    "mono16": _Layout(1, cv2.COLOR_GRAY2RGB, 16),
    # Types without a colour meaning: drivers that use them mean OpenCV's order.
    "8UC1": _Layout(1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Layout(3, cv2.COLOR_BGR2RGB),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2RGB),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Layout(1, cv2.COLOR_YUV2RGB_NV12, horizontal_pairs=True, half_height_chroma=True),
    "nv21": _Layout(1, cv2.COLOR_YUV2RGB_NV21, horizontal_pairs=True, half_height_chroma=True),
    **{f"bayer_{name}8": _Layout(1, code, horizontal_pairs=True) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(1, code, 16, horizontal_pairs=True) for name, code in _BAYER.items()},
}
_DARK = 64  # a quarter of white: what 14 bits of 16 reach
EMPTY_BITS = (
    "below a quarter of white, which is 65535; if the sensor has fewer bits, have the driver shift them up; masks of "
    "nearly black images mean little"
)
_MASK_ENCODINGS = ("mono8", "8UC1")
_SAMPLES = {16: "u2", 32: "f4"}
_DEPTH_LAYOUTS = {"16UC1": _Layout(1, None, 16), "32FC1": _Layout(1, None, 32)}
_NODES_LIMITS = "(the perception node's max_image_pixels and image_formats say what is taken)"
_WRITTEN_CHANNELS = {"rgb8": 3, "mono8": 1}


def decode(message: ImageMessage | CompressedImageMessage, limits: Limits = CAMERAS) -> UInt8Array:
    """An Image or CompressedImage message as uint8 [H,W,3] RGB, 0..255.

    Raises:
        ImageError: as ``to_rgb`` and ``decode_compressed``.
    """
    if isinstance(message, CompressedImageMessage):
        return decode_compressed(message, limits)
    return to_rgb(message, limits.max_pixels)


def to_rgb(message: ImageMessage, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """An Image message as uint8 [H,W,3] RGB, 0..255.

    ``rgb8`` comes back as a view of the message's data, whatever its row padding; everything else is converted.
    Sixteen-bit encodings are scaled to eight bits. Encodings not known here go through a ROS installation's cv_bridge.

    Raises:
        ImageError: no pixels or more than ``max_pixels``, a size that the encoding cannot have, ``step``, ``height``
            and data length that disagree, or an encoding that nothing here can convert.
    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        _check_size(message, max_pixels)
        return _through_cv_bridge(message)
    return _convert(_samples(message, layout, max_pixels), layout)


def decode_compressed(message: CompressedImageMessage, limits: Limits = CAMERAS) -> UInt8Array:
    """A CompressedImage message as uint8 [H,W,3] RGB, 0..255.

    What it is, its bytes say. ``format`` is image_transport's, such as ``rgb8; jpeg compressed bgr8``, or any other
    text. Where its last word says rgb, the sender compressed RGB samples as if they were BGR; a Bayer encoding with one
    channel inside is a mosaic still.

    Raises:
        ImageError: the data is not of a format in ``limits``, claims more pixels, cannot be decoded to samples of 8 or
            16 bits, or holds 16 bits of what ``format`` says is depth.
    """
    image = _decode_file(message, limits)
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{_named(message)} holds {image.dtype} samples, expected 8 or 16 bits: no camera image")
    source = message.format.partition(";")[0].strip()
    if image.dtype == np.uint16 and (source in _DEPTH_LAYOUTS or "compressedDepth" in message.format):
        raise ImageError(f"{_named(message)} is a depth image, expected a camera's; read another topic")
    if image.ndim == 2:
        layout = _LAYOUTS[source] if source.startswith("bayer") and source in _LAYOUTS else _LAYOUTS["mono8"]
        return _convert(image[:, :, np.newaxis], layout)
    if image.shape[2] == 4:
        return _convert(image, _LAYOUTS["bgra8"])
    return _convert(image, _LAYOUTS["rgb8" if "compressed rgb" in message.format else "bgr8"])


def is_nearly_black(image: UInt8Array) -> bool:
    """Whether nothing in it is brighter than a quarter of white: taken in the dark, or made of samples of 10 to 14 bits
    that lie in 16 and were not shifted up."""
    return int(image.max()) <= _DARK


def nearly_black(count: int, every: int) -> str:
    """What is said of files of which so many are."""
    return (
        f"{count} of {every} images are nearly black, nothing in them is brighter than a quarter of white; files of 16 "
        "bits have to reach 65535, so scale up those of sensors with fewer"
    )


def leaves_high_bits_empty(message: ImageMessage | CompressedImageMessage, image: UInt8Array) -> bool:
    """Whether an image of 16-bit samples, decoded, is nearly black."""
    if isinstance(message, CompressedImageMessage):
        bits = png_bits(message.data)
    else:
        layout = _LAYOUTS.get(message.encoding)
        bits = layout.bits if layout else 8
    return bits == 16 and is_nearly_black(image)


def to_mask(message: ImageMessage | CompressedImageMessage) -> UInt8Array:
    """A mask of class ids, mono8 or PNG (grey or indexed), as uint8 [H,W]; mono8 comes back as a view of the message's
    data.

    Raises:
        ImageError: another encoding, a lossy format, or data that ``decode`` would refuse as well.
    """
    if isinstance(message, CompressedImageMessage):
        try:
            image = decode_values(message.data)
        except EncodedImageError as error:
            raise ImageError(f"mask: {_named(message)} {error}; only PNG keeps class ids: send png or mono8") from error
        if image.ndim != 2 or image.dtype != np.uint8:
            raise ImageError(f"mask of {image.dtype} and shape {image.shape}: expected one channel of 8-bit class ids")
        return np.asarray(image, np.uint8)
    if message.encoding not in _MASK_ENCODINGS:
        raise ImageError(f"mask in encoding {shown(message.encoding)}: expected mono8 (class ids)")
    return np.asarray(_samples(message, _LAYOUTS["mono8"])[:, :, 0], np.uint8)


def to_depth(message: ImageMessage) -> NDArray[np.float32]:
    """A depth image, 32FC1 in metres or 16UC1 in millimetres, as float32 [H,W] in metres along the optical axis.

    Unknown depth is NaN; inf is beyond the sensor's range, -inf nearer than it can measure, as in REP 117 and 118.

    Raises:
        ImageError: another encoding, or fields that ``to_rgb`` would refuse as well.
    """
    layout = _DEPTH_LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(
            f"depth image in encoding {shown(message.encoding)}: expected 32FC1 (metres) or 16UC1 (millimetres), as "
            "REP 118"
        )
    samples = _samples(message, layout)[:, :, 0]
    if message.encoding == "32FC1":
        return np.asarray(samples, np.float32)
    metres = samples.astype(np.float32)
    metres[samples == 0] = np.nan
    metres /= 1000
    return metres


def fill_image(message: ImageMessage, image: UInt8Array, encoding: Literal["rgb8", "mono8"]) -> None:
    """Sets every field of an Image message but its header.

    Args:
        message: rclpy's (its data becomes an ``array.array``, the one type it does not check element by element; one
            that is as long already is written to, so that a message filled again and again costs a copy and no memory)
            or any other (its data becomes a flat ndarray, sharing the image's memory where that is contiguous).
        image: uint8 [H,W,3] RGB for ``rgb8``, uint8 [H,W] for ``mono8``.
        encoding: of the message.

    Raises:
        ImageError: the array does not fit the encoding, or has no pixels.
    """
    _check_array(image, encoding)
    message.height, message.width = image.shape[:2]
    message.encoding = encoding
    message.is_bigendian = 0
    message.step = image.nbytes // image.shape[0]
    _set_data(message, image)


def fill_compressed(
    message: CompressedImageMessage, image: UInt8Array, file_format: CompressedFormat, quality: int = 95
) -> None:
    """Sets every field of a CompressedImage message but its header; arguments as for ``encode_compressed``.

    Raises:
        ImageError: as ``encode_compressed``.
    """
    data = encode_compressed(image, file_format, quality)
    message.format = (
        f"rgb8; {file_format} compressed bgr8" if image.ndim == 3 else f"mono8; {file_format} compressed mono8"
    )
    _set_data(message, np.frombuffer(data, np.uint8))


def encode_compressed(image: UInt8Array, file_format: CompressedFormat, quality: int = 95) -> bytes:
    """An image as the bytes of a JPEG or PNG file.

    Args:
        image: uint8 [H,W,3] RGB or [H,W].
        file_format: ``jpeg`` or ``png``.
        quality: of JPEG, 0..100.

    Raises:
        ImageError: no such array, or it cannot be encoded.
    """
    _check_array(image, "mono8" if image.ndim == 2 else "rgb8")
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if file_format == "jpeg" else []
    try:
        _, data = cv2.imencode(f".{file_format}", pixels, parameters)
    except cv2.error as error:
        raise ImageError(
            f"{image.shape[1]}x{image.shape[0]} image cannot be encoded as {file_format}: {error}"
        ) from error
    return data.tobytes()


def _samples(message: ImageMessage, layout: _Layout, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """The message's samples as a view [rows, W, channels] in the message's byte order: uint8, uint16 or float32."""
    _check_size(message, max_pixels)
    width, height, step = int(message.width), int(message.height), int(message.step)
    found = f"{message.encoding} image of {width}x{height}, step {step}, {len(message.data)} bytes"
    if width <= 0 or height <= 0:
        raise ImageError(f"{found}: it has no pixels")
    if layout.horizontal_pairs and width % 2:
        raise ImageError(f"{found}: the width must be even, as this encoding describes pixels in pairs")
    if layout.half_height_chroma and height % 2:
        raise ImageError(f"{found}: the height must be even, as this encoding describes rows in pairs")
    row_bytes = width * layout.channels * layout.bits // 8
    if step < row_bytes:
        raise ImageError(f"{found}: a row takes {row_bytes} bytes, so step must be at least that")
    rows = height * 3 // 2 if layout.half_height_chroma else height
    if len(message.data) != step * rows:
        raise ImageError(
            f"{found}: step x {rows} rows = {step * rows} bytes were expected; the sender's fields disagree"
        )
    lines = np.frombuffer(message.data, np.uint8).reshape(rows, step)[:, :row_bytes]
    if layout.bits > 8:
        lines = lines.view((">" if message.is_bigendian else "<") + _SAMPLES[layout.bits])
    return lines.reshape(rows, width, layout.channels)


def _convert(samples: NDArray[Any], layout: _Layout) -> UInt8Array:
    if samples.dtype != np.uint8:  # 65535 is white: 257 steps of 16 bits to one of 8
        samples = cv2.convertScaleAbs(samples.astype(np.uint16), alpha=1 / 257).reshape(samples.shape)
    rgb = samples if layout.to_rgb is None else cv2.cvtColor(samples, layout.to_rgb)
    return np.asarray(rgb, np.uint8)


def _check_size(message: ImageMessage, max_pixels: int) -> None:
    width, height = int(message.width), int(message.height)
    if width * height > max_pixels:
        raise ImageError(
            f"{plain(message.encoding, LONGEST)} image of {width}x{height}: {width * height} pixels, expected at most "
            f"{max_pixels}; scale it down {_NODES_LIMITS}"
        )


def _named(message: CompressedImageMessage) -> str:
    return f"compressed image in format {shown(message.format)} of {len(message.data)} bytes"


def _decode_file(message: CompressedImageMessage, limits: Limits) -> NDArray[Any]:
    """As OpenCV decodes it, [H,W] or [H,W,3 or 4] in its order."""
    try:
        return decode_file(message.data, cv2.IMREAD_UNCHANGED, limits)
    except EncodedImageError as error:
        if "compressedDepth" in message.format:
            raise ImageError(f"{_named(message)} is a depth image, expected a camera's; read another topic") from error
        hint = "; sender or network damaged it" if error.damaged else ""
        hint = f" {_NODES_LIMITS}" if isinstance(error, BeyondLimitsError) else hint
        raise ImageError(f"{_named(message)} {error}{hint}") from error


def _through_cv_bridge(message: ImageMessage) -> UInt8Array:
    unknown = f"encoding {shown(message.encoding)} of a {message.width}x{message.height} image is not supported"
    known = f"publish one of {', '.join(_LAYOUTS)}"
    # Only a ROS installation's: the package of that name on PyPI is a copy for ROS 1 that ignores `step`.
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    if not any(prefix and Path(prefix, "share", "cv_bridge", "package.xml").is_file() for prefix in prefixes):
        raise ImageError(f"{unknown}, and cv_bridge, which may know it, is not installed; {known}")
    from cv_bridge import CvBridge

    try:
        image = CvBridge().imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # its own CvBridgeError, and whatever NumPy and OpenCV raise inside it
        raise ImageError(f"{unknown}, nor by cv_bridge ({error}); {known}") from error
    return np.asarray(image, np.uint8)


def _check_array(image: UInt8Array, encoding: str) -> None:
    channels = _WRITTEN_CHANNELS[encoding]
    expected = 2 if channels == 1 else 3
    if image.dtype != np.uint8 or image.ndim != expected or image.size == 0 or image.shape[2:] not in ((), (channels,)):
        shape = "[H,W]" if channels == 1 else f"[H,W,{channels}]"
        raise ImageError(f"array of {image.dtype} and shape {image.shape}: {encoding} needs uint8 {shape} with pixels")


def _set_data(message: ImageMessage | CompressedImageMessage, values: UInt8Array) -> None:
    current = message.data
    if not isinstance(current, array):
        message.data = np.ascontiguousarray(values).reshape(-1)
    elif len(current) == values.size:  # where it lies: rclpy copies what the field is set to
        np.copyto(np.frombuffer(current, np.uint8).reshape(values.shape), values)
    elif not current:
        current.frombytes(np.ascontiguousarray(values).data)
    else:  # not resized: somebody may look at it
        message.data = array("B", values.tobytes())
