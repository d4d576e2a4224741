"""The frames that a configuration trains on, held in memory where they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track

from coop_perception.camera import Intrinsics
from coop_perception.classes import IGNORE_ID, SemanticClass
from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.depth import ground_plane_depth
from coop_perception.degradations.street import street_ids
from coop_perception.degradations.upright_depth import GROUND
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.recordings.labelled_folders import odd_pairs
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception.shown import plain
from coop_training.config import CoarseData, DataConfig
from coop_training.layouts import LAYOUTS
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.folders import DEPTH, paired_items
from coop_training.layouts.frame import Item, LabelledFrame, scaled

_CONSOLE = Console(stderr=True, markup=False)


class UnreadFrames(Sequence[LabelledFrame]):
    """Frames of `items`, each read whenever it is asked for and scaled down to `max_height`."""

    def __init__(self, items: Sequence[Item], max_height: int | None) -> None:
        self.items, self.max_height = items, max_height

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> LabelledFrame:  # type: ignore[override]
        frame = self.items[index].read()
        height, width = frame.mask.shape
        if self.max_height is None or height <= self.max_height:
            return frame
        return scaled(frame, self.max_height, round(width * self.max_height / height))


class TrainingFrames(Sequence[LabelledFrame]):
    """Frames of several data sets, one behind the other.

    Args:
        parts: the data sets.
        shares: how often a frame of each is to be drawn, in sum 1; None: of all such together, each as often.
    """

    def __init__(self, parts: Sequence[Sequence[LabelledFrame]], shares: Sequence[float | None]) -> None:
        self.parts = [part for part in parts if part]
        given = [share for part, share in zip(parts, shares, strict=True) if part]
        self.ends = np.cumsum([len(part) for part in self.parts])
        rest = sum(len(part) for part, share in zip(self.parts, given, strict=True) if share is None)
        others = 1 - sum(share for share in given if share is not None)
        each = [
            others / rest if share is None else share / len(part) for part, share in zip(self.parts, given, strict=True)
        ]
        self.weights: NDArray[np.float64] = np.repeat(each, [len(part) for part in self.parts])
        """How often each frame is to be drawn, in sum 1."""

    def shares(self) -> list[float]:
        """How often a frame of each part is drawn, in sum 1."""
        starts = [0, *self.ends[:-1].tolist()]
        return [float(self.weights[start:end].sum()) for start, end in zip(starts, self.ends, strict=True)]

    def __len__(self) -> int:
        return len(self.weights)

    def __getitem__(self, index: int) -> LabelledFrame:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part][index - int(self.ends[part])]  # counted from its end


def with_cameras(frames: TrainingFrames, folders: Sequence[Path], share: float) -> TrainingFrames:
    """Frames, and beside them clear images of other cameras, of which nothing else is known: on an empty, level street.

    Args:
        frames: drawn as before, but for the share.
        folders: of the images; without any, `frames` are returned.
        share: how often one of the images is to be drawn.

    Raises:
        DatasetError: a folder holds no image, or one cannot be read.
    """
    if not folders:
        return frames
    others = [unlabelled(read_image(path)) for folder in folders for path in sorted(image_files(folder))]
    return TrainingFrames([*frames.parts, others], [*((1 - share) * part for part in frames.shares()), share])


def unlabelled(image: NDArray[np.uint8]) -> LabelledFrame:
    """A camera's frame, uint8 [h,w,3] RGB, without labels, its depth that of an empty, level street."""
    height, width = image.shape[:2]
    intrinsics = Intrinsics.from_fov(width, height)
    depth = ground_plane_depth(intrinsics).astype(np.float16)
    return LabelledFrame(image, np.full((height, width), IGNORE_ID, np.uint8), depth, intrinsics)


def load_frames(config: DataConfig, conditions: Sequence[str]) -> TrainingFrames:
    """All training frames: the data set's but for those of `validation_frames`, the sample drives', and those of
    coarsely labelled data sets.

    Depth is read, or estimated from labels, where one of `conditions` needs it.

    Raises:
        DatasetError: a file is missing or cannot be used, or there is no frame at all.
    """
    items = data_items(config, conditions)
    main = _held(items[: len(items) - _held_out(items, config)], config, config.layout)
    drives = _sample_frames(config)
    if not main and not drives:
        raise DatasetError(
            "no training frame: data.root is not set or data.exclude leaves none, and sample_drives is 0"
        )
    depth = _need_depth(conditions)
    coarse = [_held(coarse_items(entry, config, depth), config, str(entry.root)) for entry in config.also]
    return TrainingFrames([main, drives, *coarse], [None, None, *(entry.share for entry in config.also)])


def validation_frames(config: DataConfig, conditions: Sequence[str], most: int) -> list[LabelledFrame]:
    """Frames that are not trained on, at most so many, evenly spread: of the validation split, else the last ones of
    the data set, else of further sample drives. None where the configuration wants no validation.

    Raises:
        DatasetError: a file is missing or cannot be used.
    """
    if config.root is None:
        if not config.validation_share:
            return []
        drives = max(1, round(config.validation_share * config.sample_drives))
        further = {"first_seed": config.first_seed + config.sample_drives, "sample_drives": drives}
        frames: Sequence[LabelledFrame] = _sample_frames(config.model_copy(update=further))
    else:
        split = config.split if config.validation_split is None else config.validation_split
        items = data_items(config.model_copy(update={"split": split}), conditions)
        if config.validation_split is None:
            items = items[len(items) - _held_out(items, config) :]
        frames = UnreadFrames(items, config.max_height)
    chosen = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    validated = [frames[index] for index in chosen.tolist()]
    if validated and all((frame.mask == IGNORE_ID).all() for frame in validated):
        raise DatasetError(
            f"{config.root}: none of the {len(validated)} frames to validate on has a label; give another "
            "data.validation_split, or data.validation_share: 0 for no validation"
        )
    return validated


def _held_out(items: Sequence[Item], config: DataConfig) -> int:
    """How many of the data set's frames, the last, are for validation; the first never is."""
    wanted = round(config.validation_share * len(items)) if config.validation_split is None else 0
    return min(wanted, max(len(items) - 1, 0))


def _held(items: Sequence[Item], config: DataConfig, name: str) -> Sequence[LabelledFrame]:
    """The frames of a data set, in memory where it takes at most `config.memory_gb`, by its first frame; else read each
    time that they are asked for."""
    unread = UnreadFrames(items, config.max_height)
    if items and _gigabytes(unread[0]) * len(items) > config.memory_gb:
        return unread
    said = escape(plain(f"{name}: reading", 80))
    return [unread[index] for index in track(range(len(items)), said, console=_CONSOLE)] if items else []


def data_items(config: DataConfig, conditions: Sequence[str]) -> list[Item]:
    """The data set's frames, unread; none without a data set. Depth comes with them where one of `conditions` needs it.

    Raises:
        DatasetError: the folder is not laid out as it should be.
    """
    if config.root is None:
        return []
    layout = LAYOUTS[config.layout]
    needs_depth = _need_depth([name for name in conditions if name not in layout.ready_made])
    if config.depth_folder and needs_depth and not (config.root / DEPTH).is_dir():
        raise DatasetError(f"{config.root / DEPTH}: no such folder, though data.depth_folder is true")
    try:
        items = layout.items(config.root, config.split, config.class_list, needs_depth)
    except DatasetError as error:
        raise DatasetError(f"{error}; docs/data.md has the tree that the layout {config.layout} expects") from error
    return [item for item in items if not item.name.startswith(config.exclude)]


def own_oddities(config: DataConfig) -> list[str]:
    """What is said of a folder of one's own that can be used all the same."""
    if config.root is None or config.layout != "folder":
        return []
    return odd_pairs(config.root / "images" / config.split, config.root / "labels" / config.split)


def _need_depth(conditions: Sequence[str]) -> bool:
    return any(CONDITIONS[name].needs_depth for name in conditions if name in CONDITIONS)


def coarse_items(entry: CoarseData, config: DataConfig, depth: bool) -> list[Item]:
    """The frames of a coarsely labelled data set, unread; a mask holds indices of `config.label_sets`. With `depth`, it
    is estimated from these: what may be several classes stands upright, unless all of them are ground.

    Raises:
        DatasetError: a folder is missing or has no image, or an image has no label.
    """
    ids = {c.name: c.id for c in config.class_list.classes}
    sets = config.label_sets
    values = {
        value: sets.index(frozenset(ids[name] for name in names)) if names else IGNORE_ID
        for value, names in entry.labels.items()
    }
    classes = config.class_list.classes
    street = street_ids(classes)
    several = [
        SemanticClass(index, "several", (0, 0, 0), "ground" if {*street[list(among)]} <= {*GROUND} else None)
        for index, among in enumerate(sets[len(classes) :], len(classes))
    ]
    labels = ClassList((*classes, *several), values | {IGNORE_ID: IGNORE_ID})
    return paired_items(entry.root / "images" / entry.split, entry.root / "labels" / entry.split, labels, depth)


def _sample_frames(config: DataConfig) -> list[LabelledFrame]:
    frames = []
    seeds = range(config.first_seed, config.first_seed + config.sample_drives)
    for seed in track(seeds, "sample drives: rendering", console=_CONSOLE) if config.sample_drives else ():
        drive = SampleDrive(seed)
        for index in range(config.frames_per_drive):
            # 2 s apart: neighbouring frames of a drive are nearly the same picture.
            frame = drive.frame(30 * index)
            frames.append(LabelledFrame(frame.image, frame.mask, frame.depth.astype("float16"), drive.intrinsics))
    return frames


def _gigabytes(frame: LabelledFrame) -> float:
    return (frame.image.nbytes + frame.mask.nbytes + frame.depth.nbytes) / 1e9
