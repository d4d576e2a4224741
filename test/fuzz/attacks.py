"""What files take that were made to do harm: a Markdown table of time and memory, each in a process of its own.

attacks.py [NAME...]: all, or those whose name begins so. What was made for one lies in a temporary folder meanwhile.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recordings"))

import numpy as np
import zstandard
from mcap.writer import CompressionType
from test_attacks import GB, VIEWS, altered, image, mcap_with, zstd_zeros
from test_documents import BOMB
from test_encoded_images import BOMBS, png
from test_recordings import record, storage_file
from toy_bundle import edit_manifest, never_ending, rewrite_network, write_toy_bundle

from coop_perception.camera import Intrinsics
from coop_perception.degradations import degrade
from coop_perception.degradations.scene import depth_of, intrinsics_of
from coop_perception.encoded_images import FILES, decode
from coop_perception.engines.loading import EngineSettings
from coop_perception.model.bundle import MANIFEST, load_bundle
from coop_perception.model.trial import try_bundle
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import camera_info_message
from coop_perception.recordings.recording import Recording

MOST_MEMORY = 4 * GB
LONGEST_S = 300
Attack = Callable[[], object]


def _image(data: bytes) -> Attack:
    return lambda: decode(data, -1, FILES).shape


def _read(path: Path) -> Attack:
    def read() -> str:
        count = 0
        with Recording(path) as recording:
            for _ in frames(recording, list(recording.topics)):
                count += 1
        return f"{count} frames"

    return read


def _sparse(path: Path, tail: int) -> Path:
    """40 GB of nothing before its end."""
    end = path.read_bytes()[-tail:] if tail else b""
    os.truncate(path, 40 * GB)
    with path.open("r+b") as file:
        file.seek(-tail, os.SEEK_END)
        file.write(end)
    return path


def _manifest(folder: Path, text: str) -> Attack:
    bundle = write_toy_bundle(folder / "toy")
    (bundle / MANIFEST).write_text(text)
    return lambda: load_bundle(bundle)


def _graph(folder: Path, make: Callable[[Path], object]) -> Attack:
    file = write_toy_bundle(folder / "toy") / "segmenter.onnx"
    file.unlink()
    make(file)
    return lambda: load_bundle(file.parent)


def _endless_graph(folder: Path) -> Attack:
    bundle = write_toy_bundle(folder / "toy")
    rewrite_network(bundle, "restoration", never_ending())
    return lambda: try_bundle(bundle, folder / "copy", EngineSettings("onnxruntime"), 20.0)


def _many_classes(folder: Path) -> Attack:
    bundle = write_toy_bundle(folder / "toy")
    edit_manifest(bundle, classes=[{"id": n, "name": f"c{n}", "rgb": [0, 0, 0]} for n in range(100_000)])
    return lambda: load_bundle(bundle)


def _packed(folder: Path, files: int) -> Attack:
    whole = mcap_with(folder / "plain", [image(0)], CompressionType.NONE)
    content = zstandard.compress(whole.read_bytes()) + b"".join(zstd_zeros(GB))
    bag = folder / "bag"
    bag.mkdir()
    for number in range(files):
        (bag / f"{number}.mcap.zstd").write_bytes(content)
    return _read(bag)


def _sparse_sqlite(folder: Path) -> Attack:
    recording = record(folder / "bag", 5, "sqlite3")
    (recording / "metadata.yaml").unlink()
    _sparse(storage_file(recording), 0)
    return _read(recording)


def _adverse(height: int, width: int, focal: float) -> Attack:
    clean = np.zeros((height, width, 3), np.uint8)
    info = camera_info_message(Intrinsics(width, height, focal, focal, width / 2, height / 2), "front", 0)

    def run() -> object:
        intrinsics, said = intrinsics_of(info, width, height)
        depth, _ = depth_of(None, intrinsics, 1.5)
        degrade(clean, "rain", 3, seed=0, frame=0, depth=depth, intrinsics=intrinsics)
        return said or "done"

    return run


MERGE = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [{', '.join([f'*a{n}'] * 9)}]}}\n" for n in range(12))
ATTACKS: dict[str, Callable[[Path], Attack]] = {
    **{f"image: {name}": (lambda _, data=data: _image(data)) for name, (data, _) in BOMBS.items()},
    "image: PNG of 64 million pixels, 64 bits each": lambda _: _image(
        png(8000, 8000, bytes((8000 * 8 + 1) * 8000), 16, 6)
    ),
    "bundle: aliases of aliases": lambda folder: _manifest(folder, f"{BOMB}conditions: *a12\n"),
    "bundle: merge keys": lambda folder: _manifest(folder, MERGE),
    "bundle: 100,000 classes": _many_classes,
    "bundle: a graph that is a pipe": lambda folder: _graph(folder, os.mkfifo),
    "bundle: a graph that is /dev/zero": lambda folder: _graph(folder, lambda file: file.symlink_to("/dev/zero")),
    "bundle: a graph of 40 GB of nothing": lambda folder: _graph(
        folder, lambda file: (file.touch(), os.truncate(file, 40 * GB))
    ),
    "bundle: a graph that never ends, given 20 s": _endless_graph,
    "recording: endless view": lambda folder: _read(altered(folder / "bag", *VIEWS["endless rows"])),
    "recording: a packed message of 1 GB": lambda folder: _read(
        mcap_with(folder / "bag.mcap", [image(0), b"".join(zstd_zeros(GB)), image(2)])
    ),
    "recording: a packed file of 1 GB": lambda folder: _packed(folder, 1),
    "recording: 20 packed files of 1 GB": lambda folder: _packed(folder, 20),
    "recording: mcap of 40 GB of nothing": lambda folder: _read(
        _sparse(mcap_with(folder / "bag.mcap", [image(0), image(1)]), 37)
    ),
    "recording: sqlite3 of 40 GB of nothing": _sparse_sqlite,
    "degrade_node: an image of 1x8192 in rain": lambda _: _adverse(8192, 1, 500.0),
    "degrade_node: a focal length of 5": lambda _: _adverse(480, 640, 5.0),
    "degrade_node: identity K": lambda _: _adverse(480, 640, 1.0),
}


def _memory(field: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) // 1024


def _one(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        attack = ATTACKS[name](Path(folder))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # forgets the most that it has had
        begun = time.perf_counter()
        try:
            said = str(attack())
        except (ValueError, RuntimeError) as error:
            said = str(error)
        took = time.perf_counter() - begun
        said = said.replace(folder, "…").replace("|", "\\|")
        print(f"| {name} | {took:.2f} s | {max(0, _memory('VmHWM') - before)} MB | {said[:160]} |", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2])
        return
    print("| attack | time | memory | what is said |\n| --- | ---: | ---: | --- |", flush=True)
    for name in ATTACKS:
        if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:])):
            command = [sys.executable, __file__, "--one", name]
            try:
                done = subprocess.run(command, timeout=LONGEST_S, stderr=subprocess.PIPE, check=False)
            except subprocess.TimeoutExpired:
                print(f"| {name} | more than {LONGEST_S} s | | |", flush=True)
            else:
                if done.returncode:
                    print(f"| {name} | | | ended with {done.returncode}: {done.stderr[-300:].decode()} |", flush=True)


if __name__ == "__main__":
    main()
