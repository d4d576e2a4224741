"""Depth for images that have labels but no depth: enough for fog that reads as fog, not for measuring.

The street is taken as a plane below a level camera, the sky as infinitely far, and everything else as standing upright
where it meets the ground. A guided filter then moves the seams from the labels' edges to the image's.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations.arrays import FloatArray, UInt8Array

_ID = {semantic_class.name: semantic_class.id for semantic_class in CAMVID_CLASSES}
_GROUND = (_ID["Road"], _ID["Pavement"])
_WALLS = ((_ID["Building"],), (_ID["Tree"],), (_ID["Fence"],), (IGNORE_ID,))
_OBJECTS = ((_ID["Pole"], _ID["SignSymbol"]), (_ID["Car"],), (_ID["Pedestrian"],), (_ID["Bicyclist"],))

_CAR_HEIGHT = 1.5
"""Metres."""
_STREET_ENDS = (20.0, 60.0, 150.0)
"""Metres: how far one sees the street's surface in town at least (behind traffic), usually, and at most."""
_FARTHEST = 150.0
"""Metres: where things are put whose foot is at or above the horizon."""
_INFINITE = 600.0
"""Metres: what comes out farther than this is sky."""
_FILTER_BETA = 0.01
"""1/m: the guided filter works on exp(-beta depth), as fog of middle density weighs depth."""


def guided_filter(guide: UInt8Array, source: FloatArray, radius: int, epsilon: float) -> FloatArray:
    """Smooths ``source`` while keeping, and moving, its edges to where the colour image ``guide`` has them.

    In every window the source is fitted by a linear function of the guide's colours; a pixel's value is the mean of
    what the windows around it predict. Source: He, Sun, Tang, "Guided Image Filtering", ECCV 2010, section 3.5.

    Args:
        guide: uint8 [H, W, 3].
        source: float32 [H, W].
        radius: of the square windows, in pixels.
        epsilon: variance of the guide, on the scale 0..1, below which a window counts as flat.

    Returns:
        float32 [H, W].
    """

    def window_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        size = (2 * radius + 1, 2 * radius + 1)
        flat = values.reshape(*source.shape, -1)
        return np.asarray(cv2.boxFilter(flat, -1, size), np.float64).reshape(values.shape)

    colour = guide.astype(np.float64)[..., None] / 255  # column vectors
    value = source.astype(np.float64)[..., None, None]
    transposed = colour.swapaxes(-1, -2)
    mean_colour, mean_value = window_mean(colour), window_mean(value)
    covariance = window_mean(colour @ transposed) - mean_colour @ mean_colour.swapaxes(-1, -2)
    slope = np.linalg.solve(covariance + epsilon * np.eye(3), window_mean(colour * value) - mean_colour * mean_value)
    offset = mean_value - mean_colour.swapaxes(-1, -2) @ slope
    filtered: FloatArray = (transposed @ window_mean(slope) + window_mean(offset))[..., 0, 0].astype(np.float32)
    return filtered


def estimate_horizon(mask: UInt8Array, intrinsics: Intrinsics, camera_height: float = 1.5) -> float:
    """Row of the horizon for a camera that looks along the street, which may be pitched a little.

    From cars, whose height is known: the horizon crosses whatever stands on the street at the camera's height. Buses
    and cars that hide each other mislead that, so the topmost row of the street bounds it, and stands in without cars.

    Args:
        mask: uint8 [H, W], CamVid ids.
        intrinsics: of the camera, for this image size.
        camera_height: above the street, in metres.

    Returns:
        Row, in pixels; the image centre where there is no street.
    """
    height, width = mask.shape
    rows = np.flatnonzero(np.isin(mask, _GROUND).sum(axis=1) > 0.01 * width)
    if not rows.size:
        return intrinsics.cy
    nearest, usual, farthest = (float(rows[0]) - camera_height * intrinsics.fy / z for z in _STREET_ENDS)
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask == _ID["Car"]).astype(np.uint8))
    crossings = [
        top + h - h * camera_height / _CAR_HEIGHT
        for _, top, _, h, area in stats[1:].tolist()
        if area > 1e-3 * mask.size and top > 0 and top + h < height
    ]
    return float(np.clip(np.median(crossings), nearest, farthest)) if crossings else usual


def depth_from_labels(
    mask: UInt8Array,
    image: UInt8Array,
    intrinsics: Intrinsics,
    camera_height: float = 1.5,
    horizon: float | None = None,
) -> FloatArray:
    """Plausible depth of a street image from its CamVid labels.

    Args:
        mask: uint8 [H, W], ids of ``CAMVID_CLASSES`` or 255; unlabelled regions count as upright things.
        image: uint8 [H, W, 3] RGB, the clear image.
        intrinsics: of the camera, for this image size.
        camera_height: above the street, in metres.
        horizon: row of the horizon; None estimates it.

    Returns:
        float32 [H, W]: metres along the optical axis, inf for the sky.

    Raises:
        ValueError: the mask holds other ids, the shapes differ, or ``camera_height`` is not above 0.
    """
    if not camera_height > 0:
        raise ValueError(f"depth_from_labels: camera_height is {camera_height}, expected above 0 (metres)")
    if mask.shape != image.shape[:2]:
        raise ValueError(f"depth_from_labels: mask has shape {mask.shape}, image {image.shape}; expected equal sizes")
    unknown = sorted(set(np.unique(mask).tolist()) - set(_ID.values()) - {IGNORE_ID})
    if unknown:
        raise ValueError(f"depth_from_labels: mask holds ids {unknown}, expected 0..10 and {IGNORE_ID} (CamVid)")
    row = estimate_horizon(mask, intrinsics, camera_height) if horizon is None else horizon
    inverse = _inverse_depth(mask, row, 1 / (camera_height * intrinsics.fy))
    with np.errstate(divide="ignore"):  # exp(-1/0) is the 0 and log(0) the infinity that the sky needs
        visible = np.exp(-_FILTER_BETA / inverse)
        visible = guided_filter(image, visible, radius=max(2, image.shape[1] // 60), epsilon=1e-4)
        visible[visible < np.exp(-_FILTER_BETA * _INFINITE)] = 0
        depth: FloatArray = np.log(np.minimum(visible, 1)) / -np.float32(_FILTER_BETA)
    return depth


def _inverse_depth(labels: UInt8Array, horizon: float, per_row: float) -> FloatArray:
    """1/m, from labels; of a plane seen in perspective it is linear in the image, so feet interpolate linearly."""
    height, width = labels.shape
    of_row = np.maximum((np.arange(height + 1) - horizon) * per_row, 1 / _FARTHEST).astype(np.float32)
    ground = np.isin(labels, _GROUND)
    below_is_ground = np.vstack([ground[1:], np.ones((1, width), bool)])
    result = np.zeros((height, width), np.float32)
    result[ground] = np.broadcast_to(of_row[:height, None], (height, width))[ground]

    floating: list[tuple[slice, slice, npt.NDArray[np.bool_]]] = []
    for group in _WALLS + _OBJECTS:
        count, components, stats, _ = cv2.connectedComponentsWithStats(np.isin(labels, group).astype(np.uint8))
        for index in range(1, count):
            left, top, w, h = (int(value) for value in stats[index, :4])
            box = slice(top, top + h), slice(left, left + w)
            inside = np.asarray(components[box] == index)
            feet = np.where(inside & below_is_ground[box], np.arange(top + 1, top + h + 1)[:, None], -1).max(axis=0)
            columns = np.flatnonzero(feet >= 0)
            if not columns.size:
                floating.append((box[0], box[1], inside))
                continue
            profile = np.interp(np.arange(w), columns, of_row[feet[columns]]).astype(np.float32)
            profile = (_smooth_object if group in _OBJECTS else _smooth_wall)(profile, width)
            result[box][inside] = np.broadcast_to(profile, inside.shape)[inside]

    # What never touches the ground is seen above something that does, and is put with it: lowest first.
    for rows, cols, inside in sorted(floating, key=lambda item: -item[0].stop):
        w = inside.shape[1]
        lowest = rows.start + inside.shape[0] - 1 - np.argmax(inside[::-1], axis=0)
        below = np.minimum(lowest + 1, height - 1), np.arange(cols.start, cols.start + w)
        known = np.flatnonzero(result[below])
        profile = np.full(w, 1 / _FARTHEST, np.float32)
        if known.size:
            profile = np.interp(np.arange(w), known, result[below][known]).astype(np.float32)
        result[rows, cols][inside] = np.broadcast_to(_smooth_wall(profile, width), inside.shape)[inside]
    return result


def _smooth_object(profile: FloatArray, width: int) -> FloatArray:
    """One object has one depth: that of its lowest foot nearby."""
    return np.asarray(cv2.dilate(profile[None], np.ones((1, max(3, width // 20)), np.uint8))[0], np.float32)


def _smooth_wall(profile: FloatArray, width: int) -> FloatArray:
    """A wall recedes steadily: no narrow notches (something hid its foot) nor bumps (a label that spills)."""
    row = cv2.morphologyEx(profile[None], cv2.MORPH_CLOSE, np.ones((1, max(3, width // 8)), np.uint8))
    row = cv2.morphologyEx(row, cv2.MORPH_OPEN, np.ones((1, max(3, width // 16)), np.uint8))
    return np.asarray(cv2.blur(row, (max(3, width // 30), 1))[0], np.float32)
