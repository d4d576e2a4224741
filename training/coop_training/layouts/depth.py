"""Metric depth of street images: from stereo disparity, and from labels where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass
from coop_perception.degradations.depth import depth_from_labels

_CAMVID = {c.name: c.id for c in CAMVID_CLASSES}
_STREET_NAMES = {name.lower(): name for name in _CAMVID} | {
    "sidewalk": "Pavement",
    "terrain": "Pavement",
    "wall": "Building",
    "vegetation": "Tree",
    "traffic sign": "SignSymbol",
    "traffic light": "SignSymbol",
    "guard rail": "Fence",
    "person": "Pedestrian",
    "rider": "Bicyclist",
    "motorcycle": "Bicyclist",
    "bicycle": "Bicyclist",
}
"""Class names of Cityscapes and its kin, in lower case → CamVid's. Lorries and buses are left out: the horizon is
estimated by the height of cars."""


def street_ids(classes: Sequence[SemanticClass]) -> dict[int, int] | None:
    """CamVid's id for each class of a street scene, by the usual names.

    What has no counterpart counts as unlabelled, which depth from labels takes for upright things. None for classes
    without road or sky, or with a ceiling: not all that they label is a street.
    """
    names = {c.id: c.name.lower() for c in classes}
    ids = {i: _CAMVID.get(_STREET_NAMES.get(name, ""), IGNORE_ID) for i, name in names.items()}
    is_street = {_CAMVID["Road"], _CAMVID["Sky"]} <= {*ids.values()} and "ceiling" not in names.values()
    return ids if is_street else None


def depth_from_street_labels(
    mask: NDArray[np.uint8], image: NDArray[np.uint8], intrinsics: Intrinsics, classes: Sequence[SemanticClass]
) -> NDArray[np.float32] | None:
    """`depth_from_labels` for any classes of streets: float32 [H,W], metres, inf in the sky; None for other classes."""
    ids = street_ids(classes)
    if ids is None:
        return None
    table = np.full(256, IGNORE_ID, np.uint8)
    table[list(ids)] = list(ids.values())
    return depth_from_labels(table[mask], image, intrinsics)


def depth_from_disparity(
    disparity: NDArray[np.float32], sky: NDArray[np.bool_], baseline: float, fx: float
) -> NDArray[np.float32]:
    """Depth of a rectified stereo pair's left image: baseline·fx/disparity.

    Where matching failed, mostly beside things that hide what lies behind them, a pixel takes the smaller disparity of
    its nearest measured neighbours in the row: what is hidden is the background (as KITTI's evaluation fills maps,
    Geiger et al., 2012). Rows without any measurement take the nearest row's.

    Args:
        disparity: float32 [H,W], pixels; NaN where there is none.
        sky: bool [H,W]; infinitely far whatever was measured, and no neighbour to take disparity from.
        baseline: metres.
        fx: pixels.

    Returns:
        float32 [H,W], metres along the optical axis, inf in the sky and where the disparity is 0.

    Raises:
        ValueError: nothing outside the sky was measured.
    """
    measured = ~np.isnan(disparity) & ~sky
    rows = np.flatnonzero(measured.any(axis=1))
    if not rows.size:
        raise ValueError("holds no measured disparity")
    known, values = measured[rows], disparity[rows]
    width = disparity.shape[1]
    columns = np.arange(width)
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, width)[:, ::-1], axis=1)[:, ::-1]
    at_left = np.where(left >= 0, np.take_along_axis(values, np.maximum(left, 0), axis=1), np.inf)
    at_right = np.where(right < width, np.take_along_axis(values, np.minimum(right, width - 1), axis=1), np.inf)
    middles = (rows[1:] + rows[:-1] + 1) // 2
    nearest = np.searchsorted(middles, np.arange(len(disparity)), side="right")
    filled = np.minimum(at_left, at_right)[nearest]
    with np.errstate(divide="ignore", over="ignore"):
        depth = np.float32(baseline * fx) / filled
    depth[sky] = np.inf
    return np.asarray(depth, np.float32)
