"""Which backend `auto` takes, what it says of that, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from toy_bundle import write_toy_bundle

from coop_perception.bundle import Bundle, load_bundle
from coop_perception.engines import Engine, EngineError, cpu_choice, loading
from coop_perception.engines.cpu_choice import faster_on_cpu
from coop_perception.engines.loading import EngineSettings, cache_directory, load_engines, load_on_cpu


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_toy_bundle(tmp_path / "toy"))


class Loads:
    """Of engines: counts them, and lets a backend fail or give other masks."""

    def __init__(self, failing: str = "", wrong: str = "") -> None:
        self.count, self._failing, self._wrong = 0, failing, wrong

    def __call__(self, backend: str, path: Path, threads: int, precision: str) -> Engine:
        self.count += 1
        if backend == self._failing:
            raise EngineError(f"{path}: no")
        engine = load_on_cpu(backend, path, threads, precision)
        if backend == self._wrong:
            run = engine.run
            engine.run = lambda *given: {**(found := run(*given)), "mask": found["mask"] + 1}  # type: ignore[method-assign]
        return engine


def test_measured_once(bundle: Bundle, tmp_path: Path) -> None:
    loads, cache = Loads(), tmp_path / "cache"
    backend, why = faster_on_cpu(bundle, 1, cache, loads)
    (file,) = cache.iterdir()
    assert backend in ("onnxruntime", "openvino")
    assert "times as fast as" in why
    assert json.loads(file.read_text())["backend"] == backend
    assert (faster_on_cpu(bundle, 1, cache, loads)[0], loads.count) == (backend, 2)
    faster_on_cpu(bundle, 2, cache, loads)  # other threads are another question
    assert loads.count == 4


def test_the_faster_one_is_taken(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for slow, fast in (("onnxruntime", "openvino"), ("openvino", "onnxruntime")):
        clock = [0.0]
        monkeypatch.setattr(cpu_choice.time, "perf_counter", lambda clock=clock: clock[0])

        def load(backend: str, *given: object, slow: str = slow, clock: list[float] = clock) -> Engine:
            engine = load_on_cpu(backend, *given)  # type: ignore[arg-type]
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
    assert loads.count == 2


def test_one_line_says_what_was_taken_and_what_is_missing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "installed", lambda backend: backend == "onnxruntime")
    said: list[str] = []
    engines = load_engines(bundle, ["segmenter"], EngineSettings(cache=tmp_path), said.append)
    assert engines["segmenter"].backend == "onnxruntime"
    assert said[0] == "backend onnxruntime, fp32; openvino is not installed"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (EngineSettings("cuda"), "backend is 'cuda', expected one of auto"),
        (EngineSettings("onnxruntime", "bf16"), "precision is 'bf16', backend onnxruntime has auto, fp32"),
        (EngineSettings(precision="fp7"), "precision is 'fp7', backend auto has auto, fp32, bf16"),
    ],
)
def test_what_there_is_not_is_refused(bundle: Bundle, settings: EngineSettings, says: str) -> None:
    with pytest.raises(EngineError, match=says):
        load_engines(bundle, ["segmenter"], settings)


def test_what_is_not_installed_says_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "installed", lambda backend: backend == "onnxruntime")
    for settings in (EngineSettings("openvino"), EngineSettings(precision="bf16")):
        with pytest.raises(EngineError, match="openvino is not installed; pip install openvino"):
            load_engines(bundle, ["segmenter"], settings)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_directory() == Path(os.environ["COOP_PERCEPTION_CACHE"])
    monkeypatch.delenv("COOP_PERCEPTION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "coop_perception"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache/coop_perception"
