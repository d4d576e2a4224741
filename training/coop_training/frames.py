"""The frames that a configuration trains on, held in memory where they fit."""

from __future__ import annotations

from collections.abc import Sequence

from rich.progress import track

from coop_perception.degradations import CONDITIONS
from coop_perception.image_files import DatasetError
from coop_perception.sample_scene.drive import SampleDrive
from coop_training.config import DataConfig
from coop_training.layouts import LAYOUTS
from coop_training.layouts.frame import Item, LabelledFrame, scaled


class UnreadFrames(Sequence[LabelledFrame]):
    """Frames of `items`, each read whenever it is asked for and scaled down to `max_height`, then those of `held`."""

    def __init__(self, items: Sequence[Item], max_height: int | None, held: Sequence[LabelledFrame] = ()) -> None:
        self.items, self.max_height, self.held = items, max_height, held

    def __len__(self) -> int:
        return len(self.items) + len(self.held)

    def __getitem__(self, index: int) -> LabelledFrame:  # type: ignore[override]
        if index >= len(self.items):
            return self.held[index - len(self.items)]
        frame = self.items[index].read()
        height, width = frame.mask.shape
        if self.max_height is None or height <= self.max_height:
            return frame
        return scaled(frame, self.max_height, round(width * self.max_height / height))


def load_frames(config: DataConfig, conditions: Sequence[str] = tuple(CONDITIONS)) -> Sequence[LabelledFrame]:
    """All training frames: the data set's, then the sample drives'.

    A data set that takes at most `config.memory_gb`, by its first frame, is read at once and held; of a larger
    one, a frame is read each time that it is asked for. Depth is read, or estimated from labels, where one of
    `conditions` needs it.

    Raises:
        DatasetError: a file is missing or cannot be used, or there is no frame at all.
    """
    items = data_items(config, conditions)
    unread = UnreadFrames(items, config.max_height)
    fits = not items or _gigabytes(unread[0]) * len(items) <= config.memory_gb
    read = [unread[index] for index in track(range(len(items)), f"{config.layout}: reading")] if fits and items else []
    drives = _sample_frames(config)
    if not items and not drives:
        raise DatasetError(
            "no training frame: data.root is not set or data.exclude leaves none, and sample_drives is 0"
        )
    return [*read, *drives] if fits else UnreadFrames(items, config.max_height, drives)


def data_items(config: DataConfig, conditions: Sequence[str]) -> list[Item]:
    """The data set's frames, unread; none without a data set. Depth comes with them where one of `conditions` needs it.

    Raises:
        DatasetError: the folder is not laid out as it should be.
    """
    if config.root is None:
        return []
    layout = LAYOUTS[config.layout]
    needs_depth = any(CONDITIONS[name].needs_depth for name in conditions if name not in layout.ready_made)
    try:
        items = layout.items(config.root, config.split, config.class_list, needs_depth)
    except DatasetError as error:
        raise DatasetError(f"{error}; docs/data.md has the tree that the layout {config.layout} expects") from error
    return [item for item in items if not item.name.startswith(config.exclude)]


def _sample_frames(config: DataConfig) -> list[LabelledFrame]:
    frames = []
    seeds = range(config.first_seed, config.first_seed + config.sample_drives)
    for seed in track(seeds, "sample drives: rendering") if config.sample_drives else ():
        drive = SampleDrive(seed)
        for index in range(config.frames_per_drive):
            # 2 s apart: neighbouring frames of a drive are nearly the same picture.
            frame = drive.frame(30 * index)
            frames.append(LabelledFrame(frame.image, frame.mask, frame.depth.astype("float16"), drive.intrinsics))
    return frames


def _gigabytes(frame: LabelledFrame) -> float:
    return (frame.image.nbytes + frame.mask.nbytes + frame.depth.nbytes) / 1e9
