"""Depth for images that come without: enough for fog that reads as fog, not for measuring.

From labels, the street is taken as a plane below a level camera, the sky as infinitely far, and everything else as
standing upright where it meets the ground. A guided filter then moves the seams from the labels' edges to the image's.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations.arrays import FloatArray, UInt8Array
from coop_perception.degradations.guided_filter import guided_filter
from coop_perception.degradations.upright_depth import FARTHEST, GROUND, inverse_depth

_STREET_END = 50.0
"""Metres: how far the street's surface is usually seen in town, and, as a share of the image's width, how wide it is
there."""
_STREET_END_WIDTH = 0.05
_SPECK = 1e-3
"""Share of the image below which an unlabelled region is a slip of the labeller."""
_BRANCH = 0.75
"""Brightness beside the sky around it below which something is not sky."""
_INFINITE = 4 * FARTHEST
"""Metres: what comes out farther than this is sky."""
_FILTER_BETA = 0.01
"""1/m: the guided filter works on exp(-beta depth), as fog of middle density weighs depth."""


def estimate_horizon(mask: UInt8Array, intrinsics: Intrinsics, camera_height: float = 1.5) -> float:
    """Row of the horizon for a camera that looks along the street, which may be pitched a little.

    From how far up the image the street reaches: in town it is seen for some 50 m, whatever the camera's pitch. On
    CamVid that is steadier from frame to frame than cars, whose height is known but of which much is hidden.

    Args:
        mask: uint8 [H, W], CamVid ids.
        intrinsics: of the camera, for this image size.
        camera_height: above the street, in metres.

    Returns:
        Row, in pixels; the image centre where there is no street.
    """
    rows = np.flatnonzero(np.isin(mask, GROUND).mean(axis=1) > _STREET_END_WIDTH)
    return float(rows[0]) - camera_height * intrinsics.fy / _STREET_END if rows.size else intrinsics.cy


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
    unknown = sorted(set(np.unique(mask).tolist()) - {c.id for c in CAMVID_CLASSES} - {IGNORE_ID})
    if unknown:
        raise ValueError(f"depth_from_labels: mask holds ids {unknown}, expected 0..10 and {IGNORE_ID} (CamVid)")
    row = estimate_horizon(mask, intrinsics, camera_height) if horizon is None else horizon
    inverse = inverse_depth(_without_specks(mask), row, 1 / (camera_height * intrinsics.fy))
    inverse = _with_branches(inverse, image)
    with np.errstate(divide="ignore"):  # exp(-1/0) is the 0 and log(0) the infinity that the sky needs
        visible = np.exp(-_FILTER_BETA / inverse)
        visible = guided_filter(image, visible, radius=max(2, image.shape[1] // 60), epsilon=1e-4)
        visible[visible < np.exp(-_FILTER_BETA * _INFINITE)] = 0
        depth: FloatArray = np.log(np.minimum(visible, 1)) / -np.float32(_FILTER_BETA)
    return depth


def ground_plane_depth(intrinsics: Intrinsics, camera_height: float = 1.5) -> FloatArray:
    """Depth of an empty street below a level camera, for images of which nothing but the camera is known.

    Whatever stands on the street is as far as the street behind it; from the horizon up, all is as far as
    ``depth_from_labels`` puts things that stand at the horizon.

    Args:
        intrinsics: of the camera; gives the image's size too.
        camera_height: above the street, in metres.

    Returns:
        float32 [H, W]: metres along the optical axis.

    Raises:
        ValueError: ``camera_height`` is not above 0.
    """
    if not camera_height > 0:
        raise ValueError(f"ground_plane_depth: camera_height is {camera_height}, expected above 0 (metres)")
    rows = np.arange(intrinsics.height, dtype=np.float32)
    inverse = np.maximum((rows - intrinsics.cy) / (camera_height * intrinsics.fy), 1 / FARTHEST)
    shape = intrinsics.height, intrinsics.width
    return np.broadcast_to((1 / inverse).astype(np.float32)[:, None], shape)


def with_unknown_filled(measured: FloatArray, otherwise: FloatArray) -> FloatArray:
    """A sensor's depth as a degradation can use it, with another depth where the sensor saw nothing.

    Args:
        measured: float32 [H, W] in metres; NaN or not above 0 where unknown, inf beyond and -inf below the range.
        otherwise: float32 [H, W] in metres, for what is unknown.

    Returns:
        float32 [H, W] in metres, 0 where it is nearer than could be measured, inf beyond the range.
    """
    filled: FloatArray = np.where(measured > 0, measured, otherwise)
    filled[np.isneginf(measured)] = 0
    return filled


def _without_specks(labels: UInt8Array) -> UInt8Array:
    """Unlabelled regions too small to be anything take the nearest label."""
    unlabelled = (labels == IGNORE_ID).astype(np.uint8)
    _, components, stats, _ = cv2.connectedComponentsWithStats(unlabelled)
    small = stats[:, cv2.CC_STAT_AREA] < _SPECK * labels.size
    small[0] = False
    nearest = _nearest(~small[components])
    return labels if nearest is None else labels.ravel()[nearest]


def _with_branches(inverse: FloatArray, image: UInt8Array) -> FloatArray:
    """Thin dark things labelled as sky, which are branches, masts and wires, are as far as the nearest thing."""
    nearest = _nearest(inverse > 0)
    if nearest is None:
        return inverse
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    size = 2 * (image.shape[1] // 60) + 1
    sky_around = cv2.morphologyEx(grey, cv2.MORPH_CLOSE, np.ones((size, size), np.uint8))
    return np.where(grey < np.float32(_BRANCH) * sky_around, inverse.ravel()[nearest], inverse)


def _nearest(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp] | None:
    """Flat index [H, W] of the nearest known pixel, of known ones themselves; None where all are known or none is."""
    if known.all() or not known.any():
        return None
    _, zone = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    pixel_of = np.zeros(int(zone.max()) + 1, np.intp)
    pixel_of[zone[known]] = np.flatnonzero(known)
    return np.asarray(pixel_of[zone], np.intp)
