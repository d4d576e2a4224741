"""Masks where the frame's own pixels are, at any size, and each frame with its own camera_info."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from node_harness import Client, connected, image_message, pixels, publish_until
from sensor_msgs.msg import CameraInfo, Image
from toy_bundle import write_toy_bundle

from coop_perception.images import decode, to_mask

NETWORK_HEIGHT = 352
HIGH = 200
"""Of half of a frame or so: fog, which the toy restores to the negative."""
SIZES = ((479, 641), (1080, 1920), (359, 481), (97, 61))


@pytest.fixture(scope="module")
def large_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("large") / "toy", NETWORK_HEIGHT)


def stripes(height: int, width: int, edges: tuple[float, ...], axis: int) -> np.ndarray:
    """0 and HIGH by turns, changing at these shares of an axis, in all channels."""
    extent = (height, width)[axis]
    line = sum((np.arange(extent) + 0.5 >= edge * extent).astype(int) for edge in edges) % 2 * HIGH
    plane = np.broadcast_to(line[:, None] if axis == 0 else line, (height, width))
    return np.repeat(plane[..., None], 3, 2).astype(np.uint8)


def edges_of(plane: np.ndarray, axis: int) -> np.ndarray:
    """Positions, in pixels, at which the lines along an axis change sides; the same for every line, or it fails."""
    high = plane >= HIGH // 2
    lines = high if axis == 1 else high.T
    assert (lines == lines[0]).all(), "the edges are not straight"
    return np.flatnonzero(np.diff(lines[0].astype(int))) + 1.0


def test_edges_are_where_they_were(active: Callable[..., Client], large_bundle: Path) -> None:
    """Stripes at unequal distances: a shift, a stretch or a flip would move some of them by more than a pixel of the
    coarser of both grids; on average they move by less than a quarter of one."""
    ours = active(bundle=str(large_bundle))
    masks = {name: ours.listen(Image, f"/front/coop/{name}") for name in ("mask_raw", "mask", "confidence")}
    restored = ours.listen(Image, "/front/coop/image_restored")
    publisher = connected(ours, Image, "/front/image_raw")
    shares = (0.07, 0.12, 0.2, 0.26, 0.34, 0.45, 0.49, 0.61, 0.66, 0.75, 0.83, 0.93)
    second = 0
    for height, width in SIZES:
        for axis in (0, 1):
            second += 1
            frame = stripes(height, width, shares, axis)

            def complete(second: int = second) -> bool:
                return all(m and m[-1].header.stamp.sec == second for m in (*masks.values(), restored))

            publish_until(ours, publisher, image_message(frame, second), complete, f"outputs at {width}x{height}")
            expected, pixel = edges_of(frame[..., 0], axis), max(1.0, height / NETWORK_HEIGHT)
            planes = {name: to_mask(messages[-1]) for name, messages in masks.items()}
            planes["restored"] = 255 - decode(restored[-1])[..., 0]
            for name, plane in planes.items():
                assert plane.shape == (height, width), name
                moved = edges_of(plane, axis) - expected
                assert np.abs(moved).max() <= pixel, (name, height, width, moved)
                assert abs(moved.mean()) <= pixel / 4, (name, height, width, moved)


def test_each_frame_goes_out_with_its_own_camera_info(active: Callable[..., Client]) -> None:
    ours = active(**{"qos_overrides./front/camera_info.subscription.reliability": "reliable"})
    infos = ours.listen(CameraInfo, "/front/coop/camera_info")
    frames = connected(ours, Image, "/front/image_raw")
    calibrations = connected(ours, CameraInfo, "/front/camera_info")

    def calibrate(second: int) -> None:
        info = CameraInfo()
        info.header.stamp.sec, info.header.stamp.nanosec, info.k[0] = second, 5, 100.0 * second
        calibrations.publish(info)

    def focal(second: int) -> float:
        ours.wait(lambda: bool(infos) and infos[-1].header.stamp.sec == second, f"camera_info of second {second}")
        assert infos[-1].header.frame_id == "front_optical_frame"
        return float(infos[-1].k[0])

    def arrived() -> bool:
        calibrate(1)
        return bool(infos)

    publish_until(ours, frames, image_message(pixels(), 1), arrived, "a first camera_info")
    for second in (2, 3, 4):
        calibrate(second)
    frames.publish(image_message(pixels(), 100))  # a stamp without one: the last
    ours.wait(lambda: infos[-1].header.stamp.sec == 100, "a camera_info all the same")
    publish_until(
        ours, frames, image_message(pixels(), 101), lambda: infos[-1].k[0] == 400, "the last camera_info has arrived"
    )
    for second in (3, 2, 4):
        frames.publish(image_message(pixels(), second))
        assert focal(second) == 100.0 * second
