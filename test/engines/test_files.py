"""Engine files of tensorrt, which builds for the GPU that is there: boards apart, what builds share. None is built."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coop_perception.engines import EngineError, cuda, files
from coop_perception.engines.build import Built
from coop_perception.engines.cuda import Gpu, gpu
from coop_perception.model.bundle import load_bundle

AGX = Gpu("Orin of NVIDIA Jetson AGX Orin Developer Kit", "8.7", 64 << 30, 16, integrated=True)
NANO = Gpu("Orin of NVIDIA Jetson Orin Nano Developer Kit", "8.7", 8 << 30, 8, integrated=True)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """Network and timings that each build was given; it gives the network's name as timings."""
    given: list[tuple[str, bytes]] = []

    def build(
        module: Any, source: Path, graph: bytes, capability: str, profiles: Any, progress: Any, timings: bytes
    ) -> Built:
        given.append((source.stem, timings))
        return Built(b"engine", [], source.stem.encode())

    module = SimpleNamespace(__version__="10.3.0", IBuilderConfig=SimpleNamespace())
    monkeypatch.setattr(files, "build", build)
    monkeypatch.setattr(files, "tensorrt_module", lambda backend: module)
    return given


def ensure(bundle: Path, board: Gpu, folder: Path, *names: str) -> list[str]:
    """What is said."""
    said: list[str] = []
    files.ensure(load_bundle(bundle), names, "tensorrt", board, "fp32", folder, said.append)
    return said


def test_boards_of_one_compute_capability_have_engines_of_their_own(
    bundle: Path, tmp_path: Path, builds: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path / "engines"
    assert len(ensure(bundle, AGX, folder, "segmenter")) == 1
    said = ensure(bundle, NANO, folder, "segmenter")
    assert "only for compute capability 8.7_Orin_of_NVIDIA_Jetson_AGX_Orin_Developer_Kit_16_multiprocessors" in said[0]
    assert ensure(bundle, AGX, folder, "segmenter") == ensure(bundle, NANO, folder, "segmenter") == []
    assert len(builds) == 2
    first, second = sorted(folder.glob("*.engine"))
    for suffix in (".engine", ".json"):  # as if it had been copied by hand
        first.with_suffix(suffix).replace(second.with_suffix(suffix))
    assert "built for a GPU Orin of NVIDIA Jetson AGX" in ensure(bundle, NANO, folder, "segmenter")[0]


def test_all_builds_for_a_gpu_share_what_they_know_of_its_kernels(
    bundle: Path, tmp_path: Path, builds: list[tuple[str, bytes]]
) -> None:
    folder = tmp_path / "engines"
    ensure(bundle, AGX, folder, "segmenter", "refinement")
    ensure(bundle, AGX, folder, "restoration")
    ensure(bundle, NANO, folder, "segmenter")
    assert builds == [
        ("segmenter", b""),
        ("refinement", b"segmenter"),
        ("restoration", b"refinement"),
        ("segmenter", b""),
    ]
    (file,) = folder.glob("tensorrt-10.3.0-8.7_*AGX*.timings")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o666)
    file.write_bytes(b"somebody else's")
    for engine in folder.glob("*restoration*"):
        engine.unlink()
    ensure(bundle, AGX, folder, "restoration")
    assert builds[-1] == ("restoration", b"")


def test_a_jetson_is_named_with_its_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_cuda import FakeCuda

    fake = FakeCuda()
    fake.stand_in(monkeypatch)
    board = tmp_path / "model"
    board.write_bytes(b"NVIDIA Jetson AGX Orin Developer Kit\0")
    monkeypatch.setattr(cuda, "BOARD", board)
    assert gpu().model == "Fake GPU, 16 multiprocessors"  # a card in a machine that says what it is
    fake.integrated = True
    assert gpu().model == "Fake GPU of NVIDIA Jetson AGX Orin Developer Kit, 16 multiprocessors"
    assert gpu().integrated


def test_a_compute_capability_cannot_be_named(bundle: Path, tmp_path: Path, builds: list[tuple[str, bytes]]) -> None:
    with pytest.raises(EngineError, match="builds for the GPU it runs on alone"):
        files.ensure(load_bundle(bundle), ["segmenter"], "tensorrt", "8.7", "fp32", tmp_path, print)
