"""Engine files on disk: each beside a JSON of the same stem that says what it was built of and for.

An engine is a cache, never the source: what does not fit is built again. The JSON is written after the engine and holds
its checksum, so that whatever a killed build leaves is never taken for an engine.
"""

from __future__ import annotations

import atexit
import datetime
import fcntl
import functools
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coop_perception.documents import read_json
from coop_perception.engines import EngineError
from coop_perception.engines.private_files import (
    FOLDER,
    PARTIAL,
    distrusted,
    make_folder,
    open_own,
    read_trusted,
    write_own,
)
from coop_perception.shown import plain, shown

Say = Callable[[str], object]
NONE_YET = "there is none yet"
WAITING_S = 2.0
"""Whoever waits longer for another process's build says so."""


@dataclass(frozen=True, slots=True)
class Key:
    """What an engine depends on. An engine whose key differs is stale."""

    network: str
    onnx_sha256: str
    """Covers the weights' file too, whose checksum is in the graph's metadata."""
    backend: str
    """The module that runs it."""
    version: str | None
    """Of that module, or how its files are quantised that are good for any."""
    compute_capability: str | None
    """As "8.9"; None: no GPU's."""
    gpu: str | None
    """Model of the GPU it was tuned on; None: good for any of the compute capability."""
    precision: str
    max_batch: int | None
    """None: any batch."""
    sizes: str | None
    """Of images and frames that it takes, in words; None: any."""
    calibration: str | None
    """What its precision was calibrated on. Wanted, None takes any."""


def default_directory(say: Say) -> Path:
    """$COOP_PERCEPTION_CACHE, else coop_perception below $XDG_CACHE_HOME or ~/.cache, which is made this user's alone;
    where that cannot be, as without a home directory, one that lasts as long as the process.

    Args:
        say: gets a line about the latter.

    Raises:
        EngineError: not even that can be made.
    """
    own = os.environ.get("COOP_PERCEPTION_CACHE")
    if own:
        return Path(own)
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        if not base.is_absolute():
            raise RuntimeError(f"the home directory is {shown(str(base))}, no absolute path")
        directory = base / "coop_perception"
        make_folder(directory)
        if distrusted(directory) and directory.stat().st_uid == os.geteuid():
            directory.chmod(FOLDER)  # made by an earlier version; files that others can write to are not taken anyway
        return directory
    except (OSError, RuntimeError) as error:
        directory = _temporary()
        say(
            f"no place for a cache ({plain(error, 200)}): what is built or measured is in {directory} and lost when "
            "the process ends; set COOP_PERCEPTION_CACHE to a directory that can be written to"
        )
        return directory


@functools.cache
def _temporary() -> Path:
    try:
        directory = tempfile.mkdtemp(prefix="coop_perception-")
    except OSError as error:
        raise EngineError(
            f"there is no place for a cache, nor for temporary files ({plain(error, 200)}); set COOP_PERCEPTION_CACHE"
        ) from error
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


def find(engine: Path, wanted: Key) -> str | None:
    """Why the file is no engine for the key, in words, beginning with NONE_YET where there is none; None: it is one."""
    for path in (engine.parent, engine, _sidecar(engine)):
        if reason := distrusted(path):
            return reason
    try:
        sidecar = read_sidecar(engine)
        built = Key(**sidecar["key"])
        digest, size = str(sidecar["facts"]["sha256"]), int(sidecar["facts"]["size"])
    except FileNotFoundError:
        if engine.exists():
            return f"{engine.name} has no {_sidecar(engine).name} beside it: its build did not end"
        others = _others(engine)
        return f"{NONE_YET}{f' (only {others})' if others else ''}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{_sidecar(engine).name} cannot be read: {error}"
    difference = _difference(built, wanted)
    if difference:
        return difference
    try:
        data = read_trusted(engine)
    except FileNotFoundError:
        return f"{engine.name} is missing beside its {_sidecar(engine).name}"
    except OSError as error:
        return f"{engine.name} cannot be read: {error.strerror}"
    if len(data) != size:
        return f"{engine.name} is damaged: it has {len(data)} bytes, {size} were written"
    if hashlib.sha256(data).hexdigest() != digest:
        return f"{engine.name} is damaged: its checksum is not the one that was written"
    return None


def store(engine: Path, key: Key, data: bytes, facts: Mapping[str, Any]) -> None:
    """Write an engine and its JSON, each at once or not at all; call it with the engine's `lock` held.

    Args:
        engine: the file.
        key: what it was built of and for.
        data: its content.
        facts: what else the JSON says of it; sha256, size and date are added.

    Raises:
        EngineError: the directory cannot be written to, or is full.
    """
    own = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    sidecar = json.dumps({"key": asdict(key), "facts": {**facts, **own}}, indent=1) + "\n"
    with _writing(engine.parent):
        for killed in engine.parent.glob(f".{engine.stem}.*{PARTIAL}"):  # engines are large
            killed.unlink(missing_ok=True)
        write_own(engine, data)
        write_own(_sidecar(engine), sidecar.encode())


def store_private(path: Path, data: bytes) -> None:
    """Write a file at once or not at all.

    Raises:
        EngineError: the directory cannot be written to, or is full.
    """
    with _writing(path.parent):
        write_own(path, data)


def read_sidecar(engine: Path) -> dict[str, Any]:
    """`key` and `facts` of an engine file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or is no JSON mapping.
    """
    if not _sidecar(engine).exists():
        raise FileNotFoundError(_sidecar(engine))
    content = read_json(_sidecar(engine))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON mapping")
    return content


@contextmanager
def lock(engine: Path, say: Say) -> Iterator[None]:
    """Held by one process at a time for an engine file; others wait. Makes the directory.

    Args:
        engine: the file.
        say: gets a line where this takes longer than WAITING_S.

    Raises:
        EngineError: the directory cannot be written to, or others can.
    """
    with _writing(engine.parent):
        make_folder(engine.parent)
        if reason := distrusted(engine.parent):
            raise EngineError(f"no engine is built: {reason}")
        # Stays behind: whoever removed it could let two in, who hold different files of that name.
        path = engine.with_name(f".{engine.name}.lock")
        file = open_own(path, 0)
    with file:
        waiting = threading.Timer(WAITING_S, say, (f"waiting for another process, which builds {engine} ({path})",))
        waiting.daemon = True
        waiting.start()
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            waiting.cancel()
        yield


def _sidecar(engine: Path) -> Path:
    return engine.with_suffix(".json")


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineError(
            f"{directory}: engines cannot be written there: {error.strerror}; make it writable, free space, or choose "
            "another directory with COOP_PERCEPTION_CACHE or --out"
        ) from error


def _difference(built: Key, wanted: Key) -> str | None:
    if built.network != wanted.network:
        return f"it is the {built.network}, not the {wanted.network}"
    if built.onnx_sha256 != wanted.onnx_sha256:
        return "it was built of another ONNX file: the bundle has changed"
    if built.backend != wanted.backend:
        return f"it was built for {built.backend}, not {wanted.backend}"
    if built.version != wanted.version and wanted.compute_capability is None:
        return f"it was quantised otherwise than with {wanted.version}"
    if built.version != wanted.version:
        return f"it was built by {built.backend} {built.version}, {wanted.version} is installed"
    if built.compute_capability != wanted.compute_capability:
        return f"it was built for compute capability {built.compute_capability}, not {wanted.compute_capability}"
    if built.gpu is not None and built.gpu != wanted.gpu:
        return f"it was built for a GPU {built.gpu}, not {wanted.gpu or 'any of its compute capability'}"
    if built.precision != wanted.precision:
        return f"its precision is {built.precision}, not {wanted.precision}"
    if built.max_batch is not None and (wanted.max_batch is None or built.max_batch < wanted.max_batch):
        return f"it takes batches of up to {built.max_batch}, not {wanted.max_batch}"
    if built.sizes != wanted.sizes:
        return f"it was built for {built.sizes}, not {wanted.sizes}"
    if wanted.calibration is not None and built.calibration != wanted.calibration:
        return "it was calibrated on other images"
    return None


def _others(engine: Path) -> str:
    """What there are engines for, of files named alike but for that."""
    # Names end in -<compute capability, and the GPU's model where it matters>-<precision>.
    alike = (
        f.stem for f in engine.parent.glob("*.json") if _without_capability(f.stem) == _without_capability(engine.stem)
    )
    found = sorted(stem.split("-")[-2] for stem in alike)
    return f"for compute capability {', '.join(found)}" if found else ""


def _without_capability(stem: str) -> list[str]:
    parts = stem.split("-")
    return parts[:-2] + parts[-1:]
