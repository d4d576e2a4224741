"""ONNX Runtime on a GPU, as far as it goes without one: what it is asked for, and what is made of its answers."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import FakeCuda
from toy_bundle import HEIGHT, WIDTH, open_pipeline

from coop_perception.contracts import CONTRACTS, STAGES
from coop_perception.engines import EngineError, onnxruntime
from coop_perception.engines.cuda import GpuLostError
from coop_perception.engines.frame_pass import outputs_of, with_engines
from coop_perception.engines.onnxruntime import CUDA, OnnxRuntimeEngine, has_cuda
from coop_perception.model import pipeline as pipeline_module
from coop_perception.model.bundle import load_bundle
from coop_perception.resources import default_bundle


class Asked:
    """What the package was asked for; sessions are made on the CPU all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.entries: list[dict[str, str]] = []
        self.arena_fails = False
        self.optimized: Path | None = None
        ort = onnxruntime.ort
        session, options = ort.InferenceSession, ort.SessionOptions
        asked = self

        class Options(options):  # type: ignore[valid-type, misc]
            def add_session_config_entry(self, key: str, value: str) -> None:
                asked.entries[-1][key] = value
                if key == "session.intra_op.allow_spinning":  # the others suit no session on the CPU
                    super().add_session_config_entry(key, value)

        def new_options() -> Any:
            self.entries.append({})
            return Options()

        def new_session(path: str, options: Any = None, providers: Sequence[Any] = ()) -> Any:
            self.calls.append(("session", providers[0]))
            if providers[0] == "CPUExecutionProvider":
                return session(path, providers=providers)
            if asked.optimized is not None:
                options.optimized_model_filepath = str(asked.optimized)
            made = session(path, options, providers=["CPUExecutionProvider"])
            made.get_providers = lambda: [providers[0][0]]
            return made

        def register(provider: str, memory: Any, settings: Any, arena: Any) -> None:
            self.calls.append(("arena", provider))
            if self.arena_fails:
                raise RuntimeError("not implemented")

        FakeCuda().stand_in(monkeypatch)
        monkeypatch.setattr(ort, "SessionOptions", new_options)
        monkeypatch.setattr(ort, "InferenceSession", new_session)
        monkeypatch.setattr(ort, "create_and_register_allocator_v2", register)
        monkeypatch.setattr(ort, "preload_dlls", lambda **which: self.calls.append(("preload", which)))
        onnxruntime._one_arena.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield Asked(monkeypatch)
    onnxruntime._one_arena.cache_clear()


def test_libraries_of_pips_packages_are_loaded_where_it_is_for_gpus(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not has_cuda()
    assert asked.calls == []
    monkeypatch.setattr(onnxruntime.ort, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    assert has_cuda()
    assert asked.calls == [("preload", {"msvc": False})]
    monkeypatch.delattr(onnxruntime.ort, "preload_dlls")
    assert has_cuda()


def test_beside_the_cpus_package_it_is_said(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.2" if "gpu" in name else version(name))
    with pytest.raises(EngineError, match=r"both installed.*pip install onnxruntime-gpu alone"):
        has_cuda()


@pytest.mark.parametrize("fails", [False, True])
def test_all_sessions_share_one_arena_where_that_works(asked: Asked, bundle: Path, fails: bool) -> None:
    asked.arena_fails = fails
    for name in ("segmenter", "restoration"):
        engine = OnnxRuntimeEngine(bundle / f"{name}.onnx", cuda=True)
        assert engine.on_gpu
        assert engine.device == "Fake GPU"
    assert [what for what, _ in asked.calls] == ["arena", "session", "session"]
    assert all(("session.use_env_allocators" in entries) != fails for entries in asked.entries)
    assert asked.calls[-1][1] == (CUDA, {"use_tf32": "0"})
    assert not OnnxRuntimeEngine(bundle / "segmenter.onnx").on_gpu
    assert "session.use_env_allocators" not in asked.entries[-1]


def test_whole_graphs_or_none(asked: Asked, tmp_path: Path) -> None:
    """What computes sizes runs on the CPU, on a GPU, too: so a whole graph is one of fixed sizes, which has none."""
    bundle = load_bundle(default_bundle())
    on_cpu = {name: OnnxRuntimeEngine(network.path) for name, network in bundle.networks.items()}
    assert "session.disable_cpu_ep_fallback" not in asked.entries[-1]
    given = outputs_of(bundle, np.zeros((480, 640, 3), np.uint8), with_engines(on_cpu))
    for name, contract in CONTRACTS.items():
        asked.optimized = tmp_path / f"{name}.onnx"
        shapes = {key: given[key].shape for key in contract.inputs}
        whole = OnnxRuntimeEngine(bundle.networks[name].path, cuda=True, whole=shapes)
        assert asked.entries[-1]["session.disable_cpu_ep_fallback"] == "1"
        assert {key: spec.shape for key, spec in whole.inputs.items()} == shapes
        assert "Shape" not in {node.op_type for node in onnx.load(asked.optimized).graph.node}


@pytest.mark.parametrize(
    ("said", "lost"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=car", True),
        ("CUDA error 719: unspecified launch failure", True),
        ("CUDA failure 2: out of memory ; GPU=0", False),
        ("Non-zero status code while running Pad node 7002", False),
    ],
)
def test_that_the_gpu_is_lost_is_read_from_what_it_says(
    asked: Asked, bundle: Path, monkeypatch: pytest.MonkeyPatch, said: str, lost: bool
) -> None:
    engine = OnnxRuntimeEngine(bundle / "segmenter.onnx")

    def fail(*_: object) -> None:
        raise RuntimeError(said)

    assert engine._session is not None
    monkeypatch.setattr(engine._session, "run_with_iobinding", fail)
    frame = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    with pytest.raises(EngineError, match="run failed on") as raised:
        engine.run({"image": frame}, ["mask_raw"])
    assert isinstance(raised.value, GpuLostError) == lost


def test_a_gpu_that_was_lost_meanwhile_is_found_where_the_next_frame_is_placed(
    asked: Asked, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a first failure may be some library's, which does not say so."""

    class Lost:
        @staticmethod
        def ortvalue_from_numpy(*_: object) -> None:
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0")

    engine = OnnxRuntimeEngine(bundle / "segmenter.onnx", cuda=True)
    monkeypatch.setattr(onnxruntime.ort, "OrtValue", Lost)
    with pytest.raises(GpuLostError, match=r"segmenter.onnx: image \(1, 32, 64, 3\) cannot be copied to the GPU"):
        engine.place("image", np.zeros((1, HEIGHT, WIDTH, 3), np.uint8))


def test_all_engines_are_closed_where_one_cannot_be(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = open_pipeline(bundle)

    def fail() -> None:
        raise GpuLostError("gone")

    monkeypatch.setattr(pipeline.engines["segmenter"], "close", fail)
    with pytest.raises(GpuLostError, match="gone"):
        pipeline.close()
    for name in ("refinement", "restoration"):
        with pytest.raises(EngineError, match="is closed"):
            pipeline.engines[name].run({}, [])


def test_on_a_gpu_every_batch_of_usual_sizes_is_warmed_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline_module, "USUAL", ((48, 64), (90, 160)))
    pipeline = open_pipeline(bundle)
    ran: list[tuple[str, int, float]] = []
    for name, engine in pipeline.engines.items():
        run = engine.run

        def recorded(feeds: Any, *others: Any, name: str = name, run: Any = run) -> Any:
            number, height, width, _ = feeds["image"].shape
            ran.append((name, number, width / height))
            if name == "restoration":
                assert feeds["frame"].shape[0] == number
            return run(feeds, *others)

        monkeypatch.setattr(engine, "run", recorded)
    pipeline.warm_up(2)
    assert ran == [(name, 1, 1.0) for name in STAGES]
    for engine in pipeline.engines.values():
        engine.on_gpu = True
    ran.clear()
    pipeline.warm_up(2)
    expected = [(number, ratio) for ratio in (2.0, 1.0) for number in (2, 1)]
    assert ran == [(name, *batch) for batch in expected for name in STAGES]
    pipeline.close()
