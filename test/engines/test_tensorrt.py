"""The GPU's run-time path, on a CUDA runtime and a TensorRT without a GPU that hold and move real bytes."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, cudaError_t
from fake_tensorrt import KERNELS, MAX_BATCH, FakeTensorRt, Severity
from toy_bundle import CLASSES, HEIGHT, WIDTH

from coop_perception.engines import Engine, EngineError
from coop_perception.engines.cuda import gpu, memory_in_use
from coop_perception.engines.tensorrt import load
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS, Pipeline

STAGED = ("segmenter", "refinement", "restoration")
FRAME = HEIGHT * WIDTH * 3
MASK = HEIGHT * WIDTH
PROBABILITIES = HEIGHT * WIDTH * CLASSES * 4


@dataclass
class Machine:
    """A fake GPU, a TensorRT for it, engine files, and what `load` said."""

    cuda: FakeCuda
    module: FakeTensorRt
    backend: str
    files: dict[str, Path]
    said: list[str] = field(default_factory=list)

    def load(self, *names: str) -> dict[str, Any]:
        return dict(load({name: self.files[name] for name in names}, self.backend, "fp16", self.said.append))


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
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, backend, module)
    return Machine(cuda, module, backend, files)


def frames(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, HEIGHT, WIDTH, 3), dtype=np.uint8)


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
    assert engine.inputs["probabilities"].shape == (None, CLASSES, HEIGHT, WIDTH)
    assert engine.outputs["mask"].shape == (None, HEIGHT, WIDTH)
    close(engines)


@pytest.mark.parametrize("batch", [1, 3, MAX_BATCH])
def test_a_run_gives_what_was_wanted_and_copies_nothing_else(machine: Machine, batch: int) -> None:
    engines = machine.load("cooperative")
    for seed in range(3):  # the first runs plainly, the others launch the graph
        image = frames(batch, seed)
        machine.cuda.copied()
        found = engines["cooperative"].run({"image": image}, ["mask", "restored"])
        np.testing.assert_array_equal(found["mask"], image[..., 1])
        np.testing.assert_array_equal(found["restored"], 255 - image)
        assert machine.cuda.copied() == [("in", batch * FRAME), ("out", batch * MASK), ("out", batch * FRAME)]
    close(engines)


def test_results_are_the_callers_own(machine: Machine) -> None:
    engines = machine.load("cooperative")
    image = frames()
    first = engines["cooperative"].run({"image": image}, ["mask"])["mask"]
    engines["cooperative"].run({"image": frames(seed=1)}, ["mask"])
    close(engines)
    np.testing.assert_array_equal(first, image[..., 1])


def test_one_graph_is_captured_for_each_batch_size_and_choice_of_outputs(machine: Machine) -> None:
    engines = machine.load("cooperative")

    def captured_and_launched(batch: int, *wanted: str) -> tuple[int, int]:
        machine.cuda.calls.clear()
        engines["cooperative"].run({"image": frames(batch)}, wanted)
        return tuple(machine.cuda.calls.count(name) for name in ("cudaGraphInstantiate", "cudaGraphLaunch"))

    assert captured_and_launched(1, "mask") == (1, 0)
    assert captured_and_launched(1, "mask") == (0, 1)
    assert captured_and_launched(2, "mask") == (1, 0)
    assert captured_and_launched(2, "mask", "restored") == (1, 0)
    assert captured_and_launched(2, "restored", "mask") == (0, 1)
    assert captured_and_launched(1, "mask") == (0, 1)
    assert machine.module.contexts == 2  # one for each batch size
    assert machine.said == []
    close(engines)


def test_probabilities_stay_on_the_gpu_and_the_image_is_copied_there_once(machine: Machine) -> None:
    engines = machine.load(*STAGED)
    probabilities = engines["segmenter"].allocate("probabilities", 2)
    refined = engines["refinement"].allocate("refined_probabilities", 2)
    for seed in range(3):
        image = frames(2, seed)
        machine.cuda.copied()
        machine.cuda.calls.clear()
        placed = engines["segmenter"].place("image", image)
        segmented = engines["segmenter"].run(
            {"image": placed}, ["probabilities", "mask_raw"], {"probabilities": probabilities}
        )
        refinement = engines["refinement"].run(
            {"image": placed, "probabilities": probabilities},
            ["refined_probabilities", "mask"],
            {"refined_probabilities": refined},
        )
        restored = engines["restoration"].run({"image": placed, "refined_probabilities": refined}, ["restored"])
        np.testing.assert_array_equal(segmented["mask_raw"], image[..., 0])
        np.testing.assert_array_equal(refinement["mask"], image[..., 1])
        np.testing.assert_array_equal(restored["restored"], 255 - image)
        assert refinement["refined_probabilities"] is refined
        assert machine.cuda.copied() == [("in", 2 * FRAME), ("out", 2 * MASK), ("out", 2 * MASK), ("out", 2 * FRAME)]
    assert machine.cuda.calls.count("cudaGraphLaunch") == 3
    # What the GPU was given is what the segmenter made of the last image: the red channel, for every class.
    values = engines["refinement"].run({"image": placed, "probabilities": probabilities}, ["refined_probabilities"])
    expected = np.repeat(image[..., 0].astype(np.float32)[:, None], CLASSES, axis=1)
    np.testing.assert_array_equal(values["refined_probabilities"], expected)
    assert machine.cuda.copied()[-1] == ("out", 2 * PROBABILITIES)
    close(engines)


def test_a_graph_is_of_the_memory_it_was_captured_with(machine: Machine) -> None:
    engines = machine.load("segmenter", "refinement")
    memories = [engines["segmenter"].allocate("probabilities", 1) for _ in range(2)]
    images = [frames(seed=seed) for seed in range(4)]
    for image, memory in zip(images, memories * 2, strict=True):  # the last two are launches
        engines["segmenter"].run({"image": image}, ["probabilities"], {"probabilities": memory})
    for image, memory in zip(images[2:], memories, strict=True):
        found = engines["refinement"].run({"image": image, "probabilities": memory}, ["refined_probabilities"])
        np.testing.assert_array_equal(found["refined_probabilities"][0, 0], image[0, ..., 0])
    close(engines)


def test_arrays_of_the_caller_are_written_into(machine: Machine) -> None:
    engines = machine.load("cooperative")
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    image = frames()
    found = engines["cooperative"].run({"image": image}, ["mask", "restored"], {"mask": mask})
    assert found["mask"] is mask
    np.testing.assert_array_equal(mask, image[..., 1])
    with pytest.raises(EngineError, match=r"output 'mask' is uint8 \[1, 24, 32\], it was given float32"):
        engines["cooperative"].run({"image": image}, ["mask"], {"mask": mask.astype(np.float32)})
    close(engines)


def test_of_two_images_placed_in_a_row_the_second_counts(machine: Machine) -> None:
    engines = machine.load("segmenter")
    image = frames(seed=1)
    engines["segmenter"].place("image", frames())
    placed = engines["segmenter"].place("image", image)
    found = engines["segmenter"].run({"image": placed}, ["mask_raw"])
    np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
    close(engines)


def test_memory_is_held_until_the_last_engine_closes_and_a_closed_one_says_so(machine: Machine) -> None:
    engines = machine.load(*STAGED)
    probabilities = engines["segmenter"].allocate("probabilities", 1)
    placed = engines["refinement"].place("image", frames())
    engines["segmenter"].close()
    engines["segmenter"].close()
    with pytest.raises(EngineError, match="was closed"):
        engines["segmenter"].run({"image": placed}, ["mask_raw"])
    engines["refinement"].run({"image": placed, "probabilities": probabilities}, ["mask"])
    close(engines)
    assert machine.cuda.left() == []


@pytest.mark.parametrize(
    ("feeds", "wanted", "message"),
    [
        (
            {"image": frames(MAX_BATCH + 1)},
            ["mask"],
            r"is uint8 \[5, 24, 32, 3\], .* \[1, 24, 32, 3\] to \[4, 24, 32, 3\]",
        ),
        ({"image": frames().astype(np.float32)}, ["mask"], "input 'image' is float32"),
        ({"picture": frames()}, ["mask"], r"given \['picture'\].*it takes \['image'\]"),
        ({"image": frames()}, ["depth"], r"asked for \['depth'\].*and gives \['condition', 'confidence', 'mask'"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(
    machine: Machine, feeds: dict[str, Any], wanted: list[str], message: str
) -> None:
    engines = machine.load("cooperative")
    with pytest.raises(EngineError, match=message) as raised:
        engines["cooperative"].run(feeds, wanted)
    assert str(machine.files["cooperative"]) in str(raised.value)
    close(engines)


def test_tensors_of_other_engines_are_refused(machine: Machine) -> None:
    engines, others = machine.load("cooperative"), machine.load("cooperative")
    placed = others["cooperative"].place("image", frames())
    with pytest.raises(EngineError, match="not loaded with this one"):
        engines["cooperative"].run({"image": placed}, ["mask"])
    with pytest.raises(EngineError, match="a batch of 5 was asked for, it was built for 1 to 4"):
        engines["cooperative"].allocate("mask", MAX_BATCH + 1)
    close(engines)
    close(others)


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


@pytest.mark.parametrize(("refused", "message"), [("context", "no context"), ("shape", "no such shape")])
def test_an_engine_that_cannot_be_prepared(machine: Machine, refused: str, message: str) -> None:
    machine.module.refuse.add(refused)
    with pytest.raises(EngineError, match=message):
        machine.load("segmenter")


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
        np.testing.assert_array_equal(found["mask_raw"], image[..., 0])
    assert len(machine.said) == 1
    assert "without a CUDA graph" in machine.said[0]
    assert "cudaGraphLaunch" not in machine.cuda.calls
    close(engines)


def test_threads_one_after_the_other_share_memory_and_graphs(machine: Machine, bundle: Path) -> None:
    """A node's networks are warmed up in one thread and serve in others, a new one after each activation."""
    pipeline = Pipeline(load_bundle(bundle), machine.load(*STAGED, "cooperative"))
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
        # What was warmed up is there; the mask alone is another choice of outputs of two networks, captured once.
        assert machine.cuda.calls.count("cudaGraphInstantiate") == (0 if seed else 2)
    assert not {"cudaMalloc", "cudaMallocHost"} & set(machine.cuda.calls)
    pipeline.close()


def test_too_little_memory_on_the_gpu(machine: Machine) -> None:
    machine.cuda.capacity = 100_000
    engines = machine.load("segmenter")
    with pytest.raises(
        EngineError, match=r"no 0.1 MiB of memory on the GPU \(0 of the GPU's 0 MiB are free\): cudaMalloc"
    ):
        engines["segmenter"].allocate("probabilities", MAX_BATCH)
    close(engines)


def use_all(machine: Machine) -> None:
    """A bundle's life: load, two frames through the three networks, the second by graphs, close."""
    engines = machine.load(*STAGED)
    try:
        probabilities = engines["segmenter"].allocate("probabilities", 1)
        for seed in range(2):
            image = frames(seed=seed)
            placed = engines["segmenter"].place("image", image)
            segmented = engines["segmenter"].run(
                {"image": placed}, ["probabilities", "mask_raw"], {"probabilities": probabilities}
            )
            np.testing.assert_array_equal(segmented["mask_raw"], image[..., 0])
            refined = engines["refinement"].run(
                {"image": image, "probabilities": probabilities}, ["refined_probabilities"]
            )
            restored = engines["restoration"].run({"image": placed, **refined}, ["restored"])
            np.testing.assert_array_equal(restored["restored"], 255 - image)
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
    without_graph = 0
    for index in range(1, calls + 1):
        again = new_machine(monkeypatch, machine.backend, machine.files)
        again.cuda.fail_at = index
        said = ""
        try:
            use_all(again)
        except EngineError as error:
            said = str(error)
        else:  # only while a graph is captured is there another way
            said = again.said[0]
            without_graph += 1
        assert again.cuda.failed is not None
        assert f"{again.cuda.failed}: cudaErrorIllegalAddress (in words)" in said
        assert again.cuda.left() == []
    assert 0 < without_graph < calls / 2


@pytest.mark.parametrize("machine", ["tensorrt_rtx"], indirect=True)
class TestCompiledKernels:
    def test_they_are_kept_for_the_next_start(self, machine: Machine) -> None:
        file = machine.files["segmenter"].with_name("segmenter.engine.kernels")
        use_all(machine)
        assert file.read_bytes() == KERNELS
        written = file.stat().st_mtime_ns
        use_all(machine)
        assert file.stat().st_mtime_ns == written

    def test_what_another_gpu_left_is_replaced(self, machine: Machine) -> None:
        file = machine.files["segmenter"].with_name("segmenter.engine.kernels")
        file.write_bytes(b"of another")
        use_all(machine)
        assert file.read_bytes() == KERNELS

    def test_that_they_cannot_be_read_is_said(self, machine: Machine) -> None:
        machine.files["segmenter"].with_name("segmenter.engine.kernels").mkdir()
        close(machine.load("segmenter"))
        assert "segmenter.engine.kernels: compiled kernels cannot be read" in machine.said[0]

    def test_that_they_cannot_be_written_is_said(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("coop_perception.engines.rtx_cache.open_own", full)
        use_all(machine)
        assert len(machine.said) == len(STAGED)
        assert "No space left on device" in machine.said[0]


class TestNoGpu:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 0}, "no NVIDIA driver is loaded"),
            (
                {"no_device": cudaError_t.cudaErrorInsufficientDriver, "driver": 12040},
                r"knows CUDA up to 12.4, the installed cuda-bindings need 13.5: .*'cuda-bindings==12",
            ),
            ({"no_device": cudaError_t.cudaErrorNoDevice}, "finds no GPU, or CUDA_VISIBLE_DEVICES hides it"),
            ({"device_count": 0}, "finds no GPU"),
        ],
    )
    def test_the_reason_is_given(self, machine: Machine, change: dict[str, Any], message: str) -> None:
        for name, value in change.items():
            setattr(machine.cuda, name, value)
        with pytest.raises(EngineError, match=message):
            machine.load("segmenter")

    def test_missing_packages_are_named(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
        with pytest.raises(EngineError, match="pip install cuda-bindings"):
            machine.load("segmenter")
        monkeypatch.setitem(sys.modules, machine.backend, None)
        with pytest.raises(EngineError, match=f"{machine.backend} is not there .*pip install tensorrt"):
            machine.load("segmenter")


def real_runtime() -> Any:
    return pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")


def real_tensorrt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")


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
            ("cudaStreamBeginCapture", stream, real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
            ("cudaFree", 0),
            ("cudaFreeHost", 0),
        ):
            status, *_ = getattr(real, function)(*arguments)
            assert isinstance(status, real.cudaError_t), function
            assert real.cudaGetErrorName(status)[1].startswith(b"cuda")
        assert isinstance(int(stream), int)

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

        real = real_tensorrt()

        def public(fake: type) -> set[str]:
            return {name for name in vars(fake) if not name.startswith("_")}

        assert public(_Engine) - {"context"} <= set(dir(real.ICudaEngine))
        assert public(_RtxEngine) | {"num_io_tensors"} <= set(dir(real.ICudaEngine))
        assert (public(_Context) | {"is_stream_capturable"}) - {"cache"} <= set(dir(real.IExecutionContext))
        assert public(_RuntimeConfig) - {"strategy", "cache"} <= set(dir(real.IRuntimeConfig))
        assert public(_RuntimeCache) - {"content"} <= set(dir(real.IRuntimeCache))
        assert hasattr(real.Runtime, "deserialize_cuda_engine")
        assert real.TensorIOMode.INPUT is not None
        assert real.ExecutionContextAllocationStrategy.USER_MANAGED is not None
        assert real.DynamicShapesKernelSpecializationStrategy.EAGER is not None
        assert {"UINT8", "FLOAT", "HALF", "INT32", "INT64"} <= set(real.DataType.__members__)

    def test_tensorrt_for_rtx_refuses_what_is_no_engine(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real_tensorrt()
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeCuda())  # so that it is asked at all
        path = tmp_path / "segmenter.engine"
        path.write_bytes(b"no engine at all" * 100)
        with pytest.raises(EngineError, match=r"tensorrt_rtx 1\.\S+ cannot load it on Fake GPU.*Serialization"):
            load({"segmenter": path}, "tensorrt_rtx", "fp16", print)
