"""Pictures: colours where they belong, sizes that fit."""

from __future__ import annotations

import numpy as np
import pytest

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.visualization import colorize, legend, overlay, panel_grid

COLOURS = {semantic_class.name: semantic_class.rgb for semantic_class in CAMVID_CLASSES}


def test_every_class_has_its_colour_and_the_rest_is_black() -> None:
    mask = np.array([[*range(len(CAMVID_CLASSES)), 11, 255]], np.uint8)
    picture = colorize(mask, CAMVID_CLASSES)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [list(c.rgb) for c in CAMVID_CLASSES] + [[0, 0, 0], [0, 0, 0]]


def test_overlay_mixes_by_alpha() -> None:
    image = np.full((2, 3, 3), 100, np.uint8)
    mask = np.full((2, 3), 3, np.uint8)
    expected = 0.75 * 100 + 0.25 * np.array(COLOURS["Road"])
    assert np.abs(overlay(image, mask, CAMVID_CLASSES, 0.25).astype(float) - expected).max() <= 0.5
    assert np.array_equal(overlay(image, mask, CAMVID_CLASSES, 0), image)
    assert np.array_equal(overlay(image, mask, CAMVID_CLASSES, 1), colorize(mask, CAMVID_CLASSES))


def test_overlay_of_another_size() -> None:
    with pytest.raises(ValueError, match="equal sizes"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2), np.uint8), CAMVID_CLASSES)


def plain_panel(red: int) -> np.ndarray:
    """A panel in a colour that neither paper nor text has."""
    return np.full((60, 90, 3), (red, 0, 0), np.uint8)


def find_panel(grid: np.ndarray, red: int) -> tuple[int, int]:
    """Top left corner of the plain panel of this red, which must be there whole."""
    rows, columns = np.nonzero((grid == (red, 0, 0)).all(axis=2))
    assert len(rows) == 60 * 90
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (60, 90)
    return int(rows.min()), int(columns.min())


def test_panels_stand_in_rows_and_columns() -> None:
    reds = ((100, 120, 140), (160, 180, 200))
    grid = panel_grid(
        [[plain_panel(red) for red in row] for row in reds], ["input", "mask", "restored"], ["frame 0", "frame 1"]
    )
    corners = np.array([[find_panel(grid, red) for red in row] for row in reds])
    assert (corners[:, 1:, 0] == corners[:, :-1, 0]).all()
    assert (corners[1:, :, 1] == corners[:-1, :, 1]).all()
    assert (np.diff(corners[..., 1], axis=1) > 90).all()
    assert (np.diff(corners[..., 0], axis=0) > 60).all()


def test_titles_are_drawn_above_and_left_of_the_panels() -> None:
    grid = panel_grid([[plain_panel(200)]], ["input"], ["frame 0"])
    top, left = find_panel(grid, 200)
    assert grid[:top, left:].min() < 128
    assert grid[top:, :left].min() < 128


@pytest.mark.parametrize(
    ("rows", "columns", "titles"),
    [
        ([], ["a"], []),
        ([[np.zeros((4, 4, 3), np.uint8)]], ["a", "b"], ["r"]),
        ([[np.zeros((4, 4, 3), np.uint8)]], ["a"], ["r", "s"]),
        ([[np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]], ["a", "b"], ["r"]),
    ],
)
def test_bad_grids(rows: list[list[np.ndarray]], columns: list[str], titles: list[str]) -> None:
    with pytest.raises(ValueError, match="expected one"):
        panel_grid(rows, columns, titles)


@pytest.mark.parametrize("width", [120, 400, 1600])
def test_legend_shows_every_colour_within_its_width(width: int) -> None:
    strip = legend(CAMVID_CLASSES, width)
    assert strip.shape[1] == width
    areas = [(strip == semantic_class.rgb).all(axis=2).sum() for semantic_class in CAMVID_CLASSES]
    assert min(areas) >= 100
    assert max(areas) - min(areas) < 30  # none is covered by a neighbour


def test_narrow_legends_are_taller() -> None:
    assert legend(CAMVID_CLASSES, 200).shape[0] > legend(CAMVID_CLASSES, 1600).shape[0]
