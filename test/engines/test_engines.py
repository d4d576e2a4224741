"""Every backend that runs without a GPU does what an engine promises."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from toy_bundle import CLASSES, HEIGHT, SENSOR, WIDTH, open_pipeline, write_toy_bundle

from coop_perception.contracts import STAGES
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.backends import ON_CPU
from coop_perception.engines.loading import EngineSettings, load_engines, load_file
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.resources import default_bundle
from coop_perception.sample_scene.drive import SampleDrive

FRAMES = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
BACKENDS = ON_CPU


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("engines") / "toy")


@pytest.fixture(params=BACKENDS)
def segmenter(request: pytest.FixtureRequest, toy: Path) -> Engine:
    return load_file(request.param, toy / "segmenter.onnx", 1, "fp32")


def test_says_what_it_takes_and_gives(segmenter: Engine) -> None:
    (image,) = segmenter.inputs.values()
    assert (image.name, image.dtype, image.shape) == ("image", np.uint8, (None, None, None, 3))
    assert segmenter.outputs["probabilities"].shape == (None, CLASSES, None, None)
    assert segmenter.outputs["mask_raw"].dtype == np.uint8
    assert segmenter.device
    assert segmenter.path.name == "segmenter.onnx"
    assert segmenter.precision == "fp32"


@pytest.mark.parametrize("batch", [1, 3])
def test_gives_the_wanted_outputs_of_a_batch(segmenter: Engine, batch: int) -> None:
    found = segmenter.run({"image": segmenter.place("image", FRAMES[:batch])}, ["mask_raw"])
    assert list(found) == ["mask_raw"]
    np.testing.assert_array_equal(found["mask_raw"], FRAMES[:batch, ..., 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_may_change_from_run_to_run(toy: Path, backend: str) -> None:
    segmenter, restoration = (load_file(backend, toy / f"{name}.onnx", 1, "fp32") for name in STAGES[::2])
    sizes = [(32, 64), (64, 64), (32, 96), (96, 32), (64, 96), (96, 96), (32, 64)]
    for batch, (height, width) in enumerate(sizes, 1):
        images = np.random.default_rng(batch).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        found = segmenter.run({"image": images}, ["mask_raw", "probabilities"])
        np.testing.assert_array_equal(found["mask_raw"], images[..., 0])
        assert found["probabilities"].shape == (batch, CLASSES, height // 4, width // 4)
        conditions = {name: np.ones((batch, 2), np.float32) for name in ("presence", "strength")}
        frames = images[:, :-3, :-5]
        feeds = {"frame": frames, "image": images, "refined_probabilities": found["probabilities"], **conditions}
        restored = restoration.run({**feeds, "familiarity": np.ones(batch, np.float32)}, ["restored"])["restored"]
        np.testing.assert_array_equal(restored, 255 - frames)


@pytest.mark.parametrize("cameras", [1, 6])
def test_openvino_compiles_once_for_each_cameras_size(toy: Path, monkeypatch: pytest.MonkeyPatch, cameras: int) -> None:
    compiled: list[None] = []
    refused = (1, 47, 64, 3)

    class Core(ov.Core):  # type: ignore[misc]
        def compile_model(self, model: Any, *given: Any) -> Any:
            if any(tuple(put.shape) == refused for put in model.inputs):
                raise RuntimeError("no memory")
            compiled.append(None)
            return super().compile_model(model, *given)

    monkeypatch.setattr(ov, "Core", Core)
    engines = load_engines(load_bundle(toy), STAGES, EngineSettings("openvino", threads=1, max_batch=cameras))
    pipeline = Pipeline(load_bundle(toy), engines)
    sizes = [(48, 64 + 48 * camera) for camera in range(cameras)]
    for _ in range(3):
        results = pipeline.run([np.full((*size, 3), 99, np.uint8) for size in sizes], OUTPUTS)
        for size, result in zip(sizes, results, strict=True):
            np.testing.assert_array_equal(result.restored, np.full((*size, 3), 255 - 99))
    assert len(compiled) == len(STAGES) * cameras
    for width in range(33, 53):  # one camera changes its size with every frame: that costs the others nothing
        pipeline.run([np.zeros((48, width, 3), np.uint8)], OUTPUTS)
        compiled.clear()
        pipeline.run([np.full((*size, 3), 99, np.uint8) for size in sizes[1:]], OUTPUTS)
        assert not compiled
        with pytest.raises(EngineError, match="no memory"):  # nor does one that cannot be
            pipeline.run([np.zeros(refused[1:], np.uint8)], OUTPUTS)
    pipeline.close()


def test_results_are_the_callers_own(segmenter: Engine) -> None:
    first = segmenter.run({"image": FRAMES[:1]}, ["mask_raw"])["mask_raw"]
    segmenter.run({"image": FRAMES[1:2]}, ["mask_raw"])
    np.testing.assert_array_equal(first, FRAMES[:1, ..., 0])


def test_read_only_and_scattered_frames(segmenter: Engine) -> None:
    frame = FRAMES[:1].copy()
    frame.flags.writeable = False
    for image in (frame, FRAMES[:1, :, ::-1]):
        found = segmenter.run({"image": segmenter.place("image", image)}, ["mask_raw"])
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])


def test_memory_given_once_is_left_alone_later(segmenter: Engine) -> None:
    kept = segmenter.run({"image": FRAMES[:1]}, ["mask_raw"])["mask_raw"]
    segmenter.run({"image": FRAMES[1:2]}, ["probabilities"])
    np.testing.assert_array_equal(kept, FRAMES[:1, ..., 0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_engine_reads_what_another_wrote_into_given_memory(toy: Path, backend: str) -> None:
    engines = {name: load_file(backend, toy / f"{name}.onnx", 1, "fp32") for name in ("segmenter", "refinement")}
    between = engines["segmenter"].allocate("probabilities", (2, CLASSES, HEIGHT // 4, WIDTH // 4))
    sensor = np.zeros((2, SENSOR, SENSOR, 3), np.uint8)
    for frames in (FRAMES[:2], FRAMES[1:]):
        image = engines["segmenter"].place("image", frames)
        written = engines["segmenter"].run({"image": image}, ["probabilities"], {"probabilities": between})
        assert written["probabilities"] is between
        found = engines["refinement"].run({"image": image, "sensor": sensor, **written}, ["refined_probabilities"])
        pooled = frames[..., 0].reshape(2, HEIGHT // 4, 4, WIDTH // 4, 4).mean((2, 4))
        np.testing.assert_array_equal(found["refined_probabilities"][:, 3], pooled)


def test_arrays_of_the_caller_are_written_into(segmenter: Engine) -> None:
    mask = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for frames in (FRAMES[:2], FRAMES[1:]):
        assert segmenter.run({"image": frames}, ["mask_raw"], {"mask_raw": mask})["mask_raw"] is mask
        np.testing.assert_array_equal(mask, frames[..., 0])


@pytest.mark.parametrize("image", [np.zeros((1, HEIGHT, WIDTH, 3), np.float32), np.zeros((1, HEIGHT, 7), np.uint8)])
def test_what_is_wrong_with_an_input_is_said(segmenter: Engine, image: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"'image' is .*, expected uint8 \(None, None, None, 3\)"):
        segmenter.place("image", image)
    with pytest.raises(EngineError, match="image"):
        segmenter.run({"image": image}, ["mask_raw"])


def test_a_closed_engine_says_so(segmenter: Engine) -> None:
    segmenter.close()
    segmenter.close()
    with pytest.raises(EngineError, match=r"segmenter\.onnx: the engine is closed"):
        segmenter.run({"image": FRAMES[:1]}, ["mask_raw"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_is_no_graph_is_named(tmp_path: Path, backend: str) -> None:
    file = tmp_path / "broken.onnx"
    file.write_bytes(b"not a graph")
    with pytest.raises(EngineError, match=r"broken\.onnx: .* cannot load it"):
        load_file(backend, file, 1, "fp32")


def test_shipped_networks_on_both_backends() -> None:
    frame = SampleDrive(5, 320, 240).frame(3).image
    results = []
    for backend in BACKENDS:
        pipeline = open_pipeline(default_bundle(), backend)
        results += pipeline.run([frame], OUTPUTS, network_height=224)
        pipeline.close()
    ours, theirs = results
    assert (ours.mask == theirs.mask).mean() >= 0.999
    assert (np.abs(ours.restored.astype(int) - theirs.restored) <= 1).mean() >= 0.999


@pytest.mark.parametrize("backend", BACKENDS)
def test_shipped_networks_load_for_one_thread(backend: str) -> None:
    """In a process of its own: OpenVINO compiles for one thread what it does not for two, and some graphs killed it."""
    load = f"""
from coop_perception.engines.loading import load_file
from coop_perception.resources import default_bundle
for name in {STAGES}:
    load_file("{backend}", default_bundle() / (name + ".onnx"), 1, "fp32").close()
"""
    subprocess.run([sys.executable, "-c", load], check=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_tells_nobody_and_leaves_no_thread_of_pythons(backend: str, toy: Path) -> None:
    """What is left at a node's end keeps it from saying goodbye to other nodes."""
    program = (
        "import sys, threading; from pathlib import Path; from coop_perception.engines.loading import load_file;"
        f"load_file({backend!r}, Path({str(toy / 'segmenter.onnx')!r}), 1, 'fp32');"
        "print(threading.active_count(), [name for name in sys.modules if 'telemetry' in name])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1 []"


def signal_stack() -> tuple[object, ...]:
    class Stack(ctypes.Structure):
        _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.address, stack.flags, stack.size


@pytest.mark.parametrize("backend", BACKENDS)
def test_signal_handlers_keep_their_stack(backend: str, toy: Path) -> None:
    before = signal_stack()
    engine = load_file(backend, toy / "segmenter.onnx", 1, "fp32")
    engine.run({"image": FRAMES[:1]}, ["mask_raw"])
    assert signal_stack() == before
