"""A user's classes go from the data's class file into the networks, and a bundle's classes say how labels are read."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trees
import yaml
from coop_training import evaluate
from coop_training.config import ConfigError, TrainConfig, load_config
from coop_training.export import class_entry
from coop_training.model import Cooperative
from coop_training.results import read_results

from coop_perception.classes import CAMVID_CLASSES, SemanticClass, parse_classes
from coop_perception.image_files import DatasetError
from coop_perception.model.conditions import Conditions
from coop_perception.model.pipeline import Result

Evaluation = Callable[..., float]
"""(classes, *conditions) → pixel accuracy on clean images."""
NAMES = ("table", "lamp", "cup")
OWN = tuple(SemanticClass(i, name, (10 * i, 0, 0)) for i, name in enumerate(NAMES))


def config_of(root: Path, *conditions: str) -> dict[str, Any]:
    stages = {name: {"steps": 1} for name in ("segmenter", "refinement", "restoration", "joint")}
    return {
        "name": "own",
        "data": {"layout": "folder", "root": str(root)},
        "conditions": [*conditions],
        "stages": stages,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    classes = [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in OWN]
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({"classes": classes, "ignore": [9]}))
    return tmp_path


def test_networks_have_the_users_classes(root: Path) -> None:
    config = TrainConfig.model_validate(config_of(root))
    assert config.data.class_list.classes == OWN
    assert Cooperative(config).segmenter.classify.out_channels == len(NAMES)


def load_error(path: Path, config: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_configurations_name_what_is_wrong_with_the_classes(root: Path) -> None:
    says = load_error(root / "own.yaml", config_of(root, "jpeg", "fog"))
    assert "own.yaml: " in says
    assert "conditions fog need depth: the classes do not say which of them are ground and which are sky" in says
    assert "classes.yaml: no such file" in load_error(root / "own.yaml", config_of(root / "elsewhere"))


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """coop-evaluate with a bundle that says class 0 everywhere and leaves images as they are."""

    def run(images: list[np.ndarray], wanted: object, **_: object) -> list[Result]:
        zeros = np.zeros(images[0].shape[:2], np.uint8)
        clear = Conditions(np.zeros(1, np.float32), np.zeros(1, np.float32), 1.0)
        return [Result(mask_raw=zeros, mask=zeros, restored=images[0], condition=clear)]

    def evaluation(classes: tuple[SemanticClass, ...], *conditions: str, depths: Path | None = None) -> float:
        bundle = SimpleNamespace(name="own", classes=classes, conditions=("fog",))
        monkeypatch.setattr(evaluate, "load_bundle", lambda path: bundle)
        monkeypatch.setattr(evaluate, "load_engines", lambda *_: {})
        monkeypatch.setattr(evaluate, "Pipeline", lambda bundle, engines: SimpleNamespace(bundle=bundle, run=run))
        options = {"bundle": Path("own"), "images": tmp_path / "images", "labels": tmp_path / "labels", "limit": None}
        out = tmp_path / "out"
        suite = {"suite": "published", "references": None, "label_sets": None, "depths": depths}
        arguments = Namespace(**options, **suite, conditions=list(conditions), out=out, force=True)
        evaluate.run(arguments, evaluate.cooperative, "cooperative")
        return read_results(out / "results.json").clean.raw.pa

    return evaluation


def test_labels_are_read_as_the_bundles_classes(tmp_path: Path, scored: Evaluation) -> None:
    trees.paired(tmp_path, "images", "labels", trees.stripes([0, 0, 0, 1, 2, 255, 255, 255]), ".png")
    assert scored(OWN) == pytest.approx(3 / 5)
    trees.write(tmp_path / "labels/a_0.png", trees.stripes([3]))
    with pytest.raises(DatasetError, match=r"a_0.png: holds label ids \[3\]; expected 0..2, or 255 "):
        scored(OWN)


def test_camvids_void_is_not_scored(tmp_path: Path, scored: Evaluation) -> None:
    trees.paired(tmp_path, "images", "labels", trees.stripes([0, 11]), ".png")
    assert scored(CAMVID_CLASSES, "fog") == 1


def test_fog_is_refused_for_what_is_no_street(scored: Evaluation) -> None:
    with pytest.raises(DatasetError, match="own: fog need depth, which is estimated from labels of streets"):
        scored(OWN, "jpeg", "fog")


def test_labels_in_the_bundles_colours(tmp_path: Path, scored: Evaluation) -> None:
    lilac = (SemanticClass(0, "table", (90, 0, 90)), *OWN[1:])
    colours = np.array([(90, 0, 90), (10, 0, 0), (20, 0, 0), (0, 0, 0)], np.uint8)
    trees.paired(tmp_path, "images", "labels", colours[trees.stripes([0, 0, 0, 1, 2, 3, 3, 3])], ".png")
    assert scored(lilac) == pytest.approx(3 / 5)  # black, which is no class's, is not scored


def test_fog_by_depth_that_was_measured(tmp_path: Path, scored: Evaluation) -> None:
    trees.paired(tmp_path, "images", "labels", trees.stripes([0, 1]), ".png")
    for path in (tmp_path / "images").iterdir():
        trees.write(tmp_path / f"depths/{path.stem}.png", trees.stripes([5000], np.uint16))
    assert scored(OWN, "fog", depths=tmp_path / "depths") == 0.5
    (tmp_path / "depths/a_0.png").unlink()
    with pytest.raises(DatasetError, match=r"a_0\.png: has no depth"):
        scored(OWN, "fog", depths=tmp_path / "depths")


def test_manifests_keep_what_is_ground_and_sky() -> None:
    classes = (SemanticClass(0, "mat", (1, 2, 3), "ground"), SemanticClass(1, "up", (4, 5, 6), "sky"), *OWN[2:])
    again = parse_classes(json.loads(json.dumps([class_entry(c) for c in classes])))
    assert again == classes
    assert [c.role for c in again] == ["ground", "sky", None]
