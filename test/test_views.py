"""The two views of a frame."""

from __future__ import annotations

import numpy as np
import pytest

from coop_perception.views import scene_view, sensor_view


def numbered(height: int, width: int) -> np.ndarray:
    """Each pixel says where it lies: row in red, column in green."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, 0 * rows], 2).astype(np.uint8)


def test_a_frame_of_the_networks_size_is_the_scene_itself() -> None:
    frame = numbered(64, 96)
    assert scene_view(frame, (64, 96)) is frame
    assert scene_view(frame, (32, 64)).shape == (32, 64, 3)


def test_tiles_are_pixels_of_the_middles_of_the_quarters() -> None:
    view = sensor_view(numbered(100, 200), 32)
    for row, top in enumerate((17, 67)):
        for column, left in enumerate((42, 142)):
            tile = view[row * 16 : (row + 1) * 16, column * 16 : (column + 1) * 16]
            np.testing.assert_array_equal(tile[:, 0, 0], np.arange(top, top + 16))
            np.testing.assert_array_equal(tile[0, :, 1], np.arange(left, left + 16))


@pytest.mark.parametrize("size", [(10, 8), (1, 1), (15, 300), (40, 17)])
def test_a_frame_smaller_than_a_tile_is_mirrored(size: tuple[int, int]) -> None:
    frame = numbered(*size)
    view = sensor_view(frame, 32)
    assert view.shape == (32, 32, 3)
    assert {tuple(pixel) for pixel in view.reshape(-1, 3)} <= {tuple(pixel) for pixel in frame.reshape(-1, 3)}
