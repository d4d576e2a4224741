"""benchmarks/gpu_bringup.py on a pretended GPU: what it checks holds, and where it does not, it says so."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda

from coop_perception.engines.cuda import Stream
from coop_perception.engines.gpu_memory import Place as Memory

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu_bringup as benchmark  # noqa: E402 (found by the line above)
from support import gpu_checks  # noqa: E402
from support.kernels import NumPyKernels  # noqa: E402
from support.stand_in_tensorrt import stand_in  # noqa: E402


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> gpu_checks.Place:
    fake = FakeCuda()
    fake.stand_in(monkeypatch)
    made = gpu_checks.Place(NumPyKernels(fake), fake, sizes=((24, 32), (36, 64), (48, 64)), captures=5, loads=4)
    made.module = stand_in(made.kernels, *made.largest)
    monkeypatch.setitem(sys.modules, "tensorrt", made.module)
    return made


def test_the_command_writes_both_files_and_ends_well(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_bringup.py"), "--cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "gpu_bringup.json").read_text())
    assert result["pretended"]
    assert len(result["checks"]) == len(gpu_checks.CHECKS)
    assert all(check["ok"] for check in result["checks"].values())
    page = (tmp_path / "gpu_bringup.md").read_text()
    assert "On a pretended GPU" in page
    assert "stand in for TensorRT" in page
    for name in result["checks"]:
        assert f"| {name} | ok |" in page


def test_a_bundle_that_serves_nothing_meanwhile_is_found(
    place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_checks, "FIRST_S", 0.0)
    monkeypatch.setattr(gpu_checks, "in_another_thread", lambda work: contextlib.nullcontext([]))
    with pytest.raises(AssertionError, match="no frame was served within 0 s"):
        gpu_checks.check_serving_while_loading(place)


def test_whatever_ends_serving_is_said(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run, served = gpu_checks.both, list[int]()

    def once_in_a_thread(*given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            if served:
                raise RuntimeError("a library's own error")
            served.append(1)
        return run(*given)

    monkeypatch.setattr(gpu_checks, "both", once_in_a_thread)
    with pytest.raises(AssertionError, match="a library's own error"):
        gpu_checks.check_serving_while_loading(place)


def test_a_wrong_pixel_is_found(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    download = Memory.download

    def flawed(memory: Memory, stream: Stream, shape: tuple[int, ...]) -> np.ndarray:
        found = download(memory, stream, shape)
        place.fake.put(lambda: found.reshape(-1).__setitem__(0, 7), int(stream))
        return found

    assert gpu_checks.outcome(lambda: gpu_checks.check_results(place))["ok"]
    monkeypatch.setattr(Memory, "download", flawed)
    failed = gpu_checks.outcome(lambda: gpu_checks.check_results(place))
    assert not failed["ok"]
    failed = gpu_checks.outcome(lambda: gpu_checks.check_serving_while_loading(place))
    assert (failed["ok"], failed["error"]) == (False, "AssertionError: a frame is wrong")


def test_memory_that_is_kept_is_found(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_checks, "GROWTH", 1000)
    assert gpu_checks.outcome(lambda: gpu_checks.check_memory_after_loads(place))["ok"]
    free = place.fake.cudaFree
    monkeypatch.setattr(place.fake, "cudaFree", lambda address: free(address) if place.fake.counted % 2 else (0,))
    assert (
        "more than after the first" in gpu_checks.outcome(lambda: gpu_checks.check_memory_after_loads(place))["error"]
    )


def test_an_error_that_is_not_told_apart_is_found(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cudaErrorIllegalAddress" in gpu_checks.check_sticky_error(place)
    monkeypatch.setattr("coop_perception.engines.cuda.LOST", frozenset())
    failed = gpu_checks.outcome(lambda: gpu_checks.check_sticky_error(place))
    assert not failed["ok"]


def test_graphs_that_are_lost_are_found(place: gpu_checks.Place) -> None:
    place.fake.during_capture = [lambda: setattr(place.fake, "invalidated", True)] * 2
    failed = gpu_checks.outcome(lambda: gpu_checks.check_results(place))
    assert "without a CUDA graph" in failed["error"]


def test_a_gpu_that_breaks_costs_no_report(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def check_that_breaks_it(place: gpu_checks.Place) -> None:
        monkeypatch.setattr(benchmark, "gpu", lambda: 1 / 0)
        raise RuntimeError("broken")

    def no_times(arguments: list[str], seconds: float) -> None:
        assert arguments[0] == "--only-networks"
        assert float(arguments[1]) < seconds <= 60
        raise RuntimeError("broken, too")

    monkeypatch.setattr(benchmark, "CHECKS", (check_that_breaks_it,))
    monkeypatch.setattr(benchmark, "check_backends", lambda left: {})
    monkeypatch.setattr("gpu.why_not", lambda: None)
    monkeypatch.setattr(benchmark, "apart", no_times)
    written: list[str] = []
    result = benchmark.bring_up(place, 1.0, True, lambda result: written.append(json.dumps(result)))
    assert result["checks"]["that breaks it"]["error"] == "RuntimeError: broken"
    assert result["networks"] == "RuntimeError: broken, too"
    assert "The networks were not timed: RuntimeError: broken, too." in benchmark.page(result)
    assert ["broken, too" in text for text in written] == [False, False, True]


def test_where_no_kernels_stand_in_the_backends_alone_are_tried(
    place: gpu_checks.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a vehicle, which has neither PyTorch nor CuPy."""
    monkeypatch.setattr(benchmark, "kernels", lambda: None)
    tried = {"tensorrt, fp16": {"ok": True, "found": {"agreement": 1.0}, "seconds": 2.0}}
    monkeypatch.setattr(benchmark, "check_backends", lambda left: tried)
    monkeypatch.setattr("gpu.why_not", lambda: "No module named 'torch'")
    assert benchmark.main(["--out", str(tmp_path)]) == 0
    assert "the CUDA layer is not checked by itself" in capsys.readouterr().out
    page = (tmp_path / "gpu_bringup.md").read_text()
    assert "The CUDA layer was not checked by itself: for neither PyTorch with CUDA nor CuPy is installed" in page
    assert "| tensorrt, fp16 | ok |" in page
    monkeypatch.setattr(benchmark, "check_backends", lambda left: {})
    assert benchmark.main(["--out", str(tmp_path)]) == 1
    assert "nothing was checked" in capsys.readouterr().out


def test_a_part_that_does_not_end_costs_itself_alone(place: gpu_checks.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "fake", None)
    monkeypatch.setattr(benchmark, "facts", lambda place: {})

    def slow(arguments: list[str], seconds: float) -> None:
        raise AssertionError(f"not done in the {seconds:.0f} s that were left")

    monkeypatch.setattr(benchmark, "apart", slow)
    monkeypatch.setattr(benchmark, "check_backends", lambda left: {})
    monkeypatch.setattr(benchmark, "network_times", lambda left: "no times")
    result = benchmark.bring_up(place, 8.0, backends=True)
    assert result["checks"]["all of the CUDA layer"]["error"] == "AssertionError: not done in the 360 s that were left"
    assert result["networks"] == "no times"


def test_what_runs_apart_may_crash_or_take_too_long(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="expected 2 arguments"):
        gpu_checks.apart(["--only-backend", "one"], 60)
    with pytest.raises(AssertionError, match="not done in the 0 s that were left"):
        gpu_checks.apart(["--cpu", "--out", str(tmp_path)], 0.01)  # which takes far longer


def test_without_a_gpu_one_line_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert benchmark.main([]) == 0
    assert capsys.readouterr().out.startswith("gpu_bringup: nothing is run, the CUDA runtime for Python is not there")


def test_the_page_shows_what_failed_and_the_networks_times(place: gpu_checks.Place) -> None:
    figures = {"ms": 2.0, "p95": 2.5, "p99": 3.0, "roofline": 25.0}
    case = {"width": 640, "height": 480, "batch": 4, "precision": "fp16", "network": "segmenter", "runner": "tensorrt"}
    page = benchmark.page(
        {
            "device": benchmark.facts(place),
            "pretended": False,
            "checks": {"results": {"ok": False, "error": "AssertionError: 3 | 4", "seconds": 1.0}},
            "backends": {},
            "networks": {"results": [{**case, **figures}, {**case, "error": "out of memory"}]},
        }
    )
    assert "| results | **failed** | 1.0 | AssertionError: 3 / 4 |" in page
    assert "| 640x480 | 4 | fp16 | segmenter | tensorrt | 2.0 | 2.5 | 3.0 | 25.0 |" in page
    assert "| out of memory |" in page
    assert "no figure means anything" not in page
