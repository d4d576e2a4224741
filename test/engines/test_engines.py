"""Every backend that runs without a GPU does what an engine promises."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import CLASSES, HEIGHT, WIDTH, open_pipeline, write_toy_bundle

from coop_perception.contracts import FUSED, STAGES
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.backends import ON_CPU
from coop_perception.engines.loading import load_file
from coop_perception.model.pipeline import OUTPUTS, outputs_of
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
    assert (image.name, image.dtype, image.shape) == ("image", np.uint8, (None, HEIGHT, WIDTH, 3))
    assert segmenter.outputs["probabilities"].shape == (None, CLASSES, HEIGHT, WIDTH)
    assert segmenter.outputs["mask_raw"].dtype == np.uint8
    assert segmenter.device
    assert segmenter.precision == "fp32"


@pytest.mark.parametrize("batch", [1, 3])
def test_gives_the_wanted_outputs_of_a_batch(segmenter: Engine, batch: int) -> None:
    found = segmenter.run({"image": segmenter.place("image", FRAMES[:batch])}, ["mask_raw"])
    assert list(found) == ["mask_raw"]
    np.testing.assert_array_equal(found["mask_raw"], FRAMES[:batch, ..., 0])


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
    between = engines["segmenter"].allocate("probabilities", (2, CLASSES, HEIGHT, WIDTH))
    for frames in (FRAMES[:2], FRAMES[1:]):
        image = engines["segmenter"].place("image", frames)
        written = engines["segmenter"].run({"image": image}, ["probabilities"], {"probabilities": between})
        assert written["probabilities"] is between
        found = engines["refinement"].run({"image": image, **written}, ["refined_probabilities"])
        np.testing.assert_array_equal(found["refined_probabilities"][:, 3], frames[..., 0])


def test_arrays_of_the_caller_are_written_into(segmenter: Engine) -> None:
    mask = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for frames in (FRAMES[:2], FRAMES[1:]):
        assert segmenter.run({"image": frames}, ["mask_raw"], {"mask_raw": mask})["mask_raw"] is mask
        np.testing.assert_array_equal(mask, frames[..., 0])


@pytest.mark.parametrize("image", [np.zeros((1, HEIGHT, WIDTH, 3), np.float32), np.zeros((1, 7, WIDTH, 3), np.uint8)])
def test_what_is_wrong_with_an_input_is_said(segmenter: Engine, image: np.ndarray) -> None:
    with pytest.raises(EngineError, match=r"'image' is .*, expected uint8 \(None, 24, 32, 3\)"):
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_fused_gives_what_the_three_give(toy: Path, backend: str) -> None:
    staged, fused = open_pipeline(toy, backend), open_pipeline(toy, backend, (*STAGES, FUSED))
    fused.warm_up()
    for wanted in (OUTPUTS, ("mask",), ("restored",), ("mask_raw",), ("mask", "condition")):
        for ours, theirs in zip(fused.run(list(FRAMES), wanted), staged.run(list(FRAMES), wanted), strict=True):
            for name in wanted:
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)


@pytest.mark.parametrize(
    ("wanted", "stages", "run"),
    [
        (OUTPUTS, STAGES, [FUSED]),
        (["restored"], STAGES, [FUSED]),
        (["mask"], STAGES, ["segmenter", "refinement"]),
        (["mask_raw"], STAGES, ["segmenter"]),
        (["restored"], ("segmenter", "restoration"), ["segmenter", "restoration"]),
        (OUTPUTS, ("segmenter", "refinement"), ["segmenter", "refinement"]),
        (["restored"], ("segmenter",), []),
    ],
)
def test_fused_runs_only_where_all_of_it_is_needed(
    toy: Path, wanted: list[str], stages: list[str], run: list[str]
) -> None:
    pipeline = open_pipeline(toy, networks=(*STAGES, FUSED))
    (result,) = pipeline.run([FRAMES[0]], wanted, stages)
    assert list(result.stages_ms) == run
    assert {name for name in wanted if getattr(result, name) is not None} == outputs_of(stages) & set(wanted)


def test_shipped_networks_fused_and_staged_and_on_both_backends() -> None:
    """Fused and staged bit for bit, but for what OpenVINO rounds otherwise; its masks as ONNX Runtime's."""
    frame = SampleDrive(5).frame(3).image
    results = {}
    for backend in BACKENDS:
        for networks in (STAGES, (*STAGES, FUSED)):
            pipeline = open_pipeline(default_bundle(), backend, networks)
            (results[backend, networks],) = pipeline.run([frame], OUTPUTS)
            pipeline.close()
        staged, fused = (results[backend, networks] for networks in (STAGES, (*STAGES, FUSED)))
        np.testing.assert_array_equal(fused.mask_raw, staged.mask_raw, err_msg=backend)
        np.testing.assert_array_equal(fused.mask, staged.mask, err_msg=backend)
        np.testing.assert_allclose(fused.condition, staged.condition, atol=1e-5)
        if backend == "onnxruntime":
            np.testing.assert_array_equal(fused.restored, staged.restored)
        else:
            np.testing.assert_allclose(fused.restored.astype(int), staged.restored, atol=1)
            assert (fused.restored == staged.restored).mean() >= 0.9999
    ours, theirs = (results[backend, STAGES] for backend in BACKENDS)
    assert (ours.mask == theirs.mask).mean() >= 0.999
    assert (np.abs(ours.restored.astype(int) - theirs.restored) <= 1).mean() >= 0.999


@pytest.mark.parametrize("backend", BACKENDS)
def test_shipped_networks_load_for_one_thread(backend: str) -> None:
    """In a process of its own: OpenVINO compiles for one thread what it does not for two, and some graphs killed it."""
    load = f"""
from coop_perception.engines.loading import load_file
from coop_perception.resources import default_bundle
for name in {[*STAGES, FUSED]}:
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
