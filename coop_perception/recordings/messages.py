"""ROS messages without a ROS installation, as recordings hold them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import Stores, get_typestore

from coop_perception.camera import Intrinsics
from coop_perception.images import CompressedFormat, fill_compressed, fill_image

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
APPLIED_TYPE = "diagnostic_msgs/msg/DiagnosticArray"
"""Of the conditions that were applied to a frame: the one of the common interfaces with a header, names and values."""
TYPES = get_typestore(Stores.ROS2_JAZZY)
"""ROS 2's common interfaces."""


def image_message(image: NDArray[np.uint8], encoding: Literal["rgb8", "mono8"], frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/Image for ``RecordingWriter``; arguments as for ``images.fill_image``."""
    message = TYPES.types[IMAGE_TYPE](_header(frame_id, stamp_ns), 0, 0, "", 0, 0, np.empty(0, np.uint8))
    fill_image(message, image, encoding)
    return message


def depth_message(depth: NDArray[np.float32], frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/Image of depth, float32 [H,W] in metres (inf for the sky), as REP 118 has it (32FC1)."""
    height, width = depth.shape
    values = np.ascontiguousarray(depth, "<f4").reshape(-1).view(np.uint8)
    return TYPES.types[IMAGE_TYPE](_header(frame_id, stamp_ns), height, width, "32FC1", 0, 4 * width, values)


def compressed_image_message(
    image: NDArray[np.uint8], file_format: CompressedFormat, frame_id: str, stamp_ns: int, quality: int = 95
) -> Any:
    """A sensor_msgs/CompressedImage for ``RecordingWriter``; arguments as for ``images.fill_compressed``."""
    message = TYPES.types[COMPRESSED_IMAGE_TYPE](_header(frame_id, stamp_ns), "", np.empty(0, np.uint8))
    fill_compressed(message, image, file_format, quality)
    return message


def compressed_file_message(data: bytes, file_format: CompressedFormat, frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/CompressedImage of a JPEG or PNG file's bytes for ``RecordingWriter``."""
    header = _header(frame_id, stamp_ns)
    return TYPES.types[COMPRESSED_IMAGE_TYPE](header, file_format, np.frombuffer(data, np.uint8))


def camera_info_message(intrinsics: Intrinsics, frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/CameraInfo of a rectified, undistorted camera for ``RecordingWriter``."""
    k = np.array(intrinsics.k())
    projection = np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).reshape(-1)
    return TYPES.types[CAMERA_INFO_TYPE](
        header=_header(frame_id, stamp_ns),
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).reshape(-1),
        p=projection,
        binning_x=0,
        binning_y=0,
        roi=TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def applied_message(levels: Mapping[str, float], frame_id: str, stamp_ns: int) -> Any:
    """What was applied to a frame, by name and level (`Condition.level_of`), for ``RecordingWriter``."""
    types = TYPES.types
    values = [types["diagnostic_msgs/msg/KeyValue"](name, f"{level:g}") for name, level in levels.items()]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](0, "conditions applied", "", "", values)
    return types[APPLIED_TYPE](_header(frame_id, stamp_ns), [status])


def applied_levels(message: Any) -> dict[str, float]:
    """What `applied_message` says.

    Raises:
        ValueError: it says something else.
    """
    levels = {value.key: float(value.value) for status in message.status for value in status.values}
    wrong = [name for name, level in levels.items() if not (math.isfinite(level) and level >= 0)]
    if wrong:
        raise ValueError(f"level of {wrong[0]} is {levels[wrong[0]]:g}, expected 0 or more")
    return levels


def _header(frame_id: str, stamp_ns: int) -> Any:
    stamp = TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return TYPES.types["std_msgs/msg/Header"](stamp, frame_id)
