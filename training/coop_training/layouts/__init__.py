"""Data sets as they lie on disk: how each is listed, which classes it has and where its depth comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from coop_training.layouts.celebamask_hq import celebamask_items
from coop_training.layouts.cityscapes import FOG, RAIN, cityscapes_items, weather_items
from coop_training.layouts.class_lists import ClassList
from coop_training.layouts.folders import own_items, paired_folders, voc_items
from coop_training.layouts.frame import Item


@dataclass(frozen=True, slots=True)
class Layout:
    """One data set's shape on disk."""

    items: Callable[[Path, str, ClassList, bool], list[Item]]
    """(root, split, classes, whether to read depth) → the frames, unread.

    Raises DatasetError where a folder or file is missing."""
    classes: str | None
    """Name of the class list; None: the user's own."""
    depth: Literal["labels", "measured"] | None = None
    """Where metric depth comes from."""
    ready_made: tuple[str, ...] = ()
    """Conditions that degraded images come with."""


SAMPLE_DRIVE = "sample_drive"
"""The layout without a folder: the rendered drives alone."""
LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "camvid": Layout(paired_folders("labels"), "camvid", "labels"),
        "cityscapes": Layout(cityscapes_items, "cityscapes", "measured"),
        "foggy_cityscapes": Layout(weather_items(FOG), "cityscapes", "measured", ("fog",)),
        "rain_cityscapes": Layout(weather_items(RAIN), "cityscapes", "measured", ("rain",)),
        "ade20k": Layout(paired_folders("annotations", {"train": "training", "val": "validation"}), "ade20k"),
        "coco_stuff": Layout(paired_folders("annotations", {"train": "train2017", "val": "val2017"}), "coco_stuff"),
        "voc2012": Layout(voc_items, "voc2012"),
        "celebamask_hq": Layout(celebamask_items, "celebamask_hq"),
        "folder": Layout(own_items, None, "labels"),
        SAMPLE_DRIVE: Layout(lambda root, split, classes, depth: [], "camvid", "measured"),
    }
)
"""The layouts by the name that a configuration gives; docs/data.md shows each one's tree."""
