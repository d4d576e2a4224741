"""What is loaded is what was checked, within its time, and costs nobody else."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from toy_bundle import (
    HEIGHT,
    WIDTH,
    edit_manifest,
    never_ending,
    put_weights_beside,
    rewrite_network,
    write_toy_bundle,
)

from coop_perception.engines import EngineError
from coop_perception.engines.backends import ON_CPU
from coop_perception.engines.loading import EngineSettings
from coop_perception.model import snapshot, trial
from coop_perception.model.bundle import MANIFEST, BundleError, load_bundle
from coop_perception.model.loading import load_pipeline
from coop_perception.model.pipeline import OUTPUTS

load = partial(load_pipeline, settings=EngineSettings("onnxruntime"), say=lambda _: None)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


@pytest.mark.parametrize("limit_s", [None, 60.0])
def test_a_bundle_is_loaded_from_a_copy(directory: Path, limit_s: float | None) -> None:
    pipeline = load(directory, limit_s=limit_s)
    assert pipeline.bundle.directory == directory
    for file in directory.iterdir():
        file.write_bytes(b"")
    image = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    (result,) = pipeline.run([image], OUTPUTS)
    np.testing.assert_array_equal(result.mask, image[..., 1])


@pytest.mark.parametrize("limit_s", [None, 60.0])
@pytest.mark.parametrize("backend", ON_CPU)
def test_so_are_weights_beside_a_graph(directory: Path, backend: str, limit_s: float | None) -> None:
    weights = put_weights_beside(directory)
    pipeline = load(directory, settings=EngineSettings(backend), limit_s=limit_s)
    weights.write_bytes(b"")
    image = np.full((HEIGHT, WIDTH, 3), 7, np.uint8)
    (result,) = pipeline.run([image], OUTPUTS)
    np.testing.assert_array_equal(result.mask_raw, image[..., 0])
    pipeline.close()
    with pytest.raises(BundleError, match=rf"{directory}/weights\.bin: altered"):
        load(directory)


def test_what_is_exchanged_after_the_check_is_not_loaded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = snapshot.load_bundle

    def exchange(folder: Path) -> object:
        bundle = checked(folder)
        (folder / "segmenter.onnx").write_bytes((folder / "refinement.onnx").read_bytes())
        return bundle

    monkeypatch.setattr(snapshot, "load_bundle", exchange)
    with pytest.raises(BundleError, match=rf"{directory}/segmenter\.onnx: altered"):
        load(directory)


def test_what_else_a_manifest_names_is_not_copied(directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    edit_manifest(
        directory, training={"x": {"file": "../../secret", "sha256": "z"}, "y": {"file": "gone", "sha256": ""}}
    )
    snapshot.take_snapshot(directory, tmp_path / "copies/bundle")
    names = {path.name for path in (tmp_path / "copies").rglob("*") if path.is_file()}
    assert names == {MANIFEST, *(network.path.name for network in load_bundle(directory).networks.values())}


def test_errors_name_the_bundles_own_files(directory: Path) -> None:
    rewrite_network(directory, "segmenter", onnx.ModelProto())
    for limit_s in (None, 60.0):
        with pytest.raises(EngineError, match=rf"{directory}/segmenter\.onnx: ONNX Runtime .* cannot load it"):
            load(directory, limit_s=limit_s)


def test_so_do_errors_of_frames(directory: Path) -> None:
    pipeline = load(directory)
    for name, engine in pipeline.engines.items():
        with pytest.raises(EngineError, match=rf"^{directory}/{name}\.onnx: run failed on"):
            engine.run({"nothing": np.zeros(1, np.uint8)}, ())


def test_a_network_that_never_ends_is_given_up(directory: Path) -> None:
    rewrite_network(directory, "restoration", never_ending())
    begun = time.monotonic()
    with pytest.raises(EngineError, match=rf"{directory}: not loaded within 4 s"):
        load(directory, limit_s=4.0)
    assert time.monotonic() - begun < 20


def test_it_is_tried_with_the_image_that_will_be_asked_for(directory: Path) -> None:
    """This bundle's is 32 pixels high, and its segmenter looks at the 64th row."""
    model = onnx.load(directory / "segmenter.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([63], np.int64), "last"))
    (cast,) = (node for node in model.graph.node if "mask_raw" in node.output)
    place = list(model.graph.node).index(cast)
    model.graph.node.insert(place, onnx.helper.make_node("Gather", [cast.input[0], "last"], ["row"], axis=1))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Max", [cast.input[0], "row"], ["brighter"]))
    cast.input[0] = "brighter"
    rewrite_network(directory, "segmenter", model)
    with pytest.raises(EngineError, match="run failed on"):
        load(directory, limit_s=60.0)
    settings = EngineSettings("onnxruntime", network_height=64)
    load(directory, settings=settings, limit_s=60.0).run([np.zeros((64, 64, 3), np.uint8)], OUTPUTS, network_height=64)


def test_no_process_is_left_of_one_that_was_killed(directory: Path, tmp_path: Path) -> None:
    """Neither of one that is killed while a bundle is tried, nor of one that was gone before that had begun."""
    rewrite_network(directory, "restoration", never_ending())
    code = (
        "import sys; from pathlib import Path; from coop_perception.engines.loading import EngineSettings; "
        "from coop_perception.model.trial import try_bundle; "
        "try_bundle(Path(sys.argv[1]), Path(sys.argv[2]), EngineSettings('onnxruntime'), 600.0)"
    )
    copy = tmp_path / "copies/bundle"
    parent = subprocess.Popen([sys.executable, "-c", code, str(directory), str(copy)])
    try:
        wait_until(lambda: (copy / "restoration.onnx").exists())
        (child,) = (path.name for path in Path("/proc").glob("[0-9]*") if state(path.name)[1:2] == [str(parent.pid)])
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: state(child)[:1] in ([], ["Z"]))  # dead ones wait for somebody to ask what became of them
    late = pickle.dumps((parent.pid, directory, tmp_path / "other", EngineSettings("onnxruntime")))
    done = subprocess.run([sys.executable, "-m", trial.PROCESS], input=late, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not (tmp_path / "other").exists()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(process: str) -> list[str]:
    """A letter, the parent's id and so on; nothing of a process that is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def test_a_network_that_ends_its_process_is_refused(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dying.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(trial, "PROCESS", "dying")
    with pytest.raises(EngineError, match=r"the process that tried it ended with status -6"):
        load(directory, limit_s=60.0)
