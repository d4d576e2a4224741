"""Engine files: what is taken for a network, what is not and why, and what two or a killed builder leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coop_perception.engines import EngineError, cache
from coop_perception.engines.cache import Key, find, read_sidecar, store

lock = partial(cache.lock, say=print)
KEY = Key(
    network="segmenter",
    onnx_sha256="a" * 64,
    backend="tensorrt_rtx",
    version="1.7.1",
    compute_capability="8.9",
    gpu=None,
    precision="fp16",
    max_batch=4,
    sizes="images of 128 to 2048 pixels a side",
    calibration="sample drives",
)
NAME = "street-segmenter-tensorrt_rtx-8.9-fp16.engine"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "cache" / NAME
    with lock(path):
        store(path, KEY, b"an engine", {"build_seconds": 1.5})
    return path


@pytest.fixture
def unwritable() -> Iterator[Path]:
    """A directory that this process may not write to, whoever runs it."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield directory
    finally:
        os.seteuid(user)
        shutil.rmtree(directory)


class TestFind:
    def test_takes_what_was_stored_with_its_facts(self, engine: Path) -> None:
        assert find(engine, KEY) is None
        assert engine.read_bytes() == b"an engine"
        facts = read_sidecar(engine)["facts"]
        assert facts["build_seconds"] == 1.5
        assert facts["size"] == 9
        assert facts.keys() >= {"sha256", "date"}

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"network": "restoration"}, "it is the segmenter, not the restoration"),
            ({"onnx_sha256": "b" * 64}, "the bundle has changed"),
            ({"backend": "tensorrt"}, "built for tensorrt_rtx, not tensorrt"),
            ({"version": "1.8.0"}, "built by tensorrt_rtx 1.7.1, 1.8.0 is installed"),
            ({"compute_capability": "12.0"}, "compute capability 8.9, not 12.0"),
            ({"precision": "int8"}, "precision is fp16, not int8"),
            ({"max_batch": 8}, "batches of up to 4, not 8"),
            ({"sizes": "images of 64"}, "built for images of 128 to 2048 pixels a side, not images of 64"),
            ({"calibration": "c" * 64}, "calibrated on other images"),
        ],
    )
    def test_says_what_differs(self, engine: Path, changed: dict[str, Any], reason: str) -> None:
        found = find(engine, replace(KEY, **changed))
        assert found is not None
        assert reason in found

    def test_an_engine_of_another_gpu_is_refused(self, engine: Path) -> None:
        with lock(engine):
            store(engine, replace(KEY, gpu="RTX 4090"), b"tuned", {})
        assert find(engine, replace(KEY, gpu="RTX 4090")) is None
        assert find(engine, replace(KEY, gpu="L40S")) == "it was built for a GPU RTX 4090, not L40S"

    def test_an_engine_of_a_compute_capability_serves_any_gpu_of_it(self, engine: Path) -> None:
        assert find(engine, replace(KEY, gpu="L40S")) is None

    def test_smaller_batches_and_any_calibration_are_served(self, engine: Path) -> None:
        assert find(engine, replace(KEY, max_batch=1, calibration=None)) is None

    def test_a_changed_byte_is_damage(self, engine: Path) -> None:
        engine.write_bytes(b"an Engine")
        assert "is damaged: its checksum" in str(find(engine, KEY))

    def test_a_cut_off_file_is_damage(self, engine: Path) -> None:
        engine.write_bytes(b"an eng")
        assert f"{NAME} is damaged: it has 6 bytes, 9 were written" in str(find(engine, KEY))

    def test_an_engine_without_its_json_is_none(self, engine: Path) -> None:
        engine.with_suffix(".json").unlink()
        assert "its build did not end" in str(find(engine, KEY))

    def test_no_file_at_all_is_no_fault(self, tmp_path: Path) -> None:
        assert find(tmp_path / "none" / NAME, KEY) == "there is none yet"

    def test_a_json_without_its_engine_is_said(self, engine: Path) -> None:
        engine.unlink()
        assert f"{NAME} is missing" in str(find(engine, KEY))

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", '{"key": {"network": "segmenter"}, "facts": {}}', "\0\xff"]
    )
    def test_an_unreadable_json_is_said(self, engine: Path, content: str) -> None:
        engine.with_suffix(".json").write_text(content)
        assert "cannot be read" in str(find(engine, KEY))

    def test_engines_of_other_compute_capabilities_are_named_where_there_is_none(self, engine: Path) -> None:
        missing = engine.with_name(NAME.replace("8.9", "12.0"))
        found = find(missing, replace(KEY, compute_capability="12.0"))
        assert found == "there is none yet (only for compute capability 8.9)"


class TestStore:
    def test_a_newer_engine_takes_the_older_ones_place(self, engine: Path) -> None:
        newer = replace(KEY, version="1.8.0")
        with lock(engine):
            store(engine, newer, b"another", {})
        assert find(engine, newer) is None
        assert {file.name for file in engine.parent.iterdir() if not file.name.startswith(".")} == {
            NAME,
            NAME.replace(".engine", ".json"),
        }

    def test_a_read_only_directory_is_named_with_what_to_do(self, unwritable: Path) -> None:
        with (
            pytest.raises(EngineError, match=f"{unwritable}.*Permission denied.*COOP_PERCEPTION_CACHE"),
            lock(unwritable / NAME),
        ):
            pass

    def test_a_full_disk_is_named_and_leaves_the_old_engine(self, engine: Path) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(EngineError, match=r"engines cannot be written there: File too large; .* free space"):
                store(engine, KEY, bytes(10000), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert find(engine, KEY) is None
        assert not list(engine.parent.glob(".*.partial"))

    def test_a_killed_writer_leaves_nothing_that_is_used(self, engine: Path) -> None:
        """Killed after the engine and before its JSON: the one moment at which the two do not belong together."""
        writer = f"""
import os, pathlib, signal
from coop_perception.engines import cache
write = cache.write_own
def killed(path, data):
    if path.suffix == ".json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
cache.write_own = killed
cache.store(pathlib.Path({str(engine)!r}), cache.Key(**{json.loads(engine.with_suffix(".json").read_text())["key"]!r}),
            b"half of it", {{}})
"""
        assert subprocess.run([sys.executable, "-c", writer], check=False).returncode == -9
        assert engine.read_bytes() == b"half of it"
        assert "is damaged" in str(find(engine, KEY))


def test_the_second_of_two_builders_waits_for_the_first(tmp_path: Path) -> None:
    path = tmp_path / NAME
    context = multiprocessing.get_context("spawn")
    waiting, saw = context.Event(), context.Queue()
    with lock(path):
        second = context.Process(target=_look, args=(path, waiting, saw))
        second.start()
        assert waiting.wait(60)  # it goes for the lock next; whichever comes first, it must see the engine
        store(path, KEY, b"an engine", {})
    assert saw.get(timeout=60) is None
    second.join()


def _look(path: Path, waiting: Any, saw: Any) -> None:
    waiting.set()
    with lock(path):
        saw.put(find(path, KEY))


def test_who_waits_for_another_builder_says_so(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WAITING_S", 0.0)
    said, taken = threading.Event(), threading.Event()

    def second() -> None:
        with cache.lock(engine, lambda line: said.set() if f"which builds {engine}" in str(line) else None):
            taken.set()

    with lock(engine):
        thread = threading.Thread(target=second)
        thread.start()
        assert said.wait(30)
        assert not taken.is_set()
    assert taken.wait(30)
    thread.join()


class TestOthers:
    """Engines are code: what somebody else could have written is not loaded."""

    @pytest.mark.parametrize("mode", [0o020, 0o002])
    @pytest.mark.parametrize("name", ["", NAME, NAME.replace(".engine", ".json")])
    def test_what_they_can_write_to_is_not_taken(self, engine: Path, name: str, mode: int) -> None:
        path = engine.parent / name
        path.chmod(path.stat().st_mode | mode)
        assert re.match(f"others can write to {path} .*chmod go-w", str(find(engine, KEY)))

    @pytest.mark.parametrize("name", ["", NAME, NAME.replace(".engine", ".json")])
    def test_what_is_theirs_is_not_taken(self, engine: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only root gives a file away; to anybody else all of them are another's as soon as they are that other one."""
        owner = 12345 if os.geteuid() == 0 else os.geteuid()
        if os.geteuid() == 0:
            os.chown(engine.parent / name, owner, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        assert f"belongs to another user ({owner})" in str(find(engine, KEY))

    def test_what_they_put_there_after_a_look_at_it_is_not_taken(
        self, engine: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who may rename a folder above the cache can exchange what is in it at any moment."""
        monkeypatch.setattr(cache, "distrusted", lambda path: path.chmod(path.stat().st_mode | 0o002))
        assert "others can write to" in str(find(engine, KEY))

    def test_a_pipe_in_place_of_an_engine_is_not_waited_for(self, engine: Path) -> None:
        engine.unlink()
        os.mkfifo(engine, 0o600)
        assert "no regular file" in str(find(engine, KEY))

    def test_a_folder_that_they_can_write_to_is_not_built_in(self, engine: Path) -> None:
        engine.parent.chmod(0o777)
        with pytest.raises(EngineError, match="no engine is built: others can write"), lock(engine):
            pass

    def test_what_is_made_is_ones_own_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            engine = tmp_path / "open" / NAME
            with lock(engine):
                store(engine, KEY, b"an engine", {})
        finally:
            os.umask(before)
        assert {file.stat().st_mode & 0o777 for file in engine.parent.iterdir()} == {0o600}
        assert engine.parent.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("suffix", ["lock", "partial"])
    def test_their_links_are_not_followed(self, engine: Path, tmp_path: Path, suffix: str) -> None:
        precious = tmp_path / "precious"
        precious.write_text("mine")
        link = engine.with_name(f".{NAME}.{suffix}" if suffix == "lock" else f".{NAME}.{os.getpid()}.{suffix}")
        link.unlink(missing_ok=True)
        link.symlink_to(precious)
        if suffix == "lock":
            with pytest.raises(EngineError, match="symbolic links"), lock(engine):
                pass
        else:
            store(engine, replace(KEY, version="2"), b"newer", {})
            assert not link.is_symlink()
            assert find(engine, replace(KEY, version="2")) is None
        assert precious.read_text() == "mine"


class TestDefaultDirectory:
    def test_the_own_variable_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COOP_PERCEPTION_CACHE", "/engines")
        monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
        assert cache.default_directory(print) == Path("/engines")

    def test_then_the_caches_of_the_user(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("COOP_PERCEPTION_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        assert cache.default_directory(print) == tmp_path / "caches/coop_perception"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", str(tmp_path / "driver"))
        directory = cache.default_directory(print)
        assert directory == tmp_path / "driver/.cache/coop_perception"
        directory.chmod(0o775)  # as an earlier version made it
        cache.default_directory(print)
        assert directory.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("home", [None, "relative", "/proc/none", "/dev/null"])
    def test_without_a_home_it_is_temporary_and_said(self, home: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("COOP_PERCEPTION_CACHE", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if home is None:
            monkeypatch.delenv("HOME")
            monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # whom no entry of passwd knows
        else:
            monkeypatch.setenv("HOME", home)
        said: list[object] = []
        directory = cache.default_directory(said.append)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert f"is in {directory} and lost when the process ends; set COOP_PERCEPTION_CACHE" in str(said)
        assert cache.default_directory(said.append) == directory
