"""Class lists of data sets, from YAML files: the published ones lie in `classes/`.

    ignore: [0]                  # values or colours of label files that carry no label, besides 255; optional
    classes:
      - {id: 1, name: wall, rgb: [120, 120, 120]}

`id` is the value in label files, or `rgb` the colour; ids in masks count from 0 in the order of the list.
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
from coop_perception.recordings.labelled_folders import BLACK, LabelValue, label_ids

FIELDS = {"id", "name", "rgb", "role"}
"""Of a class in a user's file."""


@dataclass(frozen=True, slots=True)
class ClassList:
    """Classes with their ids in masks, and what the values of label files stand for: value → id in masks."""

    classes: tuple[SemanticClass, ...]
    label_ids: Mapping[LabelValue, int]


@cache
def published(name: str) -> ClassList:
    """The class list of a data set, by the name of its file in `classes/`; CamVid's is the vehicle's own."""
    if name == "camvid":
        return class_list(CAMVID_CLASSES, [BLACK])  # its void
    raw = read_yaml(Path(__file__).parent / "classes" / f"{name}.yaml")
    values = [entry["id"] for entry in raw["classes"]]
    classes = parse_classes([{**entry, "id": index} for index, entry in enumerate(raw["classes"])])
    ids: dict[LabelValue, int] = {value: index for index, value in enumerate(values)}
    return ClassList(classes, ids | dict.fromkeys((*raw.get("ignore", ()), IGNORE_ID), IGNORE_ID))


def class_list(classes: Sequence[SemanticClass], ignore: Sequence[LabelValue] = ()) -> ClassList:
    """Classes whose label files hold the ids of masks, or the classes' colours; what is ignored is listed, black too.

    Raises:
        ValueError: an id or a colour to ignore is a class's, or not of bytes.
    """
    ids = {value: i for value, i in label_ids(classes).items() if (value, i) != (BLACK, IGNORE_ID)}
    wrong = [value for value in ignore if not _is_free(value, classes)]
    if wrong:
        raise ValueError(f"ignore: {wrong}: a class has that id or colour, or it is not in 0..{IGNORE_ID}")
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
    strange = {str(key) for entry in raw["classes"] if isinstance(entry, dict) for key in {*entry} - FIELDS}
    if strange:
        raise DatasetError(f"{path}: a class has {', '.join(sorted(strange))}; known: {', '.join(sorted(FIELDS))}")
    given = raw.get("ignore", [])
    try:
        ignore = [_value(value) for value in (given if isinstance(given, list) else [given])]
        parsed = class_list(parse_classes(raw["classes"]), ignore)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: {error}") from error
    return {"classes": list(parsed.classes), "ignore": ignore}


def _value(value: Any) -> LabelValue:
    """A number, or a colour of three."""
    if not isinstance(value, list):
        return int(value)
    red, green, blue = (int(v) for v in value)
    return red, green, blue


def _is_free(value: LabelValue, classes: Sequence[SemanticClass]) -> bool:
    """Whether a label's value or colour can be one that carries no label."""
    taken = [c.id for c in classes] if isinstance(value, int) else [c.rgb for c in classes]
    numbers = [value] if isinstance(value, int) else value
    return value not in taken and all(0 <= number <= IGNORE_ID for number in numbers)
