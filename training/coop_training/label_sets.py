"""Labels that are coarser than a bundle's classes: each stands for a set of them.

0: [Road]
1: [Pavement]
2: [Pedestrian, Bicyclist]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import IGNORE_ID, SemanticClass
from coop_perception.documents import DocumentError, read_yaml
from coop_perception.image_files import DatasetError
from coop_perception.recordings.labelled_folders import LabelValue
from coop_perception.shown import shown


@dataclass(frozen=True, slots=True)
class LabelSets:
    """label_ids: value in label files → label, counted from 0, or IGNORE_ID. merge: uint8 [256], class id → label; 255
    where a class is in no set, which is wrong wherever it is predicted."""

    label_ids: Mapping[LabelValue, int]
    merge: NDArray[np.uint8]


def read_label_sets(path: Path, classes: Sequence[SemanticClass]) -> LabelSets:
    """Read a YAML file of label values with the names of their classes; an empty list is not scored.

    Raises:
        DatasetError: as `read_sets`, or a class is in two sets.
    """
    label_ids: dict[LabelValue, int] = {IGNORE_ID: IGNORE_ID}
    merge = np.full(256, IGNORE_ID, np.uint8)
    for value, among in read_sets(path, classes).items():
        label_ids[value] = len(set(merge[merge != IGNORE_ID])) if among else IGNORE_ID
        for index in among:
            if merge[index] != IGNORE_ID:
                raise DatasetError(f"{path}: {value}: class {classes[index].name} is in another set already")
            merge[index] = label_ids[value]
    return LabelSets(label_ids, merge)


def read_sets(path: Path, classes: Sequence[SemanticClass]) -> dict[int, list[int]]:
    """By label value, the ids of the classes that it stands for.

    Raises:
        DatasetError: the file is missing, is no such YAML, or names a class that is none.
    """
    try:
        raw = read_yaml(path)
    except DocumentError as error:
        raise DatasetError(str(error)) from error
    expected = "expected label values with lists of class names, as '0: [Road]'"
    if not isinstance(raw, dict) or not raw:
        raise DatasetError(f"{path}: {expected}")
    ids = {c.name: c.id for c in classes}
    for value, names in raw.items():
        if not (isinstance(value, int) and 0 <= value < IGNORE_ID and isinstance(names, list)):
            raise DatasetError(f"{path}: {shown(value)}: {shown(names)}; {expected}")
        for name in names:
            if not isinstance(name, str) or name not in ids:
                raise DatasetError(f"{path}: {value}: there is no class {shown(name)}; known: {', '.join(ids)}")
    return {value: [ids[name] for name in names] for value, names in raw.items()}
