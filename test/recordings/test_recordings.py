"""Reading and writing recordings, whole and damaged."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import SeekingReader
from mcap.writer import CompressionType, IndexType
from mcap.writer import Writer as McapWriter
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import Image

from coop_perception.camera import Intrinsics
from coop_perception.images import decode, to_mask
from coop_perception.recordings.cameras import (
    camera_prefix,
    empty_cameras,
    find_image_topic,
    image_topics,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.recordings.mcap_file import McapFile
from coop_perception.recordings.messages import (
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    camera_info_message,
    compressed_image_message,
    image_message,
)
from coop_perception.recordings.recording import Message, Recording, RecordingError
from coop_perception.recordings.writer import RecordingWriter, Storage

STORAGES = ["mcap", "sqlite3"]
TOPIC = "/front/image_raw"
TYPES = get_typestore(Stores.ROS2_JAZZY)


def frame(index: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)


def stamp(index: int) -> int:
    return 1_700_000_000_000_000_000 + index * 50_000_000


def raw_image(index: int, height: int = 6, width: int = 8) -> bytes:
    message = image_message(frame(index, height, width), "rgb8", "front_optical_frame", stamp(index))
    return bytes(TYPES.serialize_cdr(message, IMAGE_TYPE))


def record(path: Path, count: int = 5, storage: Any = "mcap", height: int = 6, width: int = 8) -> Path:
    with RecordingWriter(path, storage) as writer:
        for index in range(count):
            writer.write(TOPIC, raw_image(index, height, width), IMAGE_TYPE, stamp(index))
    return path


def storage_file(directory: Path) -> Path:
    (path,) = (path for path in directory.iterdir() if path.suffix in (".mcap", ".db3"))
    return path


def read(path: Path) -> list[Message]:
    with Recording(path) as recording:
        return list(recording.messages())


def attempt(path: Path) -> tuple[list[Message], str | None]:
    """What could be read, and the error, at opening or at the end; any other exception fails the test."""
    messages: list[Message] = []
    try:
        with Recording(path) as recording:
            messages.extend(recording.messages())
    except RecordingError as error:
        return messages, str(error)
    return messages, None


def read_damaged(path: Path) -> tuple[list[Message], str]:
    messages, text = attempt(path)
    assert text is not None
    assert str(path) in text
    return messages, text


def assert_frames(messages: list[Message], indices: range | list[int], height: int = 6, width: int = 8) -> None:
    assert [message.stamp_ns for message in messages] == [stamp(index) for index in indices]
    for message, index in zip(messages, indices, strict=True):
        assert message.raw == raw_image(index, height, width)


@pytest.mark.parametrize("storage", STORAGES)
def test_what_is_written_is_read_back(tmp_path, storage):
    path = tmp_path / "drive"
    mask = np.arange(48, dtype=np.uint8).reshape(6, 8)
    with RecordingWriter(path, storage) as writer:
        writer.write(TOPIC, image_message(frame(0), "rgb8", "eye", stamp(0)), IMAGE_TYPE, stamp(0))
        info = camera_info_message(Intrinsics(8, 6, 5.0, 4.0, 3.5, 2.5), "eye", stamp(0))
        writer.write("/front/camera_info", info, CAMERA_INFO_TYPE, stamp(0))
        writer.write("/front/reference/mask", image_message(mask, "mono8", "eye", stamp(0)), IMAGE_TYPE, stamp(0))
        compressed = compressed_image_message(frame(0), "png", "eye", stamp(0))
        writer.write("/rear/image_raw/compressed", compressed, COMPRESSED_IMAGE_TYPE, stamp(0))
    with Recording(path) as recording:
        assert {name: (info.type, info.count) for name, info in recording.topics.items()} == {
            TOPIC: (IMAGE_TYPE, 1),
            "/front/camera_info": (CAMERA_INFO_TYPE, 1),
            "/front/reference/mask": (IMAGE_TYPE, 1),
            "/rear/image_raw/compressed": (COMPRESSED_IMAGE_TYPE, 1),
        }
        messages = list(recording.messages())
        image, info, mask_message, compressed = (recording.deserialize(message) for message in messages)
    assert [message.topic for message in messages] == [
        TOPIC,
        "/front/camera_info",
        "/front/reference/mask",
        "/rear/image_raw/compressed",
    ]
    np.testing.assert_array_equal(decode(image), frame(0))
    np.testing.assert_array_equal(to_mask(mask_message), mask)
    np.testing.assert_array_equal(decode(compressed), frame(0))
    assert (image.header.frame_id, image.header.stamp.sec, image.header.stamp.nanosec) == ("eye", 1_700_000_000, 0)
    assert (info.width, info.height, list(info.k)) == (8, 6, [5, 0, 3.5, 0, 4, 2.5, 0, 0, 1])
    assert list(info.p) == [5, 0, 3.5, 0, 0, 4, 2.5, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_of_nothing(tmp_path, storage):
    assert read(record(tmp_path / "bag", 0, storage)) == []


@pytest.mark.parametrize("storage", STORAGES)
def test_messages_come_by_log_time_and_by_topic(tmp_path, storage):
    order = [3, 0, 4, 1, 2]
    with RecordingWriter(tmp_path / "bag", storage) as writer:
        for index in order:
            writer.write(TOPIC, raw_image(index), IMAGE_TYPE, stamp(index))
            writer.write("/rear/image_raw", raw_image(index), IMAGE_TYPE, stamp(index))
    with Recording(tmp_path / "bag") as recording:
        messages = list(recording.messages())
        assert [message.stamp_ns for message in messages] == sorted(2 * [stamp(index) for index in order])
        assert [message.topic for message in messages[:2]] == [TOPIC, "/rear/image_raw"]
        assert_frames(list(recording.messages([TOPIC])), range(5))
        assert list(recording.messages(["/nowhere"])) == []


def test_log_time_order_holds_across_overlapping_chunks(tmp_path):
    with RecordingWriter(tmp_path / "bag", "mcap") as writer:  # a chunk holds two of these
        for index in (2, 0, 4, 1, 3, 5):
            writer.write(TOPIC, raw_image(index, 400, 500), IMAGE_TYPE, stamp(index))
    assert_frames(read(tmp_path / "bag"), range(6), 400, 500)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metadata", ["missing", "empty", "half", "binary", "another"])
def test_without_usable_metadata(tmp_path, storage, metadata):
    path = record(tmp_path / "bag", storage=storage) / "metadata.yaml"
    content = {
        "empty": b"",
        "half": path.read_bytes()[: path.stat().st_size // 3],
        "binary": bytes(range(256)),
        "another": b"[1, 2]",
    }
    if metadata == "missing":
        path.unlink()
    else:
        path.write_bytes(content[metadata])
    assert_frames(read(path.parent), range(5))


@pytest.mark.parametrize("storage", STORAGES)
def test_a_storage_file_by_itself(tmp_path, storage):
    file = storage_file(record(tmp_path / "bag", storage=storage))
    odd = tmp_path / f"100% of it? #1{file.suffix}"
    file.rename(odd)
    assert_frames(read(odd), range(5))


@pytest.mark.parametrize("storage", STORAGES)
def test_split_recordings_are_read_in_time_order(tmp_path, storage):
    path = tmp_path / "split"
    path.mkdir()
    names = []
    for part in (1, 0, 2):
        with RecordingWriter(tmp_path / f"part_{part}", storage) as writer:
            for index in range(3 * part, 3 * part + 3):
                writer.write(TOPIC, raw_image(index), IMAGE_TYPE, stamp(index))
        file = storage_file(tmp_path / f"part_{part}")
        names.append(file.name)
        file.rename(path / file.name)
    assert_frames(read(path), range(9))
    metadata = {"rosbag2_bagfile_information": {"relative_file_paths": [f"split/{name}" for name in names]}}
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    assert_frames(read(path), range(9))

    (path / names[0]).write_bytes(b"")
    messages, text = read_damaged(path)
    assert_frames(messages, [0, 1, 2, 6, 7, 8])
    assert names[0] in text
    assert "empty" in text
    assert "6 messages" in text

    (path / names[0]).unlink()
    messages, text = read_damaged(path)
    assert not messages
    assert names[0] in text


@pytest.mark.parametrize(
    ("mode", "plugin"),
    [
        (CompressionMode.FILE, StoragePlugin.MCAP),
        (CompressionMode.FILE, StoragePlugin.SQLITE3),
        (CompressionMode.MESSAGE, StoragePlugin.MCAP),
        (CompressionMode.MESSAGE, StoragePlugin.SQLITE3),
        (CompressionMode.STORAGE, StoragePlugin.MCAP),
    ],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_rosbag2_compression(tmp_path, mode, plugin, metadata):
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE_TYPE, typestore=TYPES)
        for index in range(4):
            writer.write(connection, stamp(index), raw_image(index))
    if not metadata:
        (tmp_path / "bag/metadata.yaml").unlink()
    assert_frames(read(tmp_path / "bag"), range(4))


@pytest.mark.parametrize("storage", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_metadata_with_policies_by_name(tmp_path, storage):
    """As version 9 writes them: a list, where they were a string."""
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=storage)
    with writer:
        connection = writer.add_connection(TOPIC, IMAGE_TYPE, typestore=TYPES)
        for index in range(4):
            writer.write(connection, stamp(index), raw_image(index))
    path = tmp_path / "bag/metadata.yaml"
    metadata = yaml.safe_load(path.read_text())
    (topic,) = metadata["rosbag2_bagfile_information"]["topics_with_message_count"]
    forever = {"sec": 9223372036, "nsec": 854775807}
    topic["topic_metadata"]["offered_qos_profiles"] = [{"history": "unknown", "depth": 0, "deadline": forever}]
    path.write_text(yaml.safe_dump(metadata))
    assert_frames(read(tmp_path / "bag"), range(4))


def test_an_mcap_topic_in_two_channels(tmp_path):
    """Of two publishers, or two definitions of one type, one of them empty."""
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = McapWriter(file)
        writer.start("ros2", "test")
        schemas = [writer.register_schema(IMAGE_TYPE, "ros2msg", text) for text in (b"", b"uint32 height")]
        channels = [writer.register_channel(TOPIC, "cdr", schema) for schema in schemas]
        for index in range(6):
            writer.add_message(channels[index % 2], stamp(index), raw_image(index), stamp(index))
        writer.finish()
    assert_frames(read(tmp_path / "a.mcap"), range(6))
    with Recording(tmp_path / "a.mcap") as recording:
        assert recording.topics[TOPIC].count == 6


def test_files_that_systems_leave_behind_are_no_part_of_a_recording(tmp_path):
    path = record(tmp_path / "bag", storage="mcap")
    (path / "metadata.yaml").unlink()
    for file in list(path.glob("*.mcap")):
        file.with_name(f"._{file.name}").write_bytes(b"left behind")
    assert read(path)


def test_damaged_message_and_file_compression(tmp_path):
    with RecordingWriter(tmp_path / "bag", "sqlite3") as writer:
        for index in range(3):
            packed = zstandard.compress(raw_image(index))
            writer.write(TOPIC, packed[:40] if index == 1 else packed, IMAGE_TYPE, stamp(index))
    messages, _ = read_damaged(tmp_path / "bag")
    assert_frames(messages, [0, 2])

    whole = storage_file(record(tmp_path / "whole", 30, "mcap", 100, 100))
    packed = tmp_path / "cut.mcap.zstd"
    packed.write_bytes(zstandard.compress(whole.read_bytes())[: whole.stat().st_size // 2])
    messages, _ = read_damaged(packed)
    assert 5 <= len(messages) < 30
    assert_frames(messages, range(len(messages)), 100, 100)


def write_old_sqlite(path: Path, type_name: str = "sensor_msgs/Image") -> Path:
    """A storage file as ROS 2 Dashing wrote it in 2019."""
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,"
        " serialization_format TEXT NOT NULL);"
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL,"
        " data BLOB NOT NULL);"
        "CREATE INDEX timestamp_idx ON messages (timestamp ASC);"
    )
    database.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr')", (TOPIC, type_name))
    database.execute("INSERT INTO topics VALUES (2, '/wheel', 'maker_msgs/Wheel', 'cdr')")
    for index in range(5):
        insert = "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)"
        database.execute(insert, (1, stamp(index), raw_image(index)))
        database.execute(insert, (2, stamp(index), b"\0\1\0\0whatever"))
    database.commit()
    database.close()
    return path


def test_type_names_of_2019(tmp_path):
    path = write_old_sqlite(tmp_path / "old.db3")
    with Recording(path) as recording:
        assert find_image_topic(recording) == TOPIC
        assert recording.topics[TOPIC].type == IMAGE_TYPE
        messages = list(recording.messages([TOPIC]))
        np.testing.assert_array_equal(decode(recording.deserialize(messages[3])), frame(3))
    assert_frames(messages, range(5))


def test_unknown_types_disturb_only_who_wants_them(tmp_path):
    with Recording(write_old_sqlite(tmp_path / "old.db3")) as recording:
        assert recording.topics["/wheel"].type == "maker_msgs/msg/Wheel"
        message = next(recording.messages(["/wheel"]))
        with pytest.raises(RecordingError, match="maker_msgs/msg/Wheel"):
            recording.deserialize(message)


@pytest.mark.parametrize("raw", [b"\0\1\0\0" + bytes(8), b"\0\1\0\0" + b"\xff" * 60, raw_image(0)[:-9], b"\7" * 40])
def test_damaged_messages_cannot_be_deserialised(tmp_path, raw):
    with RecordingWriter(tmp_path / "bag") as writer:
        writer.write(TOPIC, raw, IMAGE_TYPE, stamp(0))
    with Recording(tmp_path / "bag") as recording:
        (message,) = recording.messages()
        with pytest.raises(RecordingError, match=f"{TOPIC}.*{stamp(0)}"):
            recording.deserialize(message)


@pytest.mark.parametrize("suffixes", [("-wal",), ("-wal", "-shm")])
def test_sqlite_rows_still_in_the_write_ahead_log_are_read(tmp_path, suffixes):
    source = tmp_path / "source.db3"
    write_old_sqlite(source)
    database = sqlite3.connect(source)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)", (stamp(5), raw_image(5)))
    database.commit()
    folder = tmp_path / "killed"  # what a recorder leaves behind that was killed, or what was copied of that
    folder.mkdir()
    killed = folder / "drive.db3"
    shutil.copy(source, killed)
    for suffix in suffixes:
        shutil.copy(f"{source}{suffix}", f"{killed}{suffix}")
    database.close()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    for path in (*folder.iterdir(), folder):
        path.chmod(path.stat().st_mode & 0o555)
    with Recording(killed) as recording:
        assert_frames(list(recording.messages([TOPIC])), range(6))
        there = {path.name for path in folder.iterdir()}  # root may write there all the same
    assert there == {f"drive.db3{suffix}" for suffix in ("", *suffixes)}
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name for path in folder.iterdir()} == there
    folder.chmod(0o755)


MCAP_KINDS: dict[str, dict[str, Any]] = {
    "chunks": {"compression": CompressionType.NONE},
    "zstd": {"compression": CompressionType.ZSTD},
    "lz4": {"compression": CompressionType.LZ4},
    "no chunks": {"use_chunking": False},
    "no summary": {
        "use_chunking": False,
        "use_summary_offsets": False,
        "use_statistics": False,
        "index_types": IndexType.NONE,
    },
}


def write_mcap(path: Path, kind: str, order: list[int], encoding: str = "cdr", chunk_size: int = 900) -> Path:
    """A storage file as recorders with other settings write it, by mcap's own writer."""
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=chunk_size, **MCAP_KINDS[kind])
        writer.start("ros2", "test")
        schema = writer.register_schema(IMAGE_TYPE, "ros2msg", b"")
        channel = writer.register_channel(TOPIC, encoding, schema)
        for index in order:
            writer.add_message(channel, stamp(index), raw_image(index), stamp(index))
        writer.finish()
    return path


def write_mixed_mcap(path: Path, kind: str = "zstd") -> Path:
    """The first frames in a chunk, the others as records of their own behind it."""
    with path.open("wb") as file:
        writer = McapWriter(file, chunk_size=10**6, **MCAP_KINDS[kind])
        writer.start("ros2", "test")
        channel = writer.register_channel(TOPIC, "cdr", writer.register_schema(IMAGE_TYPE, "ros2msg", b""))
        for index in range(10):
            if index == 5:
                writer._Writer__finalize_chunk()
                writer._Writer__chunk_builder = None
            writer.add_message(channel, stamp(index), raw_image(index), stamp(index))
        writer.finish()
    return path


@pytest.mark.parametrize("kind", ["chunks", "zstd", "lz4"])
def test_mcap_with_messages_outside_of_its_chunks(tmp_path, kind):
    path = write_mixed_mcap(tmp_path / "a.mcap", kind)
    assert_frames(read(path), range(10))
    with Recording(path) as recording:
        assert recording.topics[TOPIC].count == 10


def alter_statistics(path: Path, count: int) -> None:
    """Have an mcap file's statistics tell of another number of messages."""
    with path.open("rb") as file:
        statistics = SeekingReader(file).get_summary().statistics
    content = path.read_bytes()
    said = struct.pack("<QHI", statistics.message_count, statistics.schema_count, statistics.channel_count)
    at = content.rindex(said)
    path.write_bytes(content[:at] + struct.pack("<Q", count) + content[at + 8 :])


def test_fewer_messages_than_an_mcap_file_tells_of_are_damage(tmp_path):
    path = write_mixed_mcap(tmp_path / "a.mcap")
    alter_statistics(path, 12)
    messages, text = read_damaged(path)
    assert_frames(messages, range(10))
    assert "holds 10 messages, its statistics say 12" in text


@pytest.mark.parametrize("left_out", ["repeat_channels", "repeat_schemas"])
def test_an_mcap_index_that_does_not_say_what_its_messages_are(tmp_path, monkeypatch, left_out):
    monkeypatch.setitem(MCAP_KINDS, "zstd", {**MCAP_KINDS["zstd"], left_out: False})
    assert_frames(read(write_mcap(tmp_path / "a.mcap", "zstd", list(range(8)))), range(8))


def test_an_indexed_mcap_is_not_read_to_be_opened(tmp_path, monkeypatch):
    path = write_mcap(tmp_path / "a.mcap", "zstd", list(range(8)))
    monkeypatch.setattr(McapFile, "_scan", lambda _: pytest.fail("it was read from its start"))
    assert_frames(read(path), range(8))
    assert_frames(read(record(tmp_path / "bag")), range(5))


@pytest.mark.parametrize("kind", MCAP_KINDS)
def test_mcap_of_every_kind(tmp_path, kind):
    path = write_mcap(tmp_path / "a.mcap", kind, [1, 0, 2, 5, 3, 4, 6, 7])
    assert_frames(read(path), range(8))
    with Recording(path) as recording:
        assert recording.topics[TOPIC].count == 8


def sqlite_of_many(path: Path) -> Path:
    return storage_file(record(path.with_suffix(""), 24, "sqlite3", 12, 12))


WHOLE_FILES: dict[str, Callable[[Path], Path]] = {
    **{kind: lambda path, kind=kind: write_mcap(path, kind, list(range(8))) for kind in MCAP_KINDS},
    "sqlite3": sqlite_of_many,
    "old sqlite3": write_old_sqlite,
}


@pytest.fixture(scope="module", params=list(WHOLE_FILES))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Message]]:
    path = WHOLE_FILES[request.param](tmp_path_factory.mktemp("whole") / "whole.bin")
    named = path.with_name("file.db3" if "sqlite" in request.param else "file.mcap")
    path.rename(named)
    return named, read(named)


def test_files_cut_anywhere_give_what_lies_before_the_cut_and_one_error(whole, tmp_path):
    path, messages = whole
    content = path.read_bytes()
    cut = tmp_path / path.name
    previous = 0
    for length in range(0, len(content), max(1, len(content) // 150)):
        cut.write_bytes(content[:length])
        got, error = attempt(cut)
        if error is None:
            assert got == messages  # only the index was cut off
        else:
            assert str(cut) in error
            assert not got or f"{len(got)} messages" in error
        if path.suffix == ".mcap":
            assert got == messages[: len(got)]
        else:  # SQLite moves its first page of rows when the second begins
            assert got == [message for message in messages if message in got]
        assert len(got) >= previous
        previous = len(got)
    assert previous >= len(messages) - 4  # what shares SQLite's last page


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.8, 0.99])
@pytest.mark.parametrize(("storage", "margin"), [("mcap", 3), ("sqlite3", 30)])  # of 400; SQLite's own pages come first
def test_most_of_what_lies_before_the_cut_is_kept(tmp_path, fraction, storage, margin):
    whole = storage_file(record(tmp_path / "bag", 400, storage, 10, 30))
    content = whole.read_bytes()
    whole.write_bytes(content[: int(fraction * len(content))])
    messages, text = read_damaged(whole.parent)
    assert "cut" in text
    assert whole.name in text
    assert len(messages) >= fraction * 400 - margin
    assert_frames(messages, range(len(messages)), 10, 30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_altered_bytes_never_end_in_anything_but_an_error_of_ours(whole, tmp_path, data):
    path, _ = whole
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        new = data.draw(st.binary(min_size=1, max_size=12))
        content[start : start + len(new)] = new
    altered = tmp_path / path.name
    altered.write_bytes(content)
    messages, error = attempt(altered)
    assert error is None or str(altered) in error
    for message in messages:
        with contextlib.suppress(RecordingError):
            Recording(altered).deserialize(message)


def test_what_a_disk_altered_is_told_and_left_out(tmp_path):
    """One bit of a pixel, in a recording of our own."""
    path = storage_file(record(tmp_path / "bag", 5))
    content = bytearray(path.read_bytes())
    content[content.index(frame(3).tobytes()) + 20] ^= 1
    path.write_bytes(content)
    messages, error = read_damaged(path)
    assert messages == []
    assert "is altered: its checksum or its length is wrong" in error


def test_an_altered_chunk_is_left_out(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", "chunks", list(range(12)))
    content = path.read_bytes()
    at = content.index(raw_image(5)[60:])
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    messages, text = read_damaged(path)
    stamps = [message.stamp_ns for message in messages]
    assert stamp(5) not in stamps
    assert {stamp(0), stamp(11)} <= set(stamps)
    assert "chunk" in text


@pytest.mark.parametrize("wrong", [2**60, 2**64 - 1, 5])
def test_an_index_that_points_elsewhere(tmp_path, wrong):
    path = write_mcap(tmp_path / "a.mcap", "zstd", list(range(12)))
    with path.open("rb") as file:
        summary = SeekingReader(file).get_summary()
    assert summary is not None
    chunk = summary.chunk_indexes[1]
    content = path.read_bytes()
    at = content.rindex(struct.pack("<QQ", chunk.chunk_start_offset, chunk.chunk_length))
    path.write_bytes(content[:at] + struct.pack("<Q", wrong) + content[at + 8 :])
    messages, text = read_damaged(path)
    stamps = [message.stamp_ns for message in messages]
    assert stamps == [stamp(i) for i in range(12) if not chunk.message_start_time <= stamp(i) <= chunk.message_end_time]
    assert "altered" in text or "no mcap record" in text


def test_a_tail_of_zeros_is_no_message(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", "chunks", list(range(8)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    messages, _ = read_damaged(path)
    assert_frames(messages, range(len(messages)))
    assert messages


@pytest.mark.parametrize("name", ["drive.bag", "folder"])
def test_ros1_bags_are_told_apart(tmp_path, name):
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"#ROSBAG V2.0\n")
    else:
        path.mkdir()
        (path / "drive.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(RecordingError, match=r"ROS 1.*rosbags-convert"), Recording(path):
        pass


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("absent", None, "no such recording"),
        ("picture.jpg", b"\xff\xd8", "is no recording"),
        ("empty.mcap", b"", "empty"),
        ("text.mcap", b"hello world, hello world", "hello wo"),
        ("text.db3", b"hello world, hello world", "hello wo"),
        ("packed.mcap.zstd", b"hello world, hello world", "compression is damaged"),
    ],
)
def test_what_is_no_recording(tmp_path, name, content, found):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    messages, text = read_damaged(path)
    assert not messages
    assert found in text


def test_an_empty_directory_is_no_recording(tmp_path):
    with pytest.raises(RecordingError, match=r"holds no recording.*\.mcap"), Recording(tmp_path):
        pass


def test_messages_of_another_serialisation(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", "chunks", [0], encoding="ros1")
    with pytest.raises(RecordingError, match=r"ros1.*cdr"), Recording(path):
        pass


def topics(tmp_path: Path, *names: str, type_name: str = IMAGE_TYPE) -> Path:
    with RecordingWriter(tmp_path / "bag") as writer:
        for name in names:
            writer.write(name, raw_image(0), type_name, stamp(0))
    return tmp_path / "bag"


def test_the_only_image_topic_is_found(tmp_path):
    path = topics(tmp_path, "/front/reference/image", TOPIC, "/front/reference/mask", "/front/coop/overlay")
    with Recording(path) as recording:
        assert find_image_topic(recording) == TOPIC
        assert find_image_topic(recording, "/front/coop/overlay") == "/front/coop/overlay"
        with pytest.raises(RecordingError, match=f"no topic /rear.*{TOPIC}"):
            find_image_topic(recording, "/rear")


def test_several_image_topics_need_a_choice(tmp_path):
    with Recording(topics(tmp_path, TOPIC, "/rear/image_raw")) as recording:
        with pytest.raises(RecordingError) as error:
            find_image_topic(recording)
        assert find_image_topic(recording, "/rear/image_raw") == "/rear/image_raw"
    for text in (TOPIC, "/rear/image_raw", "--image-topic", "TOPIC="):
        assert text in str(error.value)


@pytest.mark.parametrize(("raw", "taken"), [(9, TOPIC), (2, f"{TOPIC}/compressed")])
def test_a_camera_is_taken_in_the_transport_that_has_its_images(tmp_path, raw, taken):
    """Raw ones were recorded for a moment only; and of the other camera, nothing."""
    path = tmp_path / "bag"
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        types = get_typestore(Stores.ROS2_JAZZY)
        connections = {
            name: writer.add_connection(name, kind, typestore=types)
            for name, kind in (
                (TOPIC, IMAGE_TYPE),
                (f"{TOPIC}/compressed", COMPRESSED_IMAGE_TYPE),
                ("/rear/image_raw", IMAGE_TYPE),
            )
        }
        for index in range(10):
            message = compressed_image_message(frame(index), "png", "front", stamp(index))
            content = types.serialize_cdr(message, COMPRESSED_IMAGE_TYPE)
            writer.write(connections[f"{TOPIC}/compressed"], stamp(index), content)
            if index < raw:
                writer.write(connections[TOPIC], stamp(index), raw_image(index, 6, 8))
    with Recording(path) as recording:
        assert image_topics(recording) == [taken]
        assert empty_cameras(recording) == ["/rear/image_raw"]


def test_a_recording_without_images_lists_its_topics(tmp_path):
    path = topics(tmp_path, "/speed", type_name="std_msgs/msg/Float32")
    with Recording(path) as recording:
        with pytest.raises(RecordingError, match=r"no image topic.*/speed \(std_msgs/msg/Float32, 1\)"):
            find_image_topic(recording)
        with pytest.raises(RecordingError, match=r"/speed holds no images"):
            find_image_topic(recording, "/speed")


@pytest.mark.parametrize(
    ("topic", "camera"),
    [(TOPIC, "/front"), (f"{TOPIC}/compressed", "/front"), ("/car/left/image", "/car/left"), ("/image_raw", "")],
)
def test_names_that_go_with_an_image_topic(topic, camera):
    assert camera_prefix(topic) == camera
    assert reference_image_topic(topic) == f"{camera}/reference/image"
    assert reference_mask_topic(topic) == f"{camera}/reference/mask"


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_appears_only_when_it_is_complete(tmp_path, storage):
    def write_and_fail() -> None:
        with RecordingWriter(tmp_path / "bag", storage) as writer:
            writer.write(TOPIC, raw_image(0), IMAGE_TYPE, stamp(0))
            assert not (tmp_path / "bag").exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_does_not_disturb_the_next(tmp_path):
    left = tmp_path / ".bag.partial" / "new" / "bag"
    left.mkdir(parents=True)
    (left / "bag.mcap").write_bytes(b"half")
    assert_frames(read(record(tmp_path / "bag")), range(5))
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_only_earlier_recordings_are_replaced_and_only_on_demand(tmp_path):
    path = record(tmp_path / "bag", 2)
    with pytest.raises(RecordingError, match="exists already"), RecordingWriter(path):
        pass
    assert len(read(path)) == 2
    with RecordingWriter(path, overwrite=True) as writer:
        writer.write(TOPIC, raw_image(0), IMAGE_TYPE, stamp(0))
    assert len(read(path)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    with pytest.raises(RecordingError, match="no recording"), RecordingWriter(precious, overwrite=True):
        pass
    assert (precious / "thesis.tex").exists()


@pytest.mark.parametrize("storage", STORAGES)
def test_what_cannot_be_read_back_takes_no_place(tmp_path, monkeypatch, storage):
    path = record(tmp_path / "bag", 2, storage)

    def lost(self: Writer, *_: object) -> None:
        next(self.path.glob("*.[md][cb]*")).unlink()

    close = Writer.close
    monkeypatch.setattr(Writer, "close", lambda self: (close(self), lost(self)))
    with pytest.raises(RecordingError, match=r"metadata\.yaml names bag\.(mcap|db3), which the directory lacks"):
        write_images(path, 1, storage)
    assert len(read(path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["bag"]


def test_what_cannot_be_written(tmp_path):
    with RecordingWriter(tmp_path / "bag") as writer:
        with pytest.raises(RecordingError, match="maker_msgs/msg/Wheel"):
            writer.write("/wheel", b"", "maker_msgs/msg/Wheel", 0)
        writer.write(TOPIC, raw_image(0), IMAGE_TYPE, stamp(0))
        with pytest.raises(RecordingError, match=f"{TOPIC}.*CompressedImage"):
            writer.write(TOPIC, b"", COMPRESSED_IMAGE_TYPE, 0)


def test_rclpy_reads_what_is_written_and_is_read_back(tmp_path):
    message = deserialize_message(raw_image(3), Image)
    np.testing.assert_array_equal(decode(message), frame(3))
    with RecordingWriter(tmp_path / "bag") as writer:
        writer.write(TOPIC, serialize_message(message), IMAGE_TYPE, stamp(3))
    with Recording(tmp_path / "bag") as recording:
        (recorded,) = recording.messages()
        np.testing.assert_array_equal(decode(recording.deserialize(recorded)), frame(3))


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process may grow beyond 2.5 MB, which writing meets with the error of a full disk's kind."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_images(path: Path, count: int, storage: Storage = "mcap") -> None:
    with RecordingWriter(path, storage, overwrite=True) as writer:
        for index in range(count):
            writer.write(TOPIC, raw_image(index, 240, 320), IMAGE_TYPE, stamp(index))


def test_on_a_full_disk_what_was_written_is_kept(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(RecordingError, match=r"bag: recording failed .*written before is in .*bag_incomplete\. Free"):
        write_images(tmp_path / "bag", 100)
    assert [path.name for path in tmp_path.iterdir()] == ["bag_incomplete"]
    messages: list[Message] = []
    with Recording(tmp_path / "bag_incomplete") as recording, contextlib.suppress(RecordingError):  # it was cut
        messages.extend(recording.messages())
    assert [m.raw for m in messages] == [raw_image(index, 240, 320) for index in range(len(messages))]
    assert len(messages) >= 5  # of the ten that fit
    with pytest.raises(RecordingError, match=r"written before is in .*bag_incomplete_2\. Free"):
        write_images(tmp_path / "bag", 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag_incomplete", "bag_incomplete_2"]


def test_a_disk_that_is_full_at_the_very_end(tmp_path: Path, full_disk: None) -> None:
    """The last block is written when the recording is closed; an earlier recording of the name stays."""
    write_images(tmp_path / "bag", 1)
    with pytest.raises(RecordingError, match="recording failed"):
        write_images(tmp_path / "bag", 11)
    with Recording(tmp_path / "bag") as recording:
        assert [message.stamp_ns for message in recording.messages()] == [stamp(0)]


def test_sqlite_keeps_nothing_on_a_full_disk_and_says_so(tmp_path: Path, full_disk: None) -> None:
    with pytest.raises(RecordingError, match=r"recording failed .*Nothing of it is kept"):
        write_images(tmp_path / "bag", 100, "sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_a_storage_file_that_metadata_does_not_name_is_said_and_not_read(tmp_path: Path) -> None:
    recording = record(tmp_path / "bag", 3)
    shutil.copy(storage_file(record(tmp_path / "later", 2)), recording / "bag_1.mcap")
    with Recording(recording) as opened:
        messages = opened.messages()
        assert [next(messages).stamp_ns for _ in range(3)] == [stamp(index) for index in range(3)]
        with pytest.raises(RecordingError, match=r"bag_1\.mcap: metadata\.yaml does not name it, so it was not read"):
            next(messages)


def test_copies_of_one_storage_file_are_not_read_twice(tmp_path: Path) -> None:
    """`ros2 bag` leaves the packed file beside the unpacked one."""
    recording = record(tmp_path / "bag", 3)
    file = storage_file(recording)
    file.with_name(f"{file.name}.zstd").write_bytes(zstandard.compress(file.read_bytes()))
    assert len(read(recording)) == 3
    (recording / "metadata.yaml").unlink()
    with pytest.raises(RecordingError, match=rf"holds {file.name} and {file.name}\.zstd, copies of the same messages"):
        read(recording)
    assert len(read(file)) == 3


@pytest.mark.parametrize("named", [False, True])
def test_copies_under_another_name_are_not_read_twice(tmp_path: Path, named: bool) -> None:
    """As file managers make them; `ros2 bag reindex` names whatever lies there."""
    recording = record(tmp_path / "bag", 3)
    file, metadata = storage_file(recording), recording / "metadata.yaml"
    shutil.copy(file, copy := file.with_name(f"{file.stem} (1){file.suffix}"))
    between = file.with_name(f"{file.stem} (0){file.suffix}")  # as large, and no copy
    between.write_bytes(file.read_bytes()[::-1])
    if named:
        content = yaml.safe_load(metadata.read_text())
        content["rosbag2_bagfile_information"]["relative_file_paths"] += [between.name, copy.name]
        metadata.write_text(yaml.safe_dump(content))
    else:
        metadata.unlink()
    with pytest.raises(RecordingError, match="copies of the same messages") as refused:
        read(recording)
    assert copy.name in str(refused.value)
