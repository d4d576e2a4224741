"""What compression on the way from a camera does."""

from __future__ import annotations

import cv2
import numpy as np

from coop_perception.degradations.arrays import UInt8Array


def jpeg_at(image: UInt8Array, quality: int, offset: tuple[int, int] = (0, 0)) -> UInt8Array:
    """JPEG whose grid of blocks begins at ``offset`` (x, y), as of an image that was cropped after it was compressed.

    Args:
        image: uint8 [H, W, 3] RGB.
        quality: libjpeg's, 1..100.
        offset: of the grid's corner, 0..7 each.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    left, top = ((8 - offset[0]) % 8, (8 - offset[1]) % 8)
    padded = np.asarray(cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT_101), np.uint8)
    return np.array(_through(padded, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])[top:, left:])


def jpeg_twice(image: UInt8Array, first: int, second: int, offset: tuple[int, int]) -> UInt8Array:
    """Compressed at quality ``first``, cropped, and compressed again at ``second``. Arguments as `jpeg_at`'s.

    Source: Jiang, Zhang, Timofte, "Towards Flexible Blind JPEG Artifacts Removal", ICCV 2021, whose double JPEG it is.
    """
    return jpeg_at(jpeg_at(image, first, offset), second)


def jpeg_scaled(image: UInt8Array, quality: int, scale: float) -> UInt8Array:
    """Compressed at ``scale`` times its size, then scaled back: blocks of another size than eight pixels.

    Args:
        image: uint8 [H, W, 3] RGB.
        quality: libjpeg's, 1..100.
        scale: above 0.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    height, width = image.shape[:2]
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = np.asarray(
        cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), np.uint8
    )
    back = _through(small, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.resize(back, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def webp(image: UInt8Array, quality: int) -> UInt8Array:
    """WebP (VP8 intra frames, RFC 6386), whose blocks are predicted and smoothed, as in video.

    Args:
        image: uint8 [H, W, 3] RGB.
        quality: libwebp's, 1..100.

    Returns:
        uint8 [H, W, 3] RGB.
    """
    return _through(image, ".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])


def _through(image: UInt8Array, suffix: str, parameters: list[int]) -> UInt8Array:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {suffix} here; install a build that does")
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
