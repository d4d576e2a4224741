"""FP16 graphs that a bundle brings along: taken as they are, where they are what is wanted."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from toy_bundle import edit_manifest, write_toy_bundle

from coop_perception.contracts import STAGES, Bundle
from coop_perception.engines import precisions
from coop_perception.engines.precisions import Graphs
from coop_perception.model.bundle import HALF, MANIFEST, BundleError, load_bundle, sha256


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A bundle with FP16 graphs, which differ from what would be converted here by what they say of themselves."""
    directory = write_toy_bundle(tmp_path / "toy")
    networks = yaml.safe_load((directory / MANIFEST).read_text())["networks"]
    for name in STAGES:
        model = onnx.load(directory / f"{name}.onnx")
        model.doc_string = "stored"
        path = directory / f"{name}.fp16.onnx"
        onnx.save(model, path)
        networks[name][HALF] = {"file": path.name, "sha256": sha256(path), "float32_nodes": 3}
    edit_manifest(directory, networks=networks)
    return directory


@pytest.fixture
def bundle(directory: Path) -> Bundle:
    return load_bundle(directory)


def test_they_are_checked_like_any_file(directory: Path, bundle: Bundle) -> None:
    half = bundle.networks["refinement"].half
    assert half is not None
    assert bundle.files[half.path] == half.sha256
    half.path.write_bytes(half.path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"refinement\.fp16\.onnx: altered"):
        load_bundle(directory)
    half.path.unlink()
    with pytest.raises(BundleError, match=r"refinement\.fp16\.onnx: missing"):
        load_bundle(directory)


@pytest.mark.parametrize("field", ["file", "sha256", "float32_nodes"])
def test_what_is_said_of_them_is_whole(directory: Path, field: str) -> None:
    networks = yaml.safe_load((directory / MANIFEST).read_text())["networks"]
    del networks["segmenter"][HALF][field]
    edit_manifest(directory, networks=networks)
    with pytest.raises(BundleError, match=f"has no field 'networks.segmenter.fp16.{field}'"):
        load_bundle(directory)


def test_a_gpu_gets_them_and_nothing_is_measured(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precisions, "calibration_frames", None)  # which a call would find
    graphs = Graphs(bundle, "fp16", for_tensorrt=True)
    for name in STAGES:
        half = bundle.networks[name].half
        assert half is not None
        assert graphs.graph(name).data == half.path.read_bytes()
        assert graphs.graph(name).kept == 3
        assert graphs.source(name) == (half.path, half.sha256)
        assert graphs.rests_on(name) is None


def test_nobody_elses_precision_is_theirs(bundle: Bundle, tmp_path: Path) -> None:
    """Neither FP32, nor INT8, nor FP16 that images of one's own decide on."""
    folder = tmp_path / "images"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.full((48, 64, 3), 90, np.uint8))
    for graphs in (
        Graphs(bundle, "fp32", for_tensorrt=True),
        Graphs(bundle, "int8", for_tensorrt=False),
        Graphs(bundle, "fp16", for_tensorrt=True, images=folder),
    ):
        network = bundle.networks["segmenter"]
        assert graphs.source("segmenter") == (network.path, network.sha256)
        assert onnx.load_from_string(graphs.graph("segmenter").data).doc_string != "stored"
