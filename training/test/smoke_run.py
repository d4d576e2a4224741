"""A tiny data set and a configuration for it, and commands as functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import yaml

from coop_perception.sample_scene.drive import SampleDrive

HEIGHT, WIDTH = 96, 128


def write_frames(root: Path) -> None:
    """Frames of a sample drive in CamVid's layout: three, one of a drive to be held out, and one to validate on."""
    drive = SampleDrive(3, WIDTH, HEIGHT)
    for index, name in enumerate(("train/a_0", "train/a_1", "train/a_2", "train/held_3", "val/b_4")):
        frame = drive.frame(10 * index)
        for kind, pixels in (("images", cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)), ("labels", frame.mask)):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels)


def write_config(path: Path, root: Path) -> Path:
    """Three steps of each stage on the frames below `root`."""
    stage = {"steps": 3, "batch": 2}
    config = {
        "name": "smoke",
        "input": {"height": HEIGHT, "smallest": 32, "sensor": 64},
        "data": {
            "root": str(root),
            "exclude": ["held"],
            "validation_split": "val",
            "sample_drives": 0,
            "crop": [64, 96],
        },
        "estimator": {"frames": 6, "steps": 5},
        "stages": dict.fromkeys(("segmenter", "refinement", "restoration", "joint"), stage),
    }
    path.write_text(yaml.safe_dump(config))
    return path


def run(command: Callable[[], int], *arguments: object) -> int:
    """A command's exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *map(str, arguments)])
        return command()
