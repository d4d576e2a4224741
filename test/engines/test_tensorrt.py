"""The GPU's run-time path, on a CUDA runtime and a TensorRT without a GPU that hold and move real bytes."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda, cudaError_t
from fake_tensorrt import KERNELS, MAX_BATCH, FakeTensorRt, Severity
from onnx import TensorProto, helper, numpy_helper
from set_up_packages import set_up_package, tensorrt_rtx
from toy_bundle import CLASSES, CONDITIONS, HEIGHT, SENSOR, WIDTH

from coop_perception.contracts import STAGES
from coop_perception.engines import Engine, EngineError, cuda
from coop_perception.engines.cuda import GpuLostError, gpu, memory_in_use
from coop_perception.engines.private_files import open_own
from coop_perception.engines.tensorrt import load
from coop_perception.model import pipeline as pipeline_module
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline

FRAME = HEIGHT * WIDTH * 3
MASK = HEIGHT * WIDTH
KERNELS_FILE = "segmenter.engine.Fake_GPU_16_multiprocessors.kernels"
QUARTER = (CLASSES, HEIGHT // 4, WIDTH // 4)
PROBABILITIES = HEIGHT * WIDTH * CLASSES // 4
CONDITION = (len(CONDITIONS) * 2 + 1) * 4
"""Bytes of presence, strength and familiarity of one frame."""


@dataclass
class Machine:
    """A fake GPU, a TensorRT for it, engine files, and what `load` said."""

    cuda: FakeCuda
    module: FakeTensorRt
    backend: str
    files: dict[str, Path]
    said: list[str] = field(default_factory=list)

    def load(self, *names: str, cache: Path | None = None) -> dict[str, Any]:
        return dict(load({name: self.files[name] for name in names}, self.backend, "fp16", self.said.append, cache))


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def machine(
    request: pytest.FixtureRequest, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Machine]:
    files = {}
    for path in bundle.glob("*.onnx"):
        files[path.stem] = tmp_path / f"{path.stem}.engine"
        files[path.stem].write_bytes(path.read_bytes())
    made = new_machine(monkeypatch, request.param, files)
    yield made
    assert made.cuda.left() == []


def new_machine(monkeypatch: pytest.MonkeyPatch, backend: str, files: dict[str, Path]) -> Machine:
    cuda = FakeCuda()
    module = FakeTensorRt(cuda, rtx=backend == "tensorrt_rtx")
    cuda.stand_in(monkeypatch)
    monkeypatch.setitem(sys.modules, backend, module)
    return Machine(cuda, module, backend, files)


def frames(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)


def pooled(image: np.ndarray) -> np.ndarray:
    """The segmenter's probabilities."""
    red = image[..., 0].reshape(len(image), HEIGHT // 4, 4, WIDTH // 4, 4).mean((2, 4))
    return np.repeat(red[:, None], CLASSES, 1).astype(np.float32)


def foggy(batch: int) -> dict[str, np.ndarray]:
    """Conditions in which restoration inverts every frame."""
    condition = np.ones((batch, len(CONDITIONS)), np.float32)
    return {"presence": condition, "strength": condition, "familiarity": np.ones(batch, np.float32)}


def test_engines_that_nobody_has_any_more_free_everything(machine: Machine) -> None:
    engines = machine.load("segmenter", "refinement")
    engines["segmenter"].run({"image": frames()}, ["mask_raw"])
    del engines
    gc.collect()
    assert machine.cuda.left() == []


def close(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        engine.close()


def test_it_says_what_it_is(machine: Machine) -> None:
    engines = machine.load("refinement")
    engine = engines["refinement"]
    assert (engine.backend, engine.device, engine.precision) == (machine.backend, "Fake GPU", "fp16")
    assert engine.inputs["image"].dtype == np.uint8
    assert engine.inputs["probabilities"].shape == (None, CLASSES, None, None)
    assert engine.outputs["mask"].shape == (None, None, None)
    close(engines)


@pytest.mark.parametrize("batch", [1, 3, MAX_BATCH])
def test_a_run_gives_what_was_wanted_and_copies_nothing_else(machine: Machine, batch: int) -> None:
    engine = machine.load("segmenter")["segmenter"]
    for seed in range(3):
        image = frames(batch, seed)
        machine.cuda.copied()
        found = engine.run({"image": image}, ["mask_raw", "probabilities"])
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
        np.testing.assert_array_equal(found["probabilities"], pooled(image))
        copies = [("in", batch * FRAME), ("out", batch * MASK), ("out", batch * PROBABILITIES)]
        assert machine.cuda.copied() == copies
    engine.close()


def test_results_are_the_callers_own(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    image = frames()
    first = engine.run({"image": image}, ["mask_raw"])["mask_raw"]
    engine.run({"image": frames(seed=1)}, ["mask_raw"])
    engine.close()
    np.testing.assert_array_equal(first, image[..., 0])


def launched(machine: Machine, engine: Any, feeds: dict[str, Any], *wanted: str) -> tuple[dict[str, Any], int, int]:
    """What a run gives, how many graphs it captured, how many it launched."""
    machine.cuda.calls.clear()
    found = engine.run(feeds, wanted)
    return (found, *(machine.cuda.calls.count(name) for name in ("cudaStreamBeginCapture", "cudaGraphLaunch")))


def test_preparing_captures_one_graph_for_the_shapes_of_the_last_run_whatever_outputs_are_wanted(
    machine: Machine,
) -> None:
    engine = machine.load("segmenter")["segmenter"]
    contexts = machine.module.contexts
    for batch in (1, 3):
        engine.run({"image": frames(batch)}, ["mask_raw"])
        machine.cuda.calls.clear()
        engine.prepare()
        engine.prepare()
        assert machine.cuda.calls.count("cudaGraphInstantiate") == 1
    assert machine.module.contexts == contexts + 2
    for seed, (batch, *wanted) in enumerate(
        [(1, "mask_raw"), (3, "mask_raw", "probabilities"), (1, "probabilities", "mask_raw"), (3, "probabilities")]
    ):
        image = frames(batch, seed)
        machine.cuda.copied()
        found, captures, launches = launched(machine, engine, {"image": image}, *wanted)
        assert (captures, launches) == (0, 1)
        expected = {"mask_raw": image[..., 0], "probabilities": pooled(image)}
        for name in wanted:
            np.testing.assert_array_equal(found[name], expected[name])
        assert machine.cuda.copied() == [("in", image.nbytes), *(("out", expected[name].nbytes) for name in wanted)]
    assert machine.said == []
    engine.close()


def test_shapes_that_nobody_prepared_for_run_without_a_graph_and_disturb_none(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    engine.run({"image": frames(2)}, ["mask_raw"])
    engine.prepare()
    engine.run({"image": frames(MAX_BATCH)}, ["mask_raw"])  # which takes more memory to work in
    machine.cuda.calls.clear()
    for seed, batch in enumerate((1, 2, 4, 3, 2, 1)):
        image = frames(batch, seed)
        found = engine.run({"image": image}, ["mask_raw", "probabilities"])
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
        np.testing.assert_array_equal(found["probabilities"], pooled(image))
    assert machine.cuda.calls.count("cudaGraphLaunch") == 2
    assert not {"cudaMalloc", "cudaMallocHost", "cudaStreamBeginCapture"} & set(machine.cuda.calls)
    engine.close()


def test_memory_is_taken_for_frames_larger_than_any_before(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    taken = []
    for height, width in ((32, 64), (32, 64), (64, 64), (32, 96), (64, 64), (32, 64)):
        machine.cuda.calls.clear()
        image = np.full((2, height, width, 3), height, np.uint8)
        np.testing.assert_array_equal(engine.run({"image": image}, ["mask_raw"])["mask_raw"], image[..., 0])
        taken.append(machine.cuda.calls.count("cudaMallocHost"))
        assert "cudaFree" not in machine.cuda.calls
    assert taken == [3, 0, 3, 0, 0, 0]  # image, probabilities, mask: where frames are larger than any before
    engine.close()


def test_frames_of_ever_other_sizes_take_no_more_memory_than_the_largest_need(machine: Machine) -> None:
    """Whoever sends them; those that engines were prepared for keep their places meanwhile."""
    engine = machine.load("segmenter")["segmenter"]

    def works(height: int, width: int) -> None:
        image = np.full((1, height, width, 3), height % 11, np.uint8)
        np.testing.assert_array_equal(engine.run({"image": image}, ["mask_raw"])["mask_raw"], image[..., 0])

    works(32, 64)
    engine.prepare()
    works(64, 128)  # the largest
    most = machine.cuda.bytes_on_the_gpu()
    sizes = [(height, width) for height in range(32, 65, 4) for width in range(32, 129, 4)]
    for height, width in sizes:
        works(height, width)
        works(32, 64)
    assert machine.cuda.bytes_on_the_gpu() == most
    engine.close()


def test_frames_that_grow_take_little_more(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    for width in range(32, 129, 4):
        image = np.full((1, 64, width, 3), width % 11, np.uint8)
        np.testing.assert_array_equal(engine.run({"image": image}, ["mask_raw"])["mask_raw"], image[..., 0])
    grown = machine.cuda.bytes_on_the_gpu()
    engine.close()
    other = machine.load("segmenter")["segmenter"]
    other.run({"image": np.zeros((1, 64, 128, 3), np.uint8)}, ["mask_raw"])
    assert grown < 4.5 * machine.cuda.bytes_on_the_gpu()
    other.close()


def test_frames_that_memory_is_short_for_take_none_each_time_that_they_come(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = machine.load("segmenter")["segmenter"]
    small, large = (np.full((1, height, 64, 3), 7, np.uint8) for height in (32, 64))
    engine.run({"image": small}, ["mask_raw"])
    kept = []
    with monkeypatch.context() as short:
        short.setattr(machine.cuda, "cudaMallocHost", lambda size: (cudaError_t.cudaErrorMemoryAllocation, None))
        for _ in range(3):
            with pytest.raises(EngineError, match="the host, pinned"):
                engine.run({"image": large}, ["mask_raw"])
            kept.append(machine.cuda.bytes_on_the_gpu())
    assert kept[0] == kept[1] == kept[2]
    for image in (small, large):
        np.testing.assert_array_equal(engine.run({"image": image}, ["mask_raw"])["mask_raw"], image[..., 0])
    engine.close()


def restoring() -> bytes:
    """frame uint8 [N,h,w,3], image uint8 [N,H,W,3], presence float [N,2], strength float [N] → restored uint8
    [N,h,w,3], the frame's values less 100 · presence[0], and brightness float [N], the image's mean plus strength."""
    inputs = {"frame": ["N", "h", "w", 3], "image": ["N", "H", "W", 3], "presence": ["N", 2], "strength": ["N"]}
    kinds = dict.fromkeys(("frame", "image", "restored"), TensorProto.UINT8)
    outputs = {"restored": ["N", "h", "w", 3], "brightness": ["N"]}
    constants = {
        "first": np.array([0], np.int64),
        "hundred": np.array(100, np.float32),
        "axes": np.array([1, 2, 3], np.int64),
        "last": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["presence", "first"], ["one"], axis=1),
        helper.make_node("Mul", ["one", "hundred"], ["less"]),
        helper.make_node("Unsqueeze", ["less", "last"], ["less4"]),
        helper.make_node("Sub", ["float", "less4"], ["changed"]),
        helper.make_node("Cast", ["changed"], ["restored"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["image"], ["picture"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=0),
        helper.make_node("Add", ["mean", "strength"], ["brightness"]),
    ]

    def infos(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape)
            for name, shape in shapes.items()
        ]

    initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    graph = helper.make_graph(nodes, "restoring", infos(inputs), infos(outputs), initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def test_several_inputs_each_of_changing_sizes(machine: Machine) -> None:
    machine.files["restoration"].write_bytes(restoring())
    sizes = {"h": (8, 48), "w": (8, 64), "H": (8, 16), "W": (8, 32)}
    machine.module.profiles = [{"N": (1, 1), **sizes}, {"N": (2, MAX_BATCH), **sizes}]
    engine = machine.load("restoration")["restoration"]
    random = np.random.default_rng(0)

    def feeds(batch: int, height: int, width: int) -> dict[str, np.ndarray]:
        return {
            "image": random.integers(0, 256, (batch, height // 3, width // 2, 3), dtype=np.uint8),
            "frame": random.integers(100, 256, (batch, height, width, 3), dtype=np.uint8),
            "strength": random.random(batch, np.float32),
            "presence": np.stack([np.ones(batch), np.zeros(batch)], 1).astype(np.float32),
        }

    def check(found: dict[str, Any], given: dict[str, np.ndarray]) -> None:
        np.testing.assert_array_equal(found["restored"], given["frame"] - 100)
        if "brightness" in found:
            expected = given["image"].astype(np.float32).mean((1, 2, 3)) + given["strength"]
            np.testing.assert_allclose(found["brightness"], expected, rtol=1e-4)

    warmed = [(1, 24, 40), (4, 48, 64), (2, 24, 40)]
    for shape in warmed:
        given = feeds(*shape)
        check(engine.run(given, ["restored"]), given)
        engine.prepare()
    for shape, wanted in [
        *zip(warmed[::-1], (["restored"], ["restored", "brightness"], ["brightness", "restored"]), strict=True),
        ((3, 30, 64), ["restored", "brightness"]),
        (warmed[0], ["restored"]),
    ]:
        given = feeds(*shape)
        found, captures, launches = launched(machine, engine, given, *wanted)
        check(found, given)
        assert (captures, launches) == (0, int(shape in warmed))
    with pytest.raises(EngineError, match=r"frame \[1, 49, 64, 3\] \(built for \[1, 8, 8, 3\] to \[1, 48, 64, 3\] or"):
        engine.run(feeds(1, 49, 64), ["restored"])
    given = feeds(1, 48, 64)
    check(engine.run(given, ["restored"]), given)
    engine.close()


def test_what_both_engines_have_is_in_one_place(machine: Machine) -> None:
    """And where an engine is given another's tensor under another name, it is copied on the GPU."""
    engines = machine.load(*STAGES)
    probabilities = engines["segmenter"].allocate("probabilities", (1, *QUARTER))
    image = frames()
    placed = engines["segmenter"].place("image", image)
    engines["segmenter"].run({"image": placed}, ["probabilities"], {"probabilities": probabilities})
    machine.cuda.copied()
    given = {"frame": image, "image": placed, "refined_probabilities": probabilities, **foggy(1)}
    found = engines["restoration"].run(given, ["restored"])
    np.testing.assert_array_equal(found["restored"], 255 - image)
    copies = machine.cuda.copied()
    assert [copy for copy in copies if copy[0] != "in"] == [("within", PROBABILITIES), ("out", FRAME)]
    assert sum(size for way, size in copies if way == "in") == FRAME + CONDITION
    with pytest.raises(EngineError, match="memory that is another tensor's"):
        engines["refinement"].run(
            {"image": placed, "probabilities": probabilities, "sensor": sensor(1)},
            ["refined_probabilities"],
            {"refined_probabilities": probabilities},
        )
    close(engines)


def sensor(batch: int) -> np.ndarray:
    return np.zeros((batch, SENSOR, SENSOR, 3), np.uint8)


def test_on_an_integrated_gpu_nothing_is_copied_but_by_the_host(machine: Machine) -> None:
    machine.cuda.integrated = True
    engines = machine.load(*STAGES)
    probabilities = engines["segmenter"].allocate("probabilities", (2, *QUARTER))
    for seed in range(3):
        image = frames(2, seed)
        placed = engines["segmenter"].place("image", image)
        masks = engines["segmenter"].run(
            {"image": placed}, ["probabilities", "mask_raw"], {"probabilities": probabilities}
        )
        refined = engines["refinement"].run(
            {"image": image, "probabilities": probabilities, "sensor": sensor(2)}, ["mask"]
        )
        np.testing.assert_array_equal(masks["mask_raw"], image[..., 0])
        np.testing.assert_array_equal(refined["mask"], image[..., 1])
        if not seed:
            # Scratch memory of the one and of the other, which is larger, and the five that pass between engines.
            assert machine.cuda.calls.count("cudaMalloc") == 2 + 5
            engines["segmenter"].prepare()
            engines["refinement"].prepare()
    assert machine.cuda.copied() == []
    close(engines)


class TestCapturing:
    def test_broken_by_another_thread_it_is_tried_once_more(self, machine: Machine) -> None:
        engine = machine.load("segmenter")["segmenter"]
        engine.run({"image": frames()}, ["mask_raw"])
        machine.cuda.during_capture = [lambda: in_thread(machine.cuda.cudaDeviceSynchronize)]
        machine.cuda.calls.clear()
        engine.prepare()
        assert machine.cuda.calls.count("cudaStreamBeginCapture") == 2
        assert machine.said == []
        _, captures, launches = launched(machine, engine, {"image": frames()}, "mask_raw")
        assert (captures, launches) == (0, 1)
        engine.close()

    def test_broken_twice_it_runs_without_and_says_so(self, machine: Machine) -> None:
        engine = machine.load("segmenter")["segmenter"]
        image = frames()
        engine.run({"image": image}, ["mask_raw"])
        machine.cuda.during_capture = [lambda: in_thread(machine.cuda.cudaDeviceSynchronize)] * 2
        engine.prepare()
        assert "without a CUDA graph" in machine.said[0]
        assert "cudaErrorStreamCaptureInvalidated" in machine.said[0]
        found, captures, launches = launched(machine, engine, {"image": image}, "mask_raw")
        assert (captures, launches) == (0, 0)
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
        engine.close()

    @pytest.mark.parametrize("how", ["close", "drop", "drop in the thread that captures"])
    def test_what_is_freed_meanwhile_is_freed_afterwards(self, machine: Machine, how: str) -> None:
        engine = machine.load("segmenter")["segmenter"]
        engine.run({"image": frames()}, ["mask_raw"])
        own = len(machine.cuda.left())
        others = machine.load(*STAGES)
        others["segmenter"].run({"image": frames()}, ["mask_raw"])
        others["segmenter"].prepare()
        meanwhile: list[int] = []

        def during() -> None:
            assert not gc.isenabled()
            if how == "close":
                in_thread(close, others)
            elif how == "drop":
                in_thread(others.clear)
            else:
                others.clear()
            meanwhile.append(len(machine.cuda.left()))

        before = len(machine.cuda.left())
        machine.cuda.during_capture = [during]
        engine.prepare()
        assert gc.isenabled()
        assert meanwhile == [before]
        assert len(machine.cuda.left()) == own + 1  # its graph
        assert machine.said == []
        engine.close()
        assert machine.cuda.left() == []

    def test_others_serve_meanwhile_and_loading_waits(self, machine: Machine) -> None:
        engine, others = machine.load("segmenter")["segmenter"], machine.load("segmenter")
        image = frames()
        engine.run({"image": image}, ["mask_raw"])
        others["segmenter"].run({"image": image}, ["mask_raw"])
        others["segmenter"].prepare()
        served, loaded = [], threading.Event()
        loading = threading.Thread(target=lambda: (machine.load("refinement"), loaded.set()))

        def during() -> None:
            loading.start()
            in_thread(lambda: served.append(others["segmenter"].run({"image": image}, ["mask_raw"])["mask_raw"]))
            assert not loaded.wait(0.05)

        machine.cuda.during_capture = [during]
        engine.prepare()
        loading.join()
        np.testing.assert_array_equal(served[0], image[..., 0])
        _, captures, launches = launched(machine, engine, {"image": image}, "mask_raw")
        assert (captures, launches) == (0, 1)
        engine.close()
        close(others)
        gc.collect()


def in_thread(work: Any, *arguments: Any) -> None:
    """Do it in another thread, and wait for it."""
    with ThreadPoolExecutor(1) as other:
        other.submit(work, *arguments).result()


def test_a_gpu_that_is_lost_is_told_apart(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    machine.cuda.error = cudaError_t.cudaErrorIllegalAddress
    machine.cuda.fail_at = machine.cuda.counted + 1
    with pytest.raises(GpuLostError, match=r"segmenter\.engine: cuda\w+: cudaErrorIllegalAddress \(in words\)"):
        engine.run({"image": frames()}, ["mask_raw"])
    engine.close()


def test_probabilities_stay_on_the_gpu_and_the_image_is_copied_there_once(machine: Machine) -> None:
    engines = machine.load(*STAGES)
    probabilities = engines["segmenter"].allocate("probabilities", (2, *QUARTER))
    refined = engines["refinement"].allocate("refined_probabilities", (2, *QUARTER))
    for seed in range(3):
        image = frames(2, seed)
        machine.cuda.copied()
        machine.cuda.calls.clear()
        placed = engines["segmenter"].place("image", image)
        segmented = engines["segmenter"].run(
            {"image": placed}, ["probabilities", "mask_raw"], {"probabilities": probabilities}
        )
        refinement = engines["refinement"].run(
            {"image": placed, "probabilities": probabilities, "sensor": sensor(2)},
            ["refined_probabilities", "mask"],
            {"refined_probabilities": refined},
        )
        given = {"frame": image, "image": placed, "refined_probabilities": refined, **foggy(2)}
        restored = engines["restoration"].run(given, ["restored"])
        np.testing.assert_array_equal(segmented["mask_raw"], image[..., 0])
        np.testing.assert_array_equal(refinement["mask"], image[..., 1])
        np.testing.assert_array_equal(restored["restored"], 255 - image)
        assert refinement["refined_probabilities"] is refined
        copies = machine.cuda.copied()
        assert [size for way, size in copies if way == "out"] == [2 * MASK, 2 * MASK, 2 * FRAME]
        assert sum(size for way, size in copies if way == "in") == 2 * (2 * FRAME + SENSOR * SENSOR * 3 + CONDITION)
        assert "within" not in dict(copies)
        for engine in engines.values():
            engine.prepare()
    assert machine.cuda.calls.count("cudaGraphLaunch") == 3
    # What the GPU was given is what the segmenter made of the last image.
    given = {"image": placed, "probabilities": probabilities, "sensor": sensor(2)}
    values = engines["refinement"].run(given, ["refined_probabilities"])
    np.testing.assert_array_equal(values["refined_probabilities"], pooled(image))
    assert machine.cuda.copied()[-1] == ("out", 2 * PROBABILITIES)
    close(engines)


def test_arrays_of_the_caller_are_written_into(machine: Machine) -> None:
    engine = machine.load("segmenter")["segmenter"]
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    image = frames()
    found = engine.run({"image": image}, ["mask_raw", "probabilities"], {"mask_raw": mask})
    assert found["mask_raw"] is mask
    np.testing.assert_array_equal(mask, image[..., 0])
    with pytest.raises(EngineError, match=r"output 'mask_raw' is uint8 \[1, 32, 64\], it was given float32"):
        engine.run({"image": image}, ["mask_raw"], {"mask_raw": mask.astype(np.float32)})
    engine.close()


def test_of_two_images_placed_in_a_row_the_second_counts(machine: Machine) -> None:
    engines = machine.load("segmenter")
    image = frames(seed=1)
    engines["segmenter"].place("image", frames())
    placed = engines["segmenter"].place("image", image)
    found = engines["segmenter"].run({"image": placed}, ["mask_raw"])
    np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
    close(engines)


def test_memory_is_held_until_the_last_engine_closes_and_a_closed_one_says_so(machine: Machine) -> None:
    engines = machine.load(*STAGES)
    probabilities = engines["segmenter"].allocate("probabilities", (1, *QUARTER))
    placed = engines["refinement"].place("image", frames())
    engines["segmenter"].close()
    engines["segmenter"].close()
    with pytest.raises(EngineError, match="was closed"):
        engines["segmenter"].run({"image": placed}, ["mask_raw"])
    engines["refinement"].run({"image": placed, "probabilities": probabilities, "sensor": sensor(1)}, ["mask"])
    close(engines)
    assert machine.cuda.left() == []


@pytest.mark.parametrize(
    ("feeds", "wanted", "message"),
    [
        (
            {"image": frames(MAX_BATCH + 1)},
            ["mask_raw"],
            r"not built for inputs image \[5, 32, 64, 3\] \(.* or \[2, 32, 32, 3\] to \[4, 64, 128, 3\]\)",
        ),
        ({"image": frames().astype(np.float32)}, ["mask_raw"], "input 'image' is float32"),
        ({"picture": frames()}, ["mask_raw"], r"given \['picture'\].*it takes \['image'\]"),
        ({"image": frames()}, ["depth"], r"asked for \['depth'\].*and gives \['mask_raw', 'probabilities'\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    machine: Machine, feeds: dict[str, Any], wanted: list[str], message: str
) -> None:
    engine = machine.load("segmenter")["segmenter"]
    with pytest.raises(EngineError, match=message) as raised:
        engine.run(feeds, wanted)
    assert str(machine.files["segmenter"]) in str(raised.value)
    engine.close()


def test_tensors_of_other_engines_are_refused(machine: Machine) -> None:
    engine, other = (machine.load("segmenter")["segmenter"] for _ in range(2))
    placed = other.place("image", frames())
    with pytest.raises(EngineError, match="not loaded with this one"):
        engine.run({"image": placed}, ["mask_raw"])
    with pytest.raises(EngineError, match=r"'mask_raw' of \[5, 32, 64\] was asked for, .* batches of up to 4"):
        engine.allocate("mask_raw", (MAX_BATCH + 1, HEIGHT, WIDTH))
    machine.cuda.calls.clear()
    for image in (frames(MAX_BATCH + 1), np.zeros((1, HEIGHT, 4096, 3), np.uint8)):
        with pytest.raises(EngineError, match=r"not built for input image .* \(built for"):
            engine.place("image", image)
    assert machine.cuda.calls == []
    engine.close()
    other.close()


def test_a_file_that_is_no_engine_for_this_gpu(machine: Machine) -> None:
    machine.files["refinement"].write_bytes(b"not an engine")
    with pytest.raises(EngineError, match="magicTag assertion failed") as raised:
        machine.load("segmenter", "refinement")
    message = str(raised.value)
    assert str(machine.files["refinement"]) in message
    assert "Fake GPU, compute capability 8.9" in message
    assert "build_engines" in message
    assert "nobody asked" not in message
    machine.files["refinement"].unlink()
    with pytest.raises(EngineError, match="cannot be read"):
        machine.load("refinement")


def test_an_engine_that_others_exchanged_after_it_was_found_is_not_loaded(machine: Machine) -> None:
    machine.files["refinement"].chmod(0o666)
    with pytest.raises(EngineError, match=r"others can write to .*refinement"):
        machine.load("refinement")


def test_tensorrt_that_does_not_start(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where CUDA cannot be initialised its factories give nothing, of which pybind makes a TypeError."""

    def nothing(logger: Any) -> None:
        logger.log(Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(machine.module, "Runtime", nothing)
    with pytest.raises(EngineError, match=r"tensorrt\S* 10\.3\.0 does not start: CUDA initialization failure.* 35"):
        machine.load("segmenter")


@pytest.mark.parametrize("machine", ["tensorrt"], indirect=True)
def test_too_old_a_tensorrt(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.module, "__version__", "10.0.1.6", raising=False)
    with pytest.raises(EngineError, match=r"tensorrt 10\.0\.1\.6 is installed: pip install tensorrt \(10\.3 or later"):
        machine.load("segmenter")


@pytest.mark.parametrize(
    ("refused", "message"), [("context", "no context"), ("shape", "no such shape"), ("profile", "no such profile")]
)
def test_an_engine_that_cannot_be_prepared(machine: Machine, refused: str, message: str) -> None:
    machine.module.refuse.add(refused)
    with pytest.raises(EngineError, match=message):
        machine.load("segmenter")["segmenter"].run({"image": frames(2)}, ["mask_raw"])
    gc.collect()


def test_a_run_that_tensorrt_refuses(machine: Machine) -> None:
    engines = machine.load("segmenter")
    machine.module.refuse.add("run")
    with pytest.raises(EngineError, match="cannot run"):
        engines["segmenter"].run({"image": frames()}, ["mask_raw"])
    machine.module.refuse.clear()
    image = frames(seed=1)
    found = engines["segmenter"].run({"image": image}, ["mask_raw"])
    np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
    close(engines)


@pytest.mark.parametrize(
    ("machine", "refused"),
    [("tensorrt", "capture"), ("tensorrt_rtx", "capture"), ("tensorrt_rtx", "user allocation")],
    indirect=["machine"],
)
def test_without_graphs_it_runs_all_the_same_and_says_so_once(machine: Machine, refused: str) -> None:
    machine.module.refuse.add(refused)
    engines = machine.load("segmenter")
    for batch in (1, 1, 2, 2):
        image = frames(batch, seed=batch)
        found = engines["segmenter"].run({"image": image}, ["mask_raw"])
        engines["segmenter"].prepare()
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
    assert len(machine.said) == 1
    assert "without a CUDA graph" in machine.said[0]
    assert "cudaGraphLaunch" not in machine.cuda.calls
    close(engines)


def test_threads_one_after_the_other_share_memory_and_graphs(
    machine: Machine, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's networks are warmed up in one thread and serve in others, a new one after each activation."""
    monkeypatch.setattr(pipeline_module, "USUAL", ((HEIGHT, WIDTH), (16, 16)))
    pipeline = Pipeline(load_bundle(bundle), machine.load(*STAGES))
    with ThreadPoolExecutor(1) as warming:
        warming.submit(pipeline.warm_up, 2).result()
    for seed in range(2):
        machine.cuda.calls.clear()
        images = frames(2, seed)
        with ThreadPoolExecutor(1) as serving:
            results = serving.submit(pipeline.run, list(images), OUTPUTS).result()
            masks = serving.submit(pipeline.run, list(images[:1]), ["mask"]).result()
        np.testing.assert_array_equal([result.restored for result in results], 255 - images)
        np.testing.assert_array_equal(masks[0].mask, images[0, ..., 1])
        # The mask alone is another choice of outputs, of two networks.
        assert machine.cuda.calls.count("cudaGraphLaunch") == 5
        assert not {"cudaMalloc", "cudaMallocHost", "cudaStreamBeginCapture"} & set(machine.cuda.calls)
    pipeline.close()


def test_too_little_memory_on_the_gpu(machine: Machine) -> None:
    machine.cuda.capacity = 10_000
    engine = machine.load("segmenter")["segmenter"]
    with pytest.raises(
        EngineError,
        match=r"segmenter\.engine: no 0.\d MiB of memory on the GPU \(0 of the GPU's 0 MiB are free\): cudaMalloc",
    ):
        engine.run({"image": frames(2)}, ["mask_raw"])
    engine.close()


def use_all(machine: Machine) -> None:
    """A bundle's life: load, two frames through the three networks, the second by graphs, close."""
    engines = machine.load(*STAGES)
    try:
        probabilities = engines["segmenter"].allocate("probabilities", (1, *QUARTER))
        for seed in range(2):
            image = frames(seed=seed)
            placed = engines["segmenter"].place("image", image)
            segmented = engines["segmenter"].run(
                {"image": placed}, ["probabilities", "mask_raw"], {"probabilities": probabilities}
            )
            np.testing.assert_array_equal(segmented["mask_raw"], image[..., 0])
            refined = engines["refinement"].run(
                {"image": image, "probabilities": probabilities, "sensor": sensor(1)}, ["refined_probabilities"]
            )
            given = {"frame": image, "image": placed, **refined, **foggy(1)}
            restored = engines["restoration"].run(given, ["restored"])
            np.testing.assert_array_equal(restored["restored"], 255 - image)
            for engine in engines.values():
                engine.prepare()
    finally:
        failures = []
        for engine in engines.values():
            try:
                engine.close()
            except EngineError as error:
                failures.append(error)
        if failures:
            raise failures[0]


def test_whatever_call_fails_all_is_given_back_and_the_call_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_all(machine)
    calls = machine.cuda.counted
    assert calls > 50
    captured_again = 0
    for index in range(1, calls + 1):
        again = new_machine(monkeypatch, machine.backend, machine.files)
        again.cuda.fail_at = index
        said = ""
        try:
            use_all(again)
        except EngineError as error:
            said = str(error)
        else:  # only a capture is tried again
            captured_again += 1
            assert again.cuda.calls.count("cudaStreamBeginCapture") == len(STAGES) + 1
        assert again.cuda.failed is not None
        assert not said or f"{again.cuda.failed}: cudaErrorNotSupported (in words)" in said
        assert again.cuda.left() == []
    assert 0 < captured_again < calls / 2


@pytest.mark.parametrize("machine", ["tensorrt_rtx"], indirect=True)
class TestCompiledKernels:
    def test_they_are_kept_for_the_next_start(self, machine: Machine) -> None:
        file = machine.files["segmenter"].with_name(KERNELS_FILE)
        use_all(machine)
        assert file.read_bytes() == KERNELS
        written = file.stat().st_mtime_ns
        use_all(machine)
        assert file.stat().st_mtime_ns == written

    def test_what_another_gpu_left_is_replaced(self, machine: Machine) -> None:
        file = machine.files["segmenter"].with_name(KERNELS_FILE)
        file.write_bytes(b"of another")
        use_all(machine)
        assert file.read_bytes() == KERNELS

    def test_that_they_cannot_be_read_is_said(self, machine: Machine) -> None:
        machine.files["segmenter"].with_name(KERNELS_FILE).mkdir()
        close(machine.load("segmenter"))
        assert f"{KERNELS_FILE}: compiled kernels are not taken" in machine.said[0]

    def test_that_they_cannot_be_written_is_said(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("coop_perception.engines.private_files.open_own", full)
        use_all(machine)
        assert len(machine.said) == len(STAGES)
        assert "No space left on device" in machine.said[0]

    def test_where_the_engines_folder_cannot_be_written_to_they_go_to_the_cache(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, cache = machine.files["segmenter"].parent, tmp_path / "cache"

        def written(path: Path, flags: int) -> Any:
            if path.parent == folder:
                raise OSError(30, "Read-only file system")
            return open_own(path, flags)

        monkeypatch.setattr("coop_perception.engines.private_files.open_own", written)
        for _ in range(2):
            engines = machine.load("segmenter", cache=cache)
            held = engines["segmenter"]._held.cache
            engines["segmenter"].run({"image": frames()}, ["mask_raw"])
            engines["segmenter"].prepare()
            close(engines)
        assert (cache / KERNELS_FILE).read_bytes() == KERNELS
        assert held._saved == KERNELS  # the second load has read them
        assert machine.said == []


class TestNoGpu:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 0}, "no NVIDIA driver is loaded"),
            (
                {"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 12040},
                r"knows CUDA up to 12.4, the installed cuda-bindings need 13.5: .*'cuda-bindings>=12.9.1,<13'",
            ),
            ({"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 11040}, "13.5: update the driver$"),
            ({"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 13000}, "13.5: update the driver$"),
            ({"no_device": cudaError_t.cudaErrorNoDevice}, "finds no GPU, or CUDA_VISIBLE_DEVICES hides it"),
            ({"device_count": 0}, "finds no GPU"),
        ],
    )
    def test_the_reason_is_given(self, machine: Machine, change: dict[str, Any], message: str) -> None:
        for name, value in change.items():
            setattr(machine.cuda, name, value)
        with pytest.raises(EngineError, match=message):
            machine.load("segmenter")

    def test_on_a_jetson_with_too_old_a_driver_jetpack_is_named(
        self, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        board = tmp_path / "model"
        board.write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
        monkeypatch.setattr(cuda, "BOARD", board)
        machine.cuda.no_device, machine.cuda.driver = cudaError_t.cudaErrorInsufficientDriver, 12060
        with pytest.raises(EngineError, match=r"12\.6, .* 13\.5: a Jetson needs JetPack 7"):
            machine.load("segmenter")

    def test_a_driver_that_is_not_there_may_be_a_bare_runtime_error(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails() -> None:
            raise RuntimeError("Failed to dlopen libcuda.so.1")

        monkeypatch.setattr(machine.cuda, "cudaGetDeviceCount", fails)
        with pytest.raises(EngineError, match=r"dlopen libcuda\.so\.1; is an NVIDIA driver installed and loaded\?"):
            machine.load("segmenter")

    def test_too_old_bindings(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        machine.cuda.stand_in(monkeypatch, "12.8.0")
        with pytest.raises(EngineError, match=r"cuda-bindings 12\.8\.0 is installed: .*'cuda-bindings>=12\.9\.1'"):
            machine.load("segmenter")

    def test_a_tensorrt_that_raises_anything_on_import(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        class Failing:
            def find_spec(self, name: str, *_: Any) -> None:
                if name == machine.backend:
                    raise RuntimeError("TensorRT currently only builds wheels for x86_64 and ARM SBSA processors")

        monkeypatch.delitem(sys.modules, machine.backend)
        monkeypatch.setattr(sys, "meta_path", [Failing(), *sys.meta_path])
        with pytest.raises(EngineError, match=rf"{machine.backend} is not there \(TensorRT currently.*pip install"):
            machine.load("segmenter")

    def test_missing_packages_are_named(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        with pytest.raises(EngineError, match=r"pip install 'cuda-bindings>=12\.9\.1'"):
            machine.load("segmenter")
        monkeypatch.setitem(sys.modules, machine.backend, None)
        with pytest.raises(EngineError, match=f"{machine.backend} is not there .*pip install tensorrt"):
            machine.load("segmenter")


def real_runtime() -> Any:
    return set_up_package("cuda.bindings.runtime")


def doc(error: Any) -> str:
    return error.__doc__ or ""


class TestRealModules:
    """That the fakes have nothing that the real modules lack."""

    def test_the_cuda_runtime_has_the_functions(self) -> None:
        real = real_runtime()
        names = [name for name in dir(FakeCuda) if name.startswith("cuda")]
        assert len(names) > 25
        for name in names:
            found = getattr(real, name)
            if isinstance(found, type):
                assert {member.name for member in getattr(FakeCuda, name)} <= {member.name for member in found}

    def test_the_cuda_runtime_takes_the_arguments(self) -> None:
        """Whatever it answers, with a GPU or without: it does not mind how the arguments are given."""
        real = real_runtime()
        from cuda.bindings.utils import get_cuda_native_handle

        stream, event = real.cudaStream_t(), real.cudaEvent_t()
        for function, *arguments in (
            ("cudaGetDeviceCount",),
            ("cudaGetDeviceProperties", 0),
            ("cudaDriverGetVersion",),
            ("cudaRuntimeGetVersion",),
            ("cudaMemGetInfo",),
            ("cudaMalloc", 16),
            ("cudaMallocHost", 16),
            ("cudaStreamCreateWithFlags", real.cudaStreamNonBlocking),
            ("cudaEventCreateWithFlags", real.cudaEventBlockingSync | real.cudaEventDisableTiming),
            ("cudaEventRecord", event, stream),
            ("cudaMemcpyAsync", 0, 0, 0, real.cudaMemcpyKind.cudaMemcpyHostToDevice, stream),
            ("cudaMemcpyAsync", 0, 0, 0, real.cudaMemcpyKind.cudaMemcpyDeviceToDevice, stream),
            ("cudaStreamBeginCapture", stream, real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
            ("cudaFree", 0),
            ("cudaFreeHost", 0),
        ):
            status, *_ = getattr(real, function)(*arguments)
            assert isinstance(status, real.cudaError_t), function
            assert real.cudaGetErrorName(status)[1].startswith(b"cuda")
        assert isinstance(get_cuda_native_handle(stream), int)

    def test_the_errors_after_which_a_process_must_end_are_those_that_nvidia_names(self) -> None:
        real = real_runtime()
        named = {
            int(error)
            for error in real.cudaError_t
            if "must be terminated and relaunched" in " ".join(doc(error).split())
        }
        assert len(named) > 5
        assert real.cudaError_t.cudaErrorECCUncorrectable == 214
        assert named | {214} == cuda.LOST & {int(error) for error in real.cudaError_t}

    def test_what_it_says_of_this_machine(self) -> None:
        real_runtime()
        try:
            found = gpu()
        except EngineError as error:
            reason = str(error)
        else:
            used, total = memory_in_use()
            assert 0 < used <= total == found.memory
            return
        assert "NVIDIA driver" in reason

    def test_tensorrt_for_rtx_has_the_names(self) -> None:
        from fake_tensorrt import _Context, _Engine, _RtxEngine, _RuntimeCache, _RuntimeConfig

        real = tensorrt_rtx()

        def public(fake: type) -> set[str]:
            return {name for name in vars(fake) if not name.startswith("_")}

        assert public(_Engine) - {"context"} <= set(dir(real.ICudaEngine))
        assert public(_RtxEngine) | {"num_io_tensors"} <= set(dir(real.ICudaEngine))
        assert (public(_Context) | {"is_stream_capturable"}) - {"cache", "strategy"} <= set(dir(real.IExecutionContext))
        assert public(_RuntimeConfig) - {"strategy", "cache"} <= set(dir(real.IRuntimeConfig))
        assert public(_RuntimeCache) - {"content"} <= set(dir(real.IRuntimeCache))
        assert hasattr(real.Runtime, "deserialize_cuda_engine")
        assert real.TensorIOMode.INPUT is not None
        assert real.ExecutionContextAllocationStrategy.USER_MANAGED is not None
        assert real.DynamicShapesKernelSpecializationStrategy.EAGER is not None
        assert {"UINT8", "FLOAT", "HALF", "INT32", "INT64"} <= set(real.DataType.__members__)

    def test_tensorrt_for_rtx_refuses_what_is_no_engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tensorrt_rtx()
        FakeCuda().stand_in(monkeypatch)  # so that it is asked at all
        path = tmp_path / "segmenter.engine"
        path.write_bytes(b"no engine at all" * 100)
        with pytest.raises(EngineError, match=r"tensorrt_rtx 1\.\S+ cannot load it on Fake GPU.*Serialization"):
            load({"segmenter": path}, "tensorrt_rtx", "fp16", print)
