"""Where things stand on a street that is seen in perspective, from their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations.arrays import FloatArray, UInt8Array

_ID = {semantic_class.name: semantic_class.id for semantic_class in CAMVID_CLASSES}
GROUND = (_ID["Road"], _ID["Pavement"])
_WALLS = ((_ID["Building"],), (_ID["Tree"],), (_ID["Fence"],), (IGNORE_ID,))
_OBJECTS = ((_ID["Pole"], _ID["SignSymbol"]), (_ID["Car"],), (_ID["Pedestrian"],), (_ID["Bicyclist"],))

FARTHEST = 150.0
"""Metres: where things are put whose foot is at or above the horizon."""


def inverse_depth(labels: UInt8Array, horizon: float, per_row: float) -> FloatArray:
    """Inverse depth of the ground and of what stands on it; of a plane in perspective it is linear in the image.

    Args:
        labels: uint8 [H, W], CamVid ids or 255, which counts as something upright.
        horizon: row of the horizon.
        per_row: growth of the ground's inverse depth, 1/m per row.

    Returns:
        float32 [H, W], 1/m; 0 for the sky.
    """
    height, width = labels.shape
    of_row = np.maximum((np.arange(height + 1) - horizon) * per_row, 1 / FARTHEST).astype(np.float32)
    ground = np.isin(labels, GROUND)
    stands = np.vstack([ground[1:], np.ones((1, width), bool)])
    result = np.where(ground, of_row[:height, None], np.float32(0))
    objects = [region for ids in _OBJECTS for region in _regions(labels, ids, stands)]
    walls = {ids: list(_regions(labels, ids, stands)) for ids in _WALLS}
    # Unlabelled things do not tell where the street's side is: the vehicle's own bonnet is one of them.
    sides = _sides([region for ids in _WALLS if ids != (IGNORE_ID,) for region in walls[ids]], of_row, width)

    floating = []
    for region in objects:
        if (region.feet >= 0).any():
            region.fill(result, _smooth_object(region.from_feet(of_row), width))
        else:
            floating.append(region)
    before = result.copy()
    for region in (region for ids in _WALLS for region in walls[ids]):
        region.fill(result, _smooth_wall(_wall(region, before, sides[region.columns], of_row), width))
    for region in sorted(floating, key=lambda region: -region.box[0].stop):
        # What never touches the ground is fixed to what is below it.
        below = region.below(result)
        region.fill(result, _smooth_object(np.where(below > 0, below, sides[region.columns]), width))
    return result


@dataclass(frozen=True, slots=True)
class _Region:
    """One connected region of upright things: `inside` bool [h, w] of its `box`."""

    box: tuple[slice, slice]
    inside: npt.NDArray[np.bool_]
    feet: npt.NDArray[np.intp]
    """[w]: row on which the region stands in each column, -1 where it does not."""

    @property
    def columns(self) -> slice:
        return self.box[1]

    def from_feet(self, of_row: FloatArray) -> FloatArray:
        """[w]: inverse depth, interpolated between the columns in which the region stands; it stands in some."""
        at = np.flatnonzero(self.feet >= 0)
        return np.interp(np.arange(self.feet.size), at, of_row[self.feet[at]]).astype(np.float32)

    def below(self, picture: FloatArray) -> FloatArray:
        """[w]: what a picture [H, W] shows right below the region."""
        lowest = self.box[0].stop - 1 - np.argmax(self.inside[::-1], axis=0)
        row: FloatArray = picture[
            np.minimum(lowest + 1, len(picture) - 1), np.arange(self.columns.start, self.columns.stop)
        ]
        return row

    def fill(self, picture: FloatArray, profile: FloatArray) -> None:
        """Gives each column [w] of the region one value."""
        picture[self.box][self.inside] = np.broadcast_to(profile, self.inside.shape)[self.inside]


def _regions(labels: UInt8Array, ids: tuple[int, ...], stands: npt.NDArray[np.bool_]) -> Iterator[_Region]:
    """Regions of the given ids; `stands` [H, W] is true above ground."""
    count, components, stats, _ = cv2.connectedComponentsWithStats(np.isin(labels, ids).astype(np.uint8))
    for index in range(1, count):
        left, top, w, h = (int(value) for value in stats[index, :4])
        box = slice(top, top + h), slice(left, left + w)
        inside = np.asarray(components[box] == index)
        feet = np.where(inside & stands[box], np.arange(top + 1, top + h + 1)[:, None], -1).max(axis=0)
        yield _Region(box, inside, feet)


def _sides(walls: Sequence[_Region], of_row: FloatArray, width: int) -> FloatArray:
    """1/m [W]: how far the street's sides are in each column, from where walls meet the ground."""
    profile = np.full(width, np.inf, np.float32)
    for wall in walls:
        at = np.flatnonzero(wall.feet >= 0)
        profile[wall.columns.start + at] = np.minimum(profile[wall.columns.start + at], of_row[wall.feet[at]])
    known = np.flatnonzero(np.isfinite(profile))
    if not known.size:
        return np.full(width, 1 / FARTHEST, np.float32)
    profile = np.interp(np.arange(width), known, profile[known]).astype(np.float32)
    reach = max(1, width // 30)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(profile, reach, mode="edge"), 2 * reach + 1)
    return np.median(windows, axis=1)


def _wall(region: _Region, before: FloatArray, sides: FloatArray, of_row: FloatArray) -> FloatArray:
    """1/m [w]: a wall is as far as the street's side and behind the objects that hide its foot; where it stands in
    many columns nearby, it is where it stands. One stray pixel on the pavement does not move a tree."""
    below = region.below(before)
    profile = np.where(below > 0, np.minimum(sides, below), sides)
    if (region.feet >= 0).any():
        window = 2 * (before.shape[1] // 8) + 1
        stands = (region.feet >= 0)[None].astype(np.float32)
        share = cv2.blur(stands, (window, 1), borderType=cv2.BORDER_REFLECT)[0]
        profile += np.minimum(1, 4 * share) * (region.from_feet(of_row) - profile)
    return profile


def _smooth_object(profile: FloatArray, width: int) -> FloatArray:
    """One object has one depth: that of its lowest foot nearby."""
    return np.asarray(cv2.dilate(profile[None], np.ones((1, max(3, width // 20)), np.uint8))[0], np.float32)


def _smooth_wall(profile: FloatArray, width: int) -> FloatArray:
    """A wall recedes steadily: no narrow notches (something hid its foot) nor bumps (a label that spills)."""
    row = cv2.morphologyEx(profile[None], cv2.MORPH_CLOSE, np.ones((1, max(3, width // 16)), np.uint8))
    row = cv2.morphologyEx(row, cv2.MORPH_OPEN, np.ones((1, max(3, width // 16)), np.uint8))
    return np.asarray(cv2.blur(row, (max(3, width // 30), 1))[0], np.float32)
