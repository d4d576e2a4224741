"""Metric depth that was measured: stereo disparity, and files of depth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.image_files import DatasetError, read_values
from coop_perception.recordings.labelled_folders import Pair

DEPTH_FILES = (".png", ".npy")
EXPECTED = (
    "a depth file is a PNG of one channel with 16 bits, in millimetres (0: unknown), or an .npy of floats, in metres"
)


def find_depth(folder: Path, pairs: Sequence[Pair]) -> list[Path]:
    """The depth file of each frame in a folder, by file stem.

    Raises:
        DatasetError: the folder is missing, a frame has no such file, or two.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in DEPTH_FILES or path.name.startswith("."):
            continue
        if path.stem in files:
            raise DatasetError(f"{path}: has the same stem as {files[path.stem].name}; one depth file for each frame")
        files[path.stem] = path
    missing = [pair for pair in pairs if pair.name not in files]
    if missing:
        raise DatasetError(
            f"{missing[0].image}: has no depth {folder / missing[0].name}.png, nor .npy"
            + (f" (nor have {len(missing) - 1} of {len(pairs)} other images)" if len(missing) > 1 else "")
        )
    return [files[pair.name] for pair in pairs]


def read_depth(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """A depth file of an image of that size: float32 [H,W], metres along the optical axis; not above 0, or NaN, where
    it is unknown.

    Raises:
        DatasetError: the file cannot be read, is of another kind or size, or holds no depth at all.
    """
    if path.suffix.lower() == ".npy":
        stored = _read_npy(path)
        right = np.issubdtype(stored.dtype, np.floating)
    else:
        stored = read_values(path)
        right = stored.dtype == np.uint16
    if stored.ndim != 2 or not right:
        raise DatasetError(f"{path}: is {stored.dtype} of shape {stored.shape}; {EXPECTED}")
    if stored.shape != (height, width):
        raise DatasetError(f"{path}: is {stored.shape[1]}x{stored.shape[0]}, its image {width}x{height}")
    metres = stored / np.float32(1000) if stored.dtype == np.uint16 else stored
    if not (metres > 0).any():
        raise DatasetError(f"{path}: holds no depth above 0; {EXPECTED}")
    return np.asarray(metres, np.float32)


def _read_npy(path: Path) -> NDArray[np.generic]:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise DatasetError(f"{path}: cannot be read as .npy ({error}); {EXPECTED}") from error


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
