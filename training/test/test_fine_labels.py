"""Teachers choose among the classes that a coarse label may be."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from coop_training import fine_labels
from coop_training.config import DataConfig
from coop_training.fine_labels import SETS, choose
from coop_training.frames import coarse_items

from coop_perception.classes import CAMVID_CLASSES

GROUND, UPRIGHT, NOTHING = np.array([3]), np.array([1, 5]), np.array([], int)
SURE, UNSURE, UNLIKELY = (0.7, 0.1), (0.4, 0.35), (0.02, 0.001)


def of(*pixels: tuple[float, float]) -> np.ndarray:
    """Probabilities [11,1,n] of pixels with these of classes 1 and 5, and the rest on class 0."""
    p = np.zeros((11, 1, len(pixels)), np.float32)
    p[1, 0], p[5, 0] = np.transpose(pixels)
    p[0] = 1 - p.sum(0)
    return p


def test_a_class_is_chosen_within_its_set_where_teachers_are_sure_of_it() -> None:
    label = np.array([[0, 1, 1, 1, 255, 2]], np.uint8)
    chosen = choose(of(SURE, SURE, UNSURE, UNLIKELY, SURE, SURE), label, [GROUND, UPRIGHT, NOTHING], 0.65)
    # A label of one class stands whatever teachers see; where they are not of one mind, the label stays the second set;
    # one of no class is none.
    assert chosen.tolist() == [[3, 1, 12, 12, 255, 255]]


def test_without_labels_uncertain_pixels_have_none() -> None:
    assert choose(of(SURE, UNSURE, (0.1, 0.8)), np.full((1, 3), 255, np.uint8), None, 0.65).tolist() == [[1, 255, 5]]


def run(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fine_labels", *map(str, arguments)])
        return fine_labels.main()


def write_data(root: Path) -> Path:
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "ab":
        cv2.imwrite(str(root / f"images/train/{name}.jpg"), rng.integers(0, 256, (60, 80, 3), np.uint8))
        cv2.imwrite(str(root / f"labels/train/{name}.png"), np.repeat([[7], [9]], 30, 0).repeat(80, 1).astype(np.uint8))
    (root / "sets.yaml").write_text("7: [Road]\n9: [Building, Tree]\n")
    return root


def test_a_data_set_comes_out_that_training_reads(random_export: Path, tmp_path: Path) -> None:
    data, out, bundle = write_data(tmp_path / "data"), tmp_path / "fine", random_export / "random"
    options = ("--bundle", bundle, "--bundle", bundle, "--root", data, "--sets", data / "sets.yaml", "--out", out)
    assert run(*options) == 0
    labels = yaml.safe_load((out / SETS).read_text())
    assert labels[3] == ["Road"]
    assert labels[12] == ["Building", "Tree"]
    config = DataConfig.model_validate({"also": [{"root": out, "labels": labels, "share": 0.5}]})
    for item in coarse_items(config.also[0], config, depth=False):
        mask = item.read().mask
        assert (mask[:30] == 3).all()
        several = config.label_sets.index(frozenset({1, 5}))
        assert np.isin(mask[30:], (1, 5, several)).all()


def test_without_labels_and_without_sets(random_export: Path, tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "fine"
    assert run("--bundle", random_export / "random", "--root", data, "--out", out, "--certain", 0) == 0
    label = cv2.imread(str(out / "labels/train/a.png"), cv2.IMREAD_UNCHANGED)
    assert label.shape == (60, 80)
    assert label.max() < len(CAMVID_CLASSES)


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ("7: [Road]\n9: [Building, Canal]\n", "there is no class 'Canal'"),
        ("7: Road\n", "expected label values with lists of class names"),
        ("[]", "expected label values with lists of class names"),
        ("9: [Building, Tree]\n", "7"),
    ],
)
def test_sets_that_do_not_fit_are_one_line(
    sets: str, said: str, random_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data")
    (data / "sets.yaml").write_text(sets)
    options = ("--root", data, "--sets", data / "sets.yaml", "--out", tmp_path / "fine")
    assert run("--bundle", random_export / "random", *options) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("fine_labels: ")
    assert said in line
    assert not (tmp_path / "fine" / SETS).exists()
