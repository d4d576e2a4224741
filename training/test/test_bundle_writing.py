"""A bundle takes another's place when it is whole, and only where that is allowed."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from coop_training.bundle_writing import new_bundle
from coop_training.export_check import ExportError
from rich.console import Console
from toy_bundle import write_toy_bundle

from coop_perception.contracts import CONTRACTS
from coop_perception.model.bundle import BundleError, load_bundle

CONSOLE = Console(quiet=True)


def write(out: Path, source: Path, force: bool = False) -> None:
    with new_bundle(out, force, CONSOLE) as directory:
        shutil.copytree(source, directory, dirs_exist_ok=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "source/toy")


def test_a_bundle_is_replaced_on_demand_only(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "models/mine"
    write(out, source)
    (out / "marked.onnx").touch()
    with pytest.raises(ExportError, match=r"mine: exists; .*\(--force\)"):
        write(out, source)
    assert (out / "marked.onnx").exists()
    write(out, source, force=True)
    assert not (out / "marked.onnx").exists()
    assert [path.name for path in out.parent.iterdir()] == ["mine"]
    (out / "NOTES.md").write_text("of weeks")
    with pytest.raises(FileExistsError, match=r"mine holds NOTES\.md, which is no part of a bundle"):
        write(out, source, force=True)
    assert (out / "NOTES.md").read_text() == "of weeks"
    with pytest.raises(ExportError, match="exists and is no bundle"):
        write(tmp_path / "models", source, force=True)


def test_a_bundle_has_its_graphs_for_gpus_too(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    write(out, source)
    for name, network in load_bundle(out).networks.items():
        assert network.half is not None
        assert network.half.path == out / f"{name}.fp16.onnx"
        graph = onnx.load(network.half.path).graph
        assert network.half.float32_nodes <= len(graph.node)
        assert [value.name for value in graph.output] == list(CONTRACTS[name].outputs)


def test_a_bundle_that_does_not_run_takes_no_place(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    write(out, source)
    (source / "segmenter.onnx").write_bytes(b"cut off")
    with pytest.raises(BundleError, match="segmenter"):
        write(out, source, force=True)
    load_bundle(out)


def test_what_a_killed_export_left_is_neither_trusted_nor_in_the_way(source: Path, tmp_path: Path) -> None:
    """It was killed after the earlier bundle had been put aside, before the new one took its place."""
    out, partial = tmp_path / "mine", tmp_path / ".mine.partial"
    write(out, source)
    (out / "marked.onnx").touch()
    (partial / "new/mine").mkdir(parents=True)
    (partial / "new/mine/bundle.yaml").write_text("half")
    out.rename(partial / "replaced")
    for left in ("mine.partial", "mine.replaced"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "bundle.yaml").write_text("half")
    with pytest.raises(ExportError, match="mine: exists"):
        write(out, source)
    assert (out / "marked.onnx").exists()
    write(out, source, force=True)
    load_bundle(out)
    assert not (out / "marked.onnx").exists()
    assert not partial.exists()
