"""Cityscapes as it is unpacked, and the foggy and rainy images that are distributed with it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.documents import read_json
from coop_perception.image_files import DatasetError, read_values
from coop_perception.recordings.labelled_folders import Pair, label_ids, read_pair
from coop_perception.shown import plain
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.depth import depth_from_disparity
from coop_training.layouts.frame import NO_DEPTH, Item, LabelledFrame, ReadyMade

SUFFIX = "_leftImg8bit"


@dataclass(frozen=True, slots=True)
class Files:
    """What belongs to one image."""

    image: Path
    label: Path
    disparity: Path
    camera: Path

    @classmethod
    def of(cls, root: Path, split: str, city: str, name: str) -> Files:
        def path(kind: str, ending: str) -> Path:
            return root / kind / split / city / f"{name}_{ending}"

        by_id, by_train_id = (path("gtFine", f"gtFine_{kind}.png") for kind in ("labelIds", "labelTrainIds"))
        label = by_train_id if by_train_id.is_file() and not by_id.is_file() else by_id
        return cls(
            path("leftImg8bit", "leftImg8bit.png"),
            label,
            path("disparity", "disparity.png"),
            path("camera", "camera.json"),
        )


@dataclass(frozen=True, slots=True)
class Weather:
    """Degraded images of one condition: their folder, the rest of their names, and beta's levels, mild to severe."""

    condition: str
    folders: tuple[str, ...]
    ending: re.Pattern[str]
    betas: tuple[float, ...]


FOG = Weather(
    "fog",
    # DBF: the later release, whose transmittance a dual-reference bilateral filter has refined.
    ("leftImg8bit_foggyDBF", "leftImg8bit_foggy"),
    re.compile(r"_foggy_beta_(?P<beta>\d+(?:\.\d+)?)\.png"),
    (0.005, 0.01, 0.02),
)
"""Foggy Cityscapes: Sakaridis, Dai, Van Gool, IJCV 2018."""
RAIN = Weather(
    "rain",
    ("leftImg8bit_rain",),
    re.compile(r"_rain_alpha_[\d.]+_beta_(?P<beta>\d+(?:\.\d+)?)_dropsize_[\d.]+_pattern_\d+\.png"),
    (0.005, 0.01, 0.015),
)
"""RainCityscapes: Hu, Fu, Zhu, Heng, CVPR 2019."""


def cityscapes_items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
    """Lists leftImg8bit/<split>/<city>/*_leftImg8bit.png; with `depth`, disparity and camera must be there too."""
    folder = root / "leftImg8bit" / split
    images = sorted(folder.glob(f"[!.]*/[!.]*{SUFFIX}.png"))
    if not images:
        raise DatasetError(f"{folder}: holds no <city>/*{SUFFIX}.png; the root is the folder that holds leftImg8bit")
    keys = [(path.parent.name, path.stem.removesuffix(SUFFIX)) for path in images]
    return _items(root, split, keys, classes, depth, {})


def weather_items(weather: Weather) -> Callable[[Path, str, ClassList, bool], list[Item]]:
    """Lists the clear images that have degraded ones, with these."""

    def items(root: Path, split: str, classes: ClassList, depth: bool) -> list[Item]:
        folders = [root / name / split for name in weather.folders]
        folder = next((f for f in folders if f.is_dir()), folders[0])
        degraded: dict[tuple[str, str], list[ReadyMade]] = defaultdict(list)
        for path in sorted(folder.glob(f"[!.]*/[!.]*{SUFFIX}_*.png")):
            name, ending = path.name.split(SUFFIX, 1)
            degraded[path.parent.name, name].append(_ready_made(weather, path, ending))
        if not degraded:
            raise DatasetError(
                f"{folder}: holds no <city>/*{SUFFIX}_*.png; the root is the folder that holds {weather.folders[0]} "
                "beside leftImg8bit and gtFine"
            )
        return _items(root, split, list(degraded), classes, depth, degraded)

    return items


def _ready_made(weather: Weather, path: Path, ending: str) -> ReadyMade:
    match = weather.ending.fullmatch(ending)
    beta = float(match["beta"]) if match else None
    if beta not in weather.betas:
        raise DatasetError(
            f"{path}: no name of a {weather.condition} image, whose beta is one of "
            f"{', '.join(map(str, weather.betas))}; move files that are none elsewhere"
        )
    return ReadyMade(weather.condition, (weather.betas.index(beta) + 1) / len(weather.betas), path)


def _items(
    root: Path,
    split: str,
    keys: Sequence[tuple[str, str]],
    classes: ClassList,
    depth: bool,
    degraded: Mapping[tuple[str, str], Sequence[ReadyMade]],
) -> list[Item]:
    """Items of (city, name).

    Raises:
        DatasetError: a file that is needed is missing.
    """
    found = {key: Files.of(root, split, *key) for key in keys}
    kinds = ("image", "label", *(("disparity", "camera") if depth else ()))
    for kind in kinds:
        missing = [path for files in found.values() if not (path := getattr(files, kind)).is_file()]
        if missing:
            others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise DatasetError(f"{missing[0]}: missing{others}; unpack Cityscapes' {_PACKAGES[kind]} into {root}")
    return [
        Item(name, partial(_read, found[city, name], classes, depth, tuple(degraded.get((city, name), ()))))
        for city, name in keys
    ]


_PACKAGES = {
    "image": "leftImg8bit_trainvaltest.zip",
    "label": "gtFine_trainvaltest.zip",
    "disparity": "disparity_trainvaltest.zip, which depth comes from (or train without conditions that need depth),",
    "camera": "camera_trainvaltest.zip, which depth comes from (or train without conditions that need depth),",
}


def _read(files: Files, classes: ClassList, depth: bool, ready_made: tuple[ReadyMade, ...]) -> LabelledFrame:
    ids = label_ids(classes.classes) if files.label.stem.endswith("labelTrainIds") else classes.label_ids
    image, mask = read_pair(Pair(files.image, files.label), ids)
    height, width = mask.shape
    if not depth:
        return LabelledFrame(image, mask, NO_DEPTH, Intrinsics.from_fov(width, height), ready_made)
    intrinsics, baseline = read_camera(files.camera, width, height)
    disparity = read_disparity(files.disparity)
    if disparity.shape != mask.shape:
        raise DatasetError(
            f"{files.disparity}: is {disparity.shape[1]}x{disparity.shape[0]}, its image {width}x{height}"
        )
    sky = mask == next(c.id for c in classes.classes if c.name == "sky")
    try:
        metres = depth_from_disparity(disparity, sky, baseline, intrinsics.fx)
    except ValueError as error:
        raise DatasetError(f"{files.disparity}: {error}") from error
    with np.errstate(over="ignore"):  # farther than float16 reaches is as good as infinite
        return LabelledFrame(image, mask, metres.astype(np.float16), intrinsics, ready_made)


def read_camera(path: Path, width: int, height: int) -> tuple[Intrinsics, float]:
    """Intrinsics and the stereo baseline in metres, from a camera file.

    Raises:
        DatasetError: the file is no JSON, lacks a number, or focal length or baseline is not above 0.
    """
    try:
        raw = read_json(path)
        fx, fy, cx, cy = (float(raw["intrinsic"][key]) for key in ("fx", "fy", "u0", "v0"))
        baseline = float(raw["extrinsic"]["baseline"])
    except (ValueError, KeyError, TypeError) as error:
        reason = plain(repr(error))
        raise DatasetError(
            f"{path}: no camera file ({reason}); expected JSON with intrinsic.fx, fy, u0, v0 and extrinsic.baseline"
        ) from error
    if not all(0 < value < math.inf for value in (fx, fy, baseline)):
        raise DatasetError(f"{path}: fx {fx}, fy {fy} and baseline {baseline} must be above 0")
    return Intrinsics(width, height, fx, fy, cx, cy), baseline


def read_disparity(path: Path) -> NDArray[np.float32]:
    """A disparity map: float32 [H,W], pixels, NaN where there is none. Stored are 16 bits p: (p-1)/256, 0 = none.

    Raises:
        DatasetError: the file is missing, cannot be decoded, or is no single-channel 16-bit image.
    """
    stored = read_values(path)
    if stored.ndim != 2 or stored.dtype != np.uint16:
        raise DatasetError(
            f"{path}: is {stored.dtype} of shape {stored.shape}; a disparity map is a PNG of one channel with 16 bits"
        )
    return np.where(stored > 0, (stored.astype(np.float32) - 1) / 256, np.float32(np.nan))
