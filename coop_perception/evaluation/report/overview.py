"""overview.png: sample frames side by side, from input to reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from coop_perception.classes import SemanticClass
from coop_perception.evaluation.report.frames import Sample
from coop_perception.evaluation.report.panels import legend_classes, panel_rows
from coop_perception.replacing import write_whole
from coop_perception.visualization import legend, panel_grid

_NOTHING = 235  # grey of a panel that one sample lacks and others have


def write_overview(path: Path, samples: Sequence[Sample], classes: Sequence[SemanticClass]) -> None:
    """Write a picture with one column per sample and the rows input, raw mask, refined mask, restored, references.

    Rows that no sample has a picture for are left out. The classes' colours are named below.

    Args:
        path: a PNG file; its directory exists.
        samples: three to five read best.
        classes: of the masks.

    Raises:
        ValueError: there is no sample.
        OSError: the file cannot be written.
    """
    if not samples:
        raise ValueError(f"{path}: no sample frame to show, expected at least one")
    rows = panel_rows(samples, classes)
    blank = np.full_like(next(panel for row in rows for panel in row.panels if panel is not None), _NOTHING)
    picture = panel_grid(
        [[blank if panel is None else panel for panel in row.panels] for row in rows],
        [sample.title for sample in samples],
        [row.title for row in rows],
    )
    named = legend_classes(samples, classes)
    if named:
        picture = np.vstack([picture, legend(named, picture.shape[1])])
    write_whole(path, cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
