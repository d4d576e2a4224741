"""A small recording whose scores with the toy bundle are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from toy_bundle import HEIGHT, WIDTH

from coop_perception.camera import Intrinsics
from coop_perception.recordings.messages import (
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    camera_info_message,
    compressed_image_message,
    image_message,
)
from coop_perception.recordings.writer import RecordingWriter

COUNT = 8
SECOND = 10**9


def picture(seed: int, rainy: bool = True) -> np.ndarray:
    """Red and green are class ids; blue makes the toy bundle find rain, or not, and confident."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 11, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    if rainy:
        image[..., 2] = random.integers(180, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    return image


def write_bag(path: Path, camera: str = "front", compressed: bool = False, spacing_ns: int = SECOND // 10) -> Path:
    """Frames whose true mask is their green channel: the toy bundle's refined mask is right everywhere."""
    with RecordingWriter(path) as writer:
        for index in range(COUNT):
            stamp, image = 100 * SECOND + index * spacing_ns, picture(index)
            info = camera_info_message(Intrinsics.from_fov(WIDTH, HEIGHT), camera, stamp)
            writer.write(f"/{camera}/camera_info", info, CAMERA_INFO_TYPE, stamp)
            if compressed:
                message = compressed_image_message(image, "png", camera, stamp)
                writer.write(f"/{camera}/image_raw/compressed", message, COMPRESSED_IMAGE_TYPE, stamp)
            else:
                writer.write(f"/{camera}/image_raw", image_message(image, "rgb8", camera, stamp), IMAGE_TYPE, stamp)
            clear = image_message(255 - image, "rgb8", camera, stamp)
            writer.write(f"/{camera}/reference/image", clear, IMAGE_TYPE, stamp)
            mask = image_message(np.ascontiguousarray(image[..., 1]), "mono8", camera, stamp)
            writer.write(f"/{camera}/reference/mask", mask, IMAGE_TYPE, stamp)
    return path


def write_malformed_bag(path: Path, cut: int = 2) -> Path:
    """Four frames without references, of which this one is cut off."""
    with RecordingWriter(path) as writer:
        for index in range(4):
            stamp = index * SECOND // 10
            message = image_message(picture(index), "rgb8", "front", stamp)
            if index == cut:
                message.data = message.data[:-3]
            writer.write("/front/image_raw", message, IMAGE_TYPE, stamp)
    return path
