"""Which backend `auto` takes, what it says of that, and what is refused."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda
from fake_tensorrt import FakeTensorRt
from toy_bundle import HEIGHT, WIDTH, write_toy_bundle

from coop_perception.contracts import STAGES, Bundle
from coop_perception.engines import Engine, EngineError, calibration, cpu_choice, cuda, int8_check, loading, onnxruntime
from coop_perception.engines import files as engine_files
from coop_perception.engines.cpu import cpu_name, usable_cores
from coop_perception.engines.cpu_choice import faster_on_cpu
from coop_perception.engines.loading import EngineSettings, load_engines, load_file
from coop_perception.model import pipeline as pipeline_module
from coop_perception.model.bundle import load_bundle
from coop_perception.model.loading import load_pipeline
from coop_perception.model.pipeline import OUTPUTS, Pipeline
from coop_perception.sample_scene.drive import SampleDrive

DRIVES = functools.cache(SampleDrive)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_toy_bundle(tmp_path / "toy"))


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy makes no more of large ones, which take time to be rendered, as every new street does."""
    for module in (calibration, cpu_choice):
        monkeypatch.setattr(module, "SIZE", (48, 64))
        monkeypatch.setattr(module, "SampleDrive", DRIVES)


class Loads:
    """Of engines: counts them, and lets a backend fail or give other masks."""

    def __init__(self, failing: str = "", wrong: str = "") -> None:
        self.count, self._failing, self._wrong = 0, failing, wrong

    def __call__(self, backend: str, path: Path, threads: int, precision: str) -> Engine:
        self.count += 1
        if backend == self._failing:
            raise EngineError(f"{path}: no")
        engine = load_file(backend, path, threads, precision)
        if backend == self._wrong:
            run = engine.run
            engine.run = lambda *given: {  # type: ignore[method-assign]
                name: value + 1 if name == "mask" else value for name, value in run(*given).items()
            }
        return engine


def test_measured_once(bundle: Bundle, tmp_path: Path) -> None:
    loads, cache = Loads(), tmp_path / "cache"
    backend, why = faster_on_cpu(bundle, 1, cache, loads)
    (file,) = cache.iterdir()
    assert backend in ("onnxruntime", "openvino")
    assert "times as fast as" in why
    assert json.loads(file.read_text())["backend"] == backend
    assert (faster_on_cpu(bundle, 1, cache, loads)[0], loads.count) == (backend, 6)
    faster_on_cpu(bundle, 2, cache, loads)  # other threads are another question
    assert loads.count == 12


def test_measured_with_the_image_that_is_asked_for(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[int, ...]] = set()

    def load(*given: Any) -> Engine:
        engine = load_file(*given)
        run = engine.run

        def recorded(feeds: Mapping[str, Any], *others: Any) -> dict[str, Any]:
            seen.add(feeds["image"].shape)
            return run(feeds, *others)

        engine.run = recorded  # type: ignore[method-assign]
        return engine

    only(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(loading, "load_file", load)
    for height, image in ((0, (1, 32, 32, 3)), (96, (1, 96, 128, 3))):
        settings = EngineSettings(cache=tmp_path, network_height=height)
        load_engines(bundle, STAGES, settings)
        assert seen == {image}
        seen.clear()
        load_engines(bundle, STAGES, settings)
        assert not seen, "measured once"


def test_the_faster_one_is_taken(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow, fast in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        clock = [0.0]
        monkeypatch.setattr(cpu_choice.time, "perf_counter", lambda clock=clock: clock[0])

        def load(backend: str, *given: object, slow: str = slow, clock: list[float] = clock) -> Engine:
            engine = load_file(backend, *given)  # type: ignore[arg-type]
            run = engine.run

            def timed(*arguments: object) -> dict[str, object]:
                clock[0] += 3.0 if backend == slow else 2.0
                return run(*arguments)  # type: ignore[arg-type]

            engine.run = timed  # type: ignore[method-assign, assignment]
            return engine

        assert faster_on_cpu(bundle, 1, tmp_path / slow, load)[0] == fast


@pytest.mark.parametrize(
    ("loads", "says"),
    [(Loads(failing="openvino"), "openvino cannot run the bundle"), (Loads(wrong="openvino"), "masks agree in 0.00%")],
)
def test_onnxruntime_where_openvino_does_not_do(bundle: Bundle, tmp_path: Path, loads: Loads, says: str) -> None:
    backend, why = faster_on_cpu(bundle, 1, tmp_path / "cache", loads)
    assert backend == "onnxruntime"
    assert says in why


def test_a_cache_that_cannot_be_used_is_no_error(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not remembered" in faster_on_cpu(bundle, 1, tmp_path / "file", Loads())[1]
    faster_on_cpu(bundle, 1, tmp_path / "cache", Loads())
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text("{")
    loads = Loads()
    faster_on_cpu(bundle, 1, tmp_path / "cache", loads)
    assert loads.count == 6


def only(monkeypatch: pytest.MonkeyPatch, *backends: str) -> None:
    """Nothing else is installed."""
    monkeypatch.setattr(loading, "installed", lambda backend: backend in backends)


def test_one_line_says_what_was_taken_and_why_no_better_one(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "onnxruntime")
    said: list[str] = []
    (engine,) = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append).values()
    missing = "; ".join(f"{name} is not installed" for name in ("tensorrt", "tensorrt_rtx", "openvino"))
    assert said[-1] == f"backend onnxruntime, fp32, on {engine.device}; {missing}"


def test_without_a_gpu_the_line_says_so(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "tensorrt_rtx", "openvino", "onnxruntime")

    def none() -> None:
        raise EngineError("no NVIDIA driver is loaded on this machine")

    monkeypatch.setattr(cuda, "gpu", none)
    said: list[str] = []
    load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append)
    assert "not tensorrt_rtx: no NVIDIA driver is loaded on this machine" in said[-1]
    assert "times as fast as" in said[-1]
    with pytest.raises(EngineError, match="no NVIDIA driver"):  # asked for by name, nothing else will do
        load_engines(bundle, ["segmenter"], EngineSettings("tensorrt_rtx", cache=tmp_path))


def test_a_backend_that_cannot_load_all_networks_gives_way_to_the_next(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice may be an old one."""
    only(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(loading, "faster_on_cpu", lambda *_: ("openvino", "measured"))
    cannot = ["openvino"]

    def load(backend: str, path: Path, *settings: Any) -> Engine:
        if backend in cannot and path.name == "restoration.onnx":
            raise EngineError(f"{path}: no kernel for Pad")
        return load_file(backend, path, *settings)

    monkeypatch.setattr(loading, "load_file", load)
    said: list[str] = []
    engines = load_engines(bundle, STAGES, EngineSettings(cache=tmp_path), said.append)
    assert {engine.backend for engine in engines.values()} == {"onnxruntime"}
    assert said[-1].endswith("restoration.onnx: no kernel for Pad")
    with pytest.raises(EngineError, match="no kernel for Pad"):
        load_engines(bundle, STAGES, EngineSettings("openvino", cache=tmp_path))
    cannot.append("onnxruntime")
    with pytest.raises(EngineError, match=r"no backend runs the bundle.*not openvino: .*not onnxruntime: "):
        load_engines(bundle, STAGES, EngineSettings(cache=tmp_path))


@pytest.mark.parametrize("broken", ["openvino", "onnxruntime"])
def test_a_cpu_backend_that_does_not_load_leaves_the_other(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Installed, but a library that it needs is missing."""
    only(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setitem(sys.modules, f"coop_perception.engines.{broken}", None)
    said: list[str] = []
    (engine,) = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append).values()
    assert engine.backend != broken
    assert f"not {broken}" in said[-1] or "cannot be measured" in said[-1]
    assert f"{broken} is not there" in said[-1]
    with pytest.raises(EngineError, match=f"{broken} is not there .*pip install {broken}"):
        load_engines(bundle, ["segmenter"], EngineSettings(broken, cache=tmp_path))


def test_onnxruntime_that_fails_on_a_gpu_still_serves_on_the_cpu(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "onnxruntime")
    monkeypatch.setattr(onnxruntime, "has_cuda", lambda: True)
    said: list[str] = []
    (engine,) = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append).values()
    assert engine.device == cpu_name()
    assert "not onnxruntime on the GPU: " in said[-1]
    with pytest.raises(EngineError, match="cannot use its CUDAExecutionProvider"):  # asked for, it has to be that GPU
        load_engines(bundle, ["segmenter"], EngineSettings("onnxruntime", cache=tmp_path))


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_why_onnxruntime_for_gpus_runs_on_the_cpu(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    only(monkeypatch, "onnxruntime")
    monkeypatch.setattr(onnxruntime.ort, "get_available_providers", lambda: [onnxruntime.CUDA])
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    said: list[str] = []
    load_engines(bundle, ["segmenter"], EngineSettings(backend, cache=tmp_path), said.append)
    assert "onnxruntime not on a GPU: the CUDA runtime for Python is not there" in said[-1]


def test_engines_that_turn_out_not_to_run_are_closed_and_give_way(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(loading, "faster_on_cpu", lambda *_: ("onnxruntime", "measured"))
    tried: list[Engine] = []

    def try_out(engines: Mapping[str, Engine]) -> None:
        tried.append(engines["segmenter"])
        if len(tried) == 1:
            raise EngineError("no memory for its outputs")

    said: list[str] = []
    engines = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append, try_out)
    assert engines["segmenter"] is tried[1]
    assert "not onnxruntime: no memory for its outputs" in said[-1]
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(EngineError, match="the engine is closed"):
        tried[0].run({"image": frame}, ["mask_raw"])


def fake_gpu(monkeypatch: pytest.MonkeyPatch, backend: str) -> FakeCuda:
    cuda = FakeCuda()
    cuda.stand_in(monkeypatch)
    monkeypatch.setitem(sys.modules, backend, FakeTensorRt(cuda, backend[8:] == "_rtx"))
    return cuda


def test_a_loaded_pipeline_serves_by_what_it_was_warmed_up_with(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "tensorrt")
    cuda = fake_gpu(monkeypatch, "tensorrt")
    monkeypatch.setattr(pipeline_module, "USUAL", ((HEIGHT, WIDTH),))
    monkeypatch.setattr(
        engine_files, "ensure", lambda bundle, names, *_, also: {name: bundle.networks[name].path for name in names}
    )
    settings = EngineSettings("tensorrt", cache=tmp_path, max_batch=2)
    pipeline = load_pipeline(bundle.directory, settings, lambda _: None)
    cuda.calls.clear()
    for cameras in (1, 2):
        pipeline.run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * cameras, OUTPUTS)
    assert not {"cudaMalloc", "cudaMallocHost", "cudaGraphInstantiate"} & set(cuda.calls)
    assert cuda.calls.count("cudaGraphLaunch") == 2 * len(STAGES)
    pipeline.close()


def test_a_library_that_raises_a_bare_error_gives_way(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "tensorrt", "onnxruntime")
    fake_gpu(monkeypatch, "tensorrt")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("Could not load libnvrtc.so.13")

    monkeypatch.setattr(engine_files, "ensure", fail)
    said: list[str] = []
    (engine,) = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append).values()
    assert engine.backend == "onnxruntime"
    assert "not tensorrt: tensorrt does not work here (Could not load libnvrtc.so.13)" in said[-1]
    with pytest.raises(EngineError, match=r"libnvrtc\.so\.13\): is all of pip install tensorrt \(10\.3 or later"):
        load_engines(bundle, ["segmenter"], EngineSettings("tensorrt", cache=tmp_path))


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_tensorrt_is_taken_where_it_works(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """On the fake GPU, whose engine files are ONNX files."""
    only(monkeypatch, backend, "openvino", "onnxruntime")
    fake_gpu(monkeypatch, backend)
    asked: list[tuple[object, ...]] = []

    def ensure(bundle: Bundle, names: Collection[str], *settings: object, also: object) -> dict[str, Path]:
        asked.append(settings)
        return {name: bundle.networks[name].path for name in names}

    monkeypatch.setattr(engine_files, "ensure", ensure)
    said: list[str] = []
    settings = EngineSettings(cache=tmp_path, max_batch=6)
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, settings, said.append))
    assert said[-1].startswith(f"backend {backend}, fp16, on Fake GPU")
    ((backend_, gpu, precision, cache, _, max_batch),) = asked
    assert (backend_, gpu.name, precision, cache, max_batch) == (backend, "Fake GPU", "fp16", tmp_path, 6)
    frame = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for stages in (STAGES, ("segmenter", "refinement"), ("segmenter",)):
        (result,) = pipeline.run([frame], OUTPUTS, stages)
        np.testing.assert_array_equal(result.mask_raw, frame[..., 0])
        if "restoration" in stages:
            np.testing.assert_array_equal(result.restored, 255 - frame)
    pipeline.close()
    assert sys.modules["cuda.bindings.runtime"].left() == []

    def fail(*_: object, **__: object) -> None:
        raise EngineError("the engine is too large")

    monkeypatch.setattr(engine_files, "ensure", fail)
    engines = load_engines(bundle, ["segmenter"], settings, said.append)
    assert engines["segmenter"].backend in ("openvino", "onnxruntime")
    assert f"not {backend}: the engine is too large" in said[-1]


def test_int8_on_the_cpu_is_quantised_once(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "openvino", "onnxruntime")
    said: list[str] = []
    settings = EngineSettings(precision="int8", cache=tmp_path)
    for _ in range(2):
        (engine,) = load_engines(bundle, ["segmenter"], settings, said.append).values()
        assert (engine.backend, engine.precision) == ("openvino", "int8")
    assert len([line for line in said if line.startswith("building")]) == 1


class LoadsInt8:
    """Counts what is loaded in FP32; kernels of INT8 give every third pixel another class, where they are wrong."""

    def __init__(self, wrong: bool) -> None:
        self.exact, self._wrong = 0, wrong

    def __call__(self, backend: str, path: Path, threads: int, precision: str, *others: Any) -> Engine:
        engine = load_file(backend, path, threads, precision, *others)
        self.exact += precision == "fp32"
        if precision == "int8" and self._wrong:
            engine.run = partial(self._run, engine.run)  # type: ignore[method-assign]
        return engine

    @staticmethod
    def _run(run: Callable[..., dict[str, np.ndarray]], *given: Any) -> dict[str, np.ndarray]:
        outputs = run(*given)
        for name in outputs.keys() & {"mask_raw", "mask"}:
            outputs[name] = outputs[name].copy()
            outputs[name][..., ::3] ^= 1
        return outputs


def test_what_int8_costs_here_is_measured_once(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, said = LoadsInt8(wrong=False), list[str]()
    monkeypatch.setattr(loading, "load_file", loads)
    for _ in range(2):
        load_engines(bundle, STAGES, EngineSettings("onnxruntime", "int8", cache=tmp_path), said.append)
    assert loads.exact == len(STAGES)
    cost = [line for line in said if line.startswith(f"int8 by onnxruntime on {cpu_name()} against fp32: mask_raw ")]
    assert len(cost) == 2
    assert "mask agrees in " in cost[0]
    assert "restored to " in cost[0]
    assert cost[0] == cost[1]


def test_int8_that_the_processor_computes_otherwise_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_file", LoadsInt8(wrong=True))
    for _ in range(2):  # measured, and remembered
        with pytest.raises(EngineError, match=r"mask_raw agrees in 6\d\.\d\d% of the pixels.*; expected 99% and 35 dB"):
            load_engines(bundle, STAGES, EngineSettings("onnxruntime", "int8", cache=tmp_path))


@pytest.mark.parametrize(
    ("seconds", "wrong", "says"),
    [
        (1.0, False, "int8"),
        (
            3.0,
            False,
            r"not in int8: int8 by openvino .* 0\.67 times as fast; expected less than 0\.3 points, 45 dB, and",
        ),
        (1.0, True, r"not in int8: int8 by openvino .* agrees in 6\d\.\d\d% of the pixels"),
        (None, False, r"not in int8: it is not built \(build_engines --backend openvino --precision int8\)"),
    ],
)
def test_auto_takes_int8_where_it_is_built_and_faster_and_costs_little(
    bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float | None,
    wrong: bool,
    says: str,
) -> None:
    only(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(loading, "faster_on_cpu", lambda *_: ("openvino", "measured"))
    if seconds is not None:
        engine_files.ensure(bundle, STAGES, "openvino", None, "int8", tmp_path, print)
    clock, said = [0.0], list[str]()
    loads = LoadsInt8(wrong)

    def load(backend: str, path: Path, threads: int, precision: str, *others: Any) -> Engine:
        engine = loads(backend, path, threads, precision, *others)
        run = engine.run

        def timed(*given: Any) -> Any:
            clock[0] += seconds if precision == "int8" and seconds else 2.0
            return run(*given)

        engine.run = timed  # type: ignore[method-assign]
        return engine

    monkeypatch.setattr(loading, "load_file", load)
    monkeypatch.setattr(int8_check.time, "perf_counter", lambda: clock[0])
    engines = load_engines(bundle, STAGES, EngineSettings(cache=tmp_path), said.append)
    assert {engine.backend for engine in engines.values()} == {"openvino"}
    if says == "int8":
        assert {engine.precision for engine in engines.values()} == {"int8"}
        assert any("+0.00 points of mIoU lost; 2.00 times as fast" in line for line in said)
    else:
        assert {engine.precision for engine in engines.values()} == {"fp32"}
        assert re.search(says, said[-1])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (EngineSettings("cuda"), "backend is 'cuda', expected one of auto"),
        (EngineSettings("onnxruntime", "bf16"), "precision is 'bf16', backend onnxruntime has auto, fp32, int8"),
        (EngineSettings(precision="fp7"), "precision is 'fp7', backend auto has auto, fp16, fp32, int8, bf16"),
    ],
)
def test_what_there_is_not_is_refused(bundle: Bundle, settings: EngineSettings, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        load_engines(bundle, ["segmenter"], settings)


def test_what_is_not_installed_says_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "onnxruntime")
    for settings in (EngineSettings("openvino"), EngineSettings(precision="bf16")):
        with pytest.raises(EngineError, match="openvino is not installed; pip install openvino"):
            load_engines(bundle, ["segmenter"], settings)


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 64), ("200000 100000", 2), ("50000 100000", 1), ("x", 64)])
def test_a_containers_share_of_the_cpu_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    """`docker run --cpus=2` on a machine of 64 cores."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path) == cores
    assert usable_cores(tmp_path / "nowhere") == 64
