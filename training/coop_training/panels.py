"""Pictures of an evaluation's samples: what came in, what came out, and what was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from coop_perception.classes import SemanticClass
from coop_perception.evaluation.report.frames import Sample
from coop_perception.evaluation.report.panels import legend_classes, panel_rows
from coop_perception.visualization import legend, panel_grid


def write_panels(folder: Path, samples: Mapping[str, Sequence[Sample]], classes: Sequence[SemanticClass]) -> None:
    """Write `<condition>.png` for each condition, one row per sample, with the classes' colours named below.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, of_condition in samples.items():
        columns = panel_rows(of_condition, classes)
        rows = [
            [panel for panel in row if panel is not None]
            for row in zip(*(column.panels for column in columns), strict=True)
        ]
        picture = panel_grid(rows, [column.title for column in columns], [sample.title for sample in of_condition])
        picture = np.vstack([picture, legend(legend_classes(of_condition, classes), picture.shape[1])])
        encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        (folder / f"{name}.png").write_bytes(encoded.tobytes())
