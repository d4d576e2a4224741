"""How large what belongs to an image may be, whoever sends it: both nodes hold it, and send it on."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception.images import ImageError

LARGEST_INFO = 1 << 16
"""Bytes of a camera_info. Distortion takes 14 numbers at most in OpenCV's models, some hundreds as a table."""
LONGEST_FRAME_ID = 1000


def check_info(info: CameraInfo) -> None:
    """Raises ValueError where it is larger than any camera's; the executor logs that."""
    size = 8 * len(info.d) + len(info.header.frame_id) + len(info.distortion_model)
    if size > LARGEST_INFO:
        raise ValueError(f"a camera_info has {size} bytes, expected at most {LARGEST_INFO}; it is not kept")


def check_frame_id(message: Image | CompressedImage) -> None:
    """Raises ImageError where it is longer than any name, which each output would have, too."""
    if (length := len(message.header.frame_id)) > LONGEST_FRAME_ID:
        raise ImageError(f"its frame_id has {length} characters, expected at most {LONGEST_FRAME_ID}")
