"""The configuration for data of one's own, on a folder as the recipe has it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from coop_training import train
from coop_training.config import load_config
from coop_training.frames import load_frames
from safetensors.torch import load_file
from smoke_run import run

from coop_perception.sample_scene.drive import SampleDrive

CONFIG = Path(__file__).parents[1] / "configs/own_data.yaml"
HEIGHT, WIDTH = 96, 128
SMALL = [
    *("data.crop=[64,96]", "input={height: 96, smallest: 32, sensor: 64}", "estimator={frames: 4, steps: 2}"),
    *(f"stages.{stage}={{steps: 2, batch: 2}}" for stage in ("segmenter", "refinement", "restoration")),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six frames of three classes: sky, road and the rest."""
    root = tmp_path / "own"
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    drive = SampleDrive(3, WIDTH, HEIGHT)
    for index in range(6):
        frame = drive.frame(10 * index)
        mask = np.select([frame.mask == 0, frame.mask == 3], [0, 1], 2).astype(np.uint8)
        cv2.imwrite(str(root / f"images/train/{index}.jpg"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(root / f"labels/train/{index}.png"), mask)
    classes = [{"id": i, "name": name, "rgb": [90 * i, 0, 0]} for i, name in enumerate(("sky", "road", "thing"))]
    (root / "classes.yaml").write_text(yaml.safe_dump({"classes": classes}))
    return root


def test_a_folder_of_ones_own_is_trained_on(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [f"data.root={root}", *SMALL]
    config = load_config(CONFIG, overrides)
    assert config.name == CONFIG.stem
    frames = load_frames(config.data, config.conditions)
    assert len(frames) == 5  # a tenth of six, rounded, is validated on
    assert frames[0].depth.size  # of a road and a sky, so that there can be fog

    out = tmp_path / "run"
    given = [word for override in overrides for word in ("--set", override)]
    assert run(train.main, "--config", CONFIG, "--out", out, *given) == 0
    assert load_file(out / "restoration.safetensors")["segmenter.classify.weight"].shape[0] == 3
    _, following = capsys.readouterr().out.splitlines()
    assert following == f"next: coop-export --checkpoint {out / 'restoration.safetensors'} --out models/own_data"


def test_what_is_amiss_in_the_folder_is_named(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A colour of no class, for one."""
    path = root / "labels/train/0.png"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), (3, 2, 1), np.uint8))
    assert run(train.main, "--config", CONFIG, "--set", f"data.root={root}", "--out", tmp_path / "run") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{path}: holds [1, 2, 3] (12288 pixels), each of no class, or of several" in error
