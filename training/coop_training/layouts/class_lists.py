"""Class lists of data sets, from YAML files: the published ones lie in `classes/`.

    ignore: [0]                  # values of label files that carry no label, besides 255; optional
    classes:
      - {id: 1, name: wall, rgb: [120, 120, 120]}

`id` is the value in label files; ids in masks count from 0 in the order of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass, parse_classes
from coop_perception.documents import DocumentError, read_yaml
from coop_perception.image_files import DatasetError
from coop_perception.recordings.labelled_folders import label_ids


@dataclass(frozen=True, slots=True)
class ClassList:
    """Classes with their ids in masks, and what the values of label files stand for: value → id in masks."""

    classes: tuple[SemanticClass, ...]
    label_ids: Mapping[int, int]


@cache
def published(name: str) -> ClassList:
    """The class list of a data set, by the name of its file in `classes/`; CamVid's is the vehicle's own."""
    if name == "camvid":
        return class_list(CAMVID_CLASSES)
    raw = read_yaml(Path(__file__).parent / "classes" / f"{name}.yaml")
    values = [entry["id"] for entry in raw["classes"]]
    classes = parse_classes([{**entry, "id": index} for index, entry in enumerate(raw["classes"])])
    ids = {value: index for index, value in enumerate(values)}
    return ClassList(classes, ids | dict.fromkeys((*raw.get("ignore", ()), IGNORE_ID), IGNORE_ID))


def class_list(classes: Sequence[SemanticClass], ignore: Sequence[int] = ()) -> ClassList:
    """Classes whose label files hold the ids of masks.

    Raises:
        ValueError: an id to ignore is a class's, or no byte.
    """
    ids = label_ids(classes)
    wrong = [i for i in ignore if not 0 <= i <= IGNORE_ID or ids.get(i, IGNORE_ID) != IGNORE_ID]
    if wrong:
        raise ValueError(f"ignore: {wrong}: a class has that id, or it is not in 0..{IGNORE_ID}")
    return ClassList(tuple(classes), ids | dict.fromkeys(ignore, IGNORE_ID))


def read_class_file(path: Path) -> dict[str, Any]:
    """A user's class file, as the fields `classes` and `ignore`: ids are 0..C-1, so that labels and masks agree.

    Raises:
        DatasetError: the file is missing, is no such YAML, or its classes cannot be used.
    """
    try:
        raw = read_yaml(path)
    except DocumentError as error:
        raise DatasetError(f"{error}; it lists the classes: 'classes:' with id, name and rgb each") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("classes"), list) or not {*raw} <= {"classes", "ignore"}:
        raise DatasetError(f"{path}: expected the fields 'classes' (a list of id, name, rgb) and optionally 'ignore'")
    ignore = raw.get("ignore", [])
    ignore = ignore if isinstance(ignore, list) else [ignore]
    try:
        parsed = class_list(parse_classes(raw["classes"]), [int(i) for i in ignore])
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return {"classes": list(parsed.classes), "ignore": ignore}
