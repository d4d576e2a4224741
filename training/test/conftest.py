"""A tiny data set, a configuration for it, and coop-train on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import yaml
from coop_training import train

from coop_perception.sample_scene.drive import SampleDrive

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["COOP_PERCEPTION_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of a sample drive in CamVid's layout, one of them of a drive to be held out."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    drive = SampleDrive(3, WIDTH, HEIGHT)
    for index, name in enumerate(("a_0", "a_1", "a_2", "held_3")):
        frame = drive.frame(10 * index)
        cv2.imwrite(str(root / f"images/train/{name}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(root / f"labels/train/{name}.png"), frame.mask)
    return root


@pytest.fixture
def config_file(root: Path, tmp_path: Path) -> Path:
    stage = {"steps": 3, "batch": 2}
    config = {
        "name": "smoke",
        "height": HEIGHT,
        "width": WIDTH,
        "data": {"root": str(root), "exclude": ["held"], "sample_drives": 0, "crop": [64, 96]},
        "estimator": {"frames": 6, "steps": 5},
        "stages": dict.fromkeys(("segmenter", "refinement", "restoration", "joint"), stage),
    }
    path = tmp_path / "smoke.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def coop_train(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """coop_train(out, *arguments) → exit status."""

    def command(out: Path, *arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["coop-train", "--config", str(config_file), "--out", str(out), *arguments])
        return train.main()

    return command
