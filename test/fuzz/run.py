"""Fuzzes what reads files and messages from outside: run.py images|recordings|manifests [--minutes 10].

hypothesis draws the changes, and makes what fails small. An input fails where anything but its one refusal is raised,
where it takes longer than LONGEST_S, or more memory than MOST_MEMORY, in which the whole process has to do.
"""

from __future__ import annotations

import argparse
import resource
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter
from small_recording import write_bag
from toy_bundle import write_toy_bundle

from coop_perception.documents import DocumentError, parse_json, parse_yaml
from coop_perception.encoded_images import FORMATS, Limits
from coop_perception.images import ImageError, decode, to_depth, to_mask
from coop_perception.model.bundle import MANIFEST, BundleError, load_bundle
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import IMAGE_TYPE, TYPES
from coop_perception.recordings.recording import METADATA, Recording, RecordingError

LONGEST_S = 20
"""Of the processor's time."""
MOST_MEMORY = 3 * 2**30
EXAMPLES = 200
"""Of one round; rounds go on until the time is over."""
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFF00, 2**40, 2**63, 2**64 - 1]
Target = Callable[[Path, st.DataObject], None]


def check_line(error: Exception) -> None:
    """A refusal is one line, of a bounded length."""
    assert "\n" not in str(error)
    assert len(str(error)) < 4000


class TooSlowError(Exception):
    """An input took longer than LONGEST_S."""


def mutated(data: st.DataObject, seed: bytes) -> bytes:
    """A seed with up to eight changes: bytes, numbers of a format, and parts removed, repeated or moved."""
    content = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content)))
        end = min(len(content), at + data.draw(st.sampled_from([1, 2, 4, 8, 16, 64, 512, 4096])))
        kind = data.draw(st.sampled_from(["byte", "number", "remove", "repeat", "move", "insert"]))
        if kind == "byte" and at < len(content):
            content[at] = data.draw(st.integers(0, 255))
        elif kind == "number":
            number = data.draw(st.sampled_from(NUMBERS))
            code = data.draw(st.sampled_from(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"]))
            packed = struct.pack(code, number & (2 ** (8 * struct.calcsize(code)) - 1))
            content[at : at + len(packed)] = packed
        elif kind == "remove":
            del content[at:end]
        elif kind == "repeat":
            content[at:at] = content[at:end] * data.draw(st.sampled_from([1, 2, 100]))
        elif kind == "move":
            part = content[at:end]
            del content[at:end]
            to = data.draw(st.integers(0, len(content)))
            content[to:to] = part
        else:
            content[at:at] = data.draw(st.binary(max_size=32))
    return bytes(content)


def image_target(folder: Path) -> Target:
    picture = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    seeds = [cv2.imencode(f".{name}", picture)[1].tobytes() for name in ("jpg", "png", "bmp", "tiff", "webp")]
    seeds.append(cv2.imencode(".png", picture[..., 0].astype(np.uint16) * 256)[1].tobytes())
    seeds.append(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes())
    every = Limits(FORMATS, 10**6)
    encodings = [
        "rgb8",
        "bgr8",
        "mono8",
        "mono16",
        "rgba8",
        "bayer_rggb8",
        "yuv422",
        "nv12",
        "16UC1",
        "32FC1",
        "8UC3",
        "x",
    ]

    def target(_: Path, data: st.DataObject) -> None:
        if data.draw(st.booleans()):
            content = np.frombuffer(mutated(data, data.draw(st.sampled_from(seeds))), np.uint8)
            name = data.draw(st.sampled_from(["jpeg", "png", "rgb8; jpeg compressed bgr8", "", "\x1b[2J"]))
            message = SimpleNamespace(format=name, data=content)
        else:
            size = st.sampled_from([0, 1, 2, 3, 8, 24, 2**16, 2**31, 2**32 - 1])
            message = SimpleNamespace(
                height=data.draw(size),
                width=data.draw(size),
                step=data.draw(size),
                encoding=data.draw(st.sampled_from(encodings)),
                is_bigendian=data.draw(st.integers(0, 255)),
                data=np.zeros(data.draw(st.sampled_from([0, 1, 3, 24, 72, 576, 1728])), np.uint8),
            )
        raw_alone = [lambda: to_depth(message)] if hasattr(message, "encoding") else []
        for reading in (lambda: decode(message, every), lambda: to_mask(message), *raw_alone):
            try:
                reading()
            except ImageError:
                pass

    return target


def recording_target(folder: Path) -> Target:
    seeds: dict[str, bytes] = {"small.mcap": next(write_bag(folder / "small").glob("*.mcap")).read_bytes()}
    image = b"\0\1\0\0" + struct.pack("<iI", 1, 0) + bytes(200)
    for compression in (CompressionType.NONE, CompressionType.ZSTD, CompressionType.LZ4):
        path = folder / f"{compression.name}.mcap"
        with path.open("wb") as file:
            writer = Writer(file, compression=compression, chunk_size=500)
            writer.start()
            schema = writer.register_schema(IMAGE_TYPE, "ros2msg", b"")
            channel = writer.register_channel("/front/image_raw", "cdr", schema)
            for index in range(8):
                writer.add_message(channel, index * 10**8, image, index * 10**8)
            writer.finish()
        seeds[path.name] = path.read_bytes()
    for mode in (CompressionMode.NONE, CompressionMode.MESSAGE, CompressionMode.FILE):
        bag = folder / f"sqlite-{mode.name}"
        rosbags = RosbagsWriter(bag, version=9, storage_plugin=StoragePlugin.SQLITE3)
        if mode != CompressionMode.NONE:
            rosbags.set_compression(mode, CompressionFormat.ZSTD)
        with rosbags:
            connection = rosbags.add_connection("/front/image_raw", IMAGE_TYPE, typestore=TYPES)
            for index in range(8):
                rosbags.write(connection, index * 10**8, image)
        (stored,) = (path for path in bag.iterdir() if path.name != METADATA)
        seeds[f"{mode.name}{''.join(stored.suffixes)}"] = stored.read_bytes()
        seeds[f"{mode.name}-{METADATA}"] = (bag / METADATA).read_bytes()

    def target(place: Path, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(seeds)))
        recording = place / "bag"
        recording.mkdir()
        if name.endswith(METADATA):
            (recording / METADATA).write_bytes(mutated(data, seeds[name]))
            (recording / "small.mcap").write_bytes(seeds["small.mcap"])
        else:
            (recording / name).write_bytes(mutated(data, seeds[name]))
        try:
            with Recording(recording) as opened:
                for _, group in frames(opened, list(opened.topics)):
                    for message in group.values():
                        try:
                            opened.deserialize(message)
                        except RecordingError:
                            pass
        except RecordingError as error:
            check_line(error)

    return target


def manifest_target(folder: Path) -> Target:
    bundle = write_toy_bundle(folder / "toy")
    whole = (bundle / MANIFEST).read_bytes()
    words = [b"&a ", b"*a ", b"<<: ", b"!!python/none ", b".inf", b".nan", b"1" * 200, b"\x00", b"\xff", b"- " * 40]
    words += [
        b'"\\ud800"',
        b"/dev/zero",
        b"../",
        b"[" * 40,
        b"{" * 40,
        b"0x" + b"f" * 40,
        b"1:2:3",
        b"2026-11-28",
        b"~",
    ]

    def target(_: Path, data: st.DataObject) -> None:
        text = bytearray(mutated(data, whole) if data.draw(st.booleans()) else whole)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(text)))
            text[at:at] = data.draw(st.sampled_from(words))
        (bundle / MANIFEST).write_bytes(text)
        try:
            load_bundle(bundle)
        except BundleError as error:
            check_line(error)
        for parse in (parse_yaml, parse_json):
            try:
                parse(text.decode(errors="surrogateescape"), "a text:")
            except DocumentError as error:
                check_line(error)

    return target


TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "images": image_target,
    "recordings": recording_target,
    "manifests": manifest_target,
}


def late(_: int, __: FrameType | None) -> None:
    raise TooSlowError(f"longer than {LONGEST_S} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    signal.signal(signal.SIGPROF, late)
    tried, end = 0, time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[options.target](Path(folder))

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(st.data())
        def one(data: st.DataObject) -> None:
            nonlocal tried
            tried += 1
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            try:
                with tempfile.TemporaryDirectory() as place:
                    target(Path(place), data)
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)

        while time.monotonic() < end:
            one()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{options.target}: {tried} inputs in {options.minutes:g} minutes, none failed; {peak:.0f} MB at the most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
