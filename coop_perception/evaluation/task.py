"""One recording to evaluate in this process or in another, and the folder that its results go to."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from coop_perception.contracts import Bundle
from coop_perception.engines.loading import EngineSettings
from coop_perception.evaluation.evaluation import WHOLE, EvaluationError, Selection
from coop_perception.image_files import SYSTEM_FOLDERS, image_files
from coop_perception.model.over_time import DEFAULT, OverTime
from coop_perception.recordings.recording import METADATA, SUFFIXES
from coop_perception.shown import written

Kept = Literal["none", "png", "mcap"]


@dataclass(frozen=True, slots=True)
class Task:
    """What decides an offline evaluation's results, and where they go.

    image_topics: those of the cameras; none: every camera of the recording. labels, images: folders of references.
    network_height: of the networks' image; 0: the bundle's. keep: masks and restored frames of every frame, as files or
    as a recording. workers: processes that share this machine's cores.
    """

    bag: Path
    out: Path
    bundle: Path
    image_topics: tuple[str, ...] = ()
    reference_image_topic: str | None = None
    reference_mask_topic: str | None = None
    labels: Path | None = None
    images: Path | None = None
    selection: Selection = WHOLE
    settings: EngineSettings = field(default_factory=EngineSettings)
    network_height: int = 0
    over_time: OverTime = DEFAULT
    keep: Kept = "none"
    workers: int = 1

    def identity(self, bundle: Bundle, backend: str, precision: str) -> dict[str, Any]:
        """What must be the same for a run to be gone on with, in JSON's types."""
        return {
            "format": 2,
            "bag": written(self.bag.resolve()),
            "networks": {name: network.sha256 for name, network in bundle.networks.items()},
            "backend": backend,
            "precision": precision,
            "network_height": self.network_height,
            "condition_time_constant": self.over_time.time_constant_s,
            "skip_when_clear": self.over_time.skip_when_clear,
            "image_topics": list(self.image_topics),
            "reference_image_topic": self.reference_image_topic,
            "reference_mask_topic": self.reference_mask_topic,
            "labels": _files(self.labels),
            "images": _files(self.images),
            "selection": [
                self.selection.start_s,
                self.selection.end_s if math.isfinite(self.selection.end_s) else None,
                self.selection.every,
            ],
            "keep": self.keep,
        }


def _files(folder: Path | None) -> list[Any]:
    return [] if folder is None else [written(folder.resolve()), len(image_files(folder))]


def find_bags(paths: Sequence[Path]) -> dict[str, Path]:
    """The recordings that are meant, by names of their own: each path is one, or a folder of some, at any depth.

    Raises:
        EvaluationError: a path does not exist, or is a folder without a recording.
    """
    bags: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"{path}: there is no such recording, and no folder of some")
        found = [path] if _is_recording(path) else _below(path)
        if not found:
            raise EvaluationError(f"{path}: holds no recording ({METADATA}, {', '.join(SUFFIXES)})")
        for bag in found:
            name = base = written(bag.resolve().name) or "recording"
            number = 1
            while name in bags:
                number += 1
                name = f"{base}-{number}"
            bags[name] = bag
    return bags


def _is_recording(path: Path) -> bool:
    """Whether it is one, or a file, or a folder that may not be read: opening it says what is wrong."""
    if not path.is_dir() or not os.access(path, os.R_OK | os.X_OK):
        return True
    return any(_of_recording(file) for file in path.iterdir())


def _of_recording(file: Path) -> bool:
    return file.name == METADATA or (file.name.endswith((*SUFFIXES, ".bag")) and file.name[0] != "." and file.is_file())


def _below(folder: Path) -> list[Path]:
    found = []
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.is_symlink() and inner.name[0] != "." and inner.name not in SYSTEM_FOLDERS:
            found += [inner] if _is_recording(inner) else _below(inner)
    return found
