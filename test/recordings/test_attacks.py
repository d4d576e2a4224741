"""Recordings that were made to do harm: one line, little memory, an end, and the good frames around the bad ones."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import pytest
import yaml
import zstandard
from mcap.reader import SeekingReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from test_recordings import TOPIC, attempt, read, record, stamp, storage_file

from coop_perception.recordings import recording as recording_module
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import IMAGE_TYPE
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.recordings.sqlite_file import _Pages
from coop_perception.recordings.sqlite_tables import interruptible, reason

GB = 2**30
READ = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.recordings.frames import frames
count, error = 0, ""
print("reading", flush=True)
try:
    with Recording(Path(sys.argv[1])) as recording:
        for _ in frames(recording, list(recording.topics)):
            count += 1
except RecordingError as caught:
    error = str(caught)
print(json.dumps([count, error]))
"""


def reader(path: Path, memory: int = GB) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", READ, str(path), str(memory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_bounded(path: Path, memory: int = GB) -> tuple[int, str]:
    """Frames read, and the one line at their end, of a process that has so much memory and two minutes."""
    with reader(path, memory) as process:
        try:
            out, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert not errors
    count, error = json.loads(out.splitlines()[-1])
    assert "\n" not in error
    return count, error


def altered(path: Path, *statements: str) -> Path:
    """A sqlite3 recording, after somebody had an SQL shell."""
    recording = record(path, 5, "sqlite3")
    (recording / "metadata.yaml").unlink()
    with sqlite3.connect(storage_file(recording)) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
    return recording


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
COLUMNS = "i AS id, 1 AS topic_id, i AS timestamp, zeroblob(100) AS data"
VIEWS = {
    "endless rows": ["DROP TABLE messages", f"CREATE VIEW messages AS {ENDLESS} SELECT {COLUMNS} FROM n"],
    "endless without a row": [
        "DROP TABLE messages",
        f"CREATE VIEW messages AS {ENDLESS} SELECT {COLUMNS} FROM n WHERE i < 0",
    ],
    "topics": [
        "DROP TABLE topics",
        f"CREATE VIEW topics AS {ENDLESS} SELECT i AS id, 'a' AS name, 'b' AS type, 'c' AS serialization_format FROM n",
    ],
    "a name in capitals": [
        "ALTER TABLE messages RENAME TO other",
        f"CREATE VIEW Messages AS {ENDLESS} SELECT {COLUMNS} FROM n",
    ],
    "a computed column": [
        "ALTER TABLE messages RENAME COLUMN timestamp TO other",
        "ALTER TABLE messages ADD COLUMN timestamp AS (length(hex(hex(hex(zeroblob(10000000))))))",
    ],
    "a column rowid": ["ALTER TABLE messages ADD COLUMN rowid"],
    "a virtual table": ["DROP TABLE messages", "CREATE VIRTUAL TABLE messages USING fts5(topic_id, timestamp, data)"],
}


@pytest.mark.parametrize("kind", VIEWS)
def test_what_is_no_table_of_messages_is_not_asked(tmp_path: Path, kind: str) -> None:
    count, error = read_bounded(altered(tmp_path / "bag", *VIEWS[kind]))
    assert count == 0
    assert "expected one table" in error or "columns that no recorder makes" in error


def test_ctrl_c_ends_a_query(tmp_path: Path) -> None:
    recording = altered(tmp_path / "bag")
    database = sqlite3.connect(storage_file(recording))
    interruptible(database)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(sqlite3.Error) as caught:
            database.execute(f"{ENDLESS} SELECT max(i) FROM n").fetchall()
        with pytest.raises(KeyboardInterrupt):
            reason(caught.value)
    finally:
        signal.signal(signal.SIGALRM, before)
        database.close()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("UPDATE messages SET data = 'text' WHERE id = 3", "row 3 of its messages holds text of length 4"),
        ("UPDATE messages SET data = 1000000000000 WHERE id = 3", "row 3 of its messages holds integer"),
        ("UPDATE messages SET data = 3.5 WHERE id = 3", "row 3 of its messages holds real"),
        ("UPDATE messages SET data = x'' WHERE id = 3", "has 0 bytes, 12 at least"),
        ("UPDATE messages SET data = x'00010000' WHERE id = 3", "has 4 bytes, 12 at least"),
        ("UPDATE messages SET data = zeroblob(300000000) WHERE id = 3", "holds blob of length 300000000"),
        ("UPDATE messages SET timestamp = 'soon' WHERE id = 3", ""),
        ("UPDATE messages SET timestamp = zeroblob(1000) WHERE id = 3", ""),
        ("UPDATE messages SET topic_id = 'front' WHERE id = 3", ""),
        ("UPDATE messages SET topic_id = 99 WHERE id = 3", ""),
    ],
)
def test_one_bad_row_costs_itself_alone(tmp_path: Path, change: str, says: str) -> None:
    messages, error = attempt(altered(tmp_path / "bag", change))
    assert [message.stamp_ns for message in messages] == [stamp(index) for index in (0, 1, 3, 4)]
    assert says in (error or "")
    assert bool(error) == bool(says)


def test_a_bad_row_of_topics_costs_its_topic_alone(tmp_path: Path) -> None:
    row = "INSERT INTO topics VALUES (9, x'00', 1, 2, '', '')"
    messages, _ = attempt(altered(tmp_path / "bag", row))
    assert len(messages) == 5


def varint(value: int, length: int) -> bytes:
    """As SQLite writes one, in so many bytes."""
    return bytes((value >> 7 * (length - 1 - i) & 0x7F) | 0x80 * (i < length - 1) for i in range(length))


def test_overflow_pages_in_a_loop(tmp_path: Path) -> None:
    """The middle one of three frames claims to have 134 MB, of one page over and over; its file has 7 MB."""
    size = 2_300_000
    recording = record(tmp_path / "bag", 3, "sqlite3", 1000, size // 3000)
    (recording / "metadata.yaml").unlink()
    file = storage_file(recording)
    pages = _Pages(file)
    _, position, _ = list(pages.rows())[1]
    cell = pages._cell(position)
    assert cell is not None
    here, _ = pages._sizes(cell.payload_size)
    blob = cell.payload_size - cell.blob
    data = bytearray(file.read_bytes())
    page_size = struct.unpack_from(">H", data, 16)[0]
    (first,) = struct.unpack_from(">I", data, cell.payload + here)
    struct.pack_into(">I", data, (first - 1) * page_size, first)
    claimed = (2**28 - 14) // 2 - 8192
    # The claim's own part in the cell is as long as before, so that the link stays where it is.
    usable = page_size - 4
    claimed -= (claimed - blob) % usable
    for old, new in ((12 + 2 * blob, 12 + 2 * claimed), (cell.payload_size, cell.payload_size - blob + claimed)):
        at = data.index(varint(old, 4), position, cell.payload + 20)
        data[at : at + 4] = varint(new, 4)
    file.write_bytes(data)
    count, error = read_bounded(recording)
    assert count == 2
    assert f"row 2 of its messages holds blob of length {claimed}" in error
    # The same, of a file whose tree is not in order.
    file.write_bytes(data[:-page_size])
    count, error = read_bounded(recording)
    assert count == 1
    assert error


def test_a_page_that_is_in_its_tree_over_and_over(tmp_path: Path) -> None:
    """Each frame is read once. With more levels a small file would list rows without end."""
    recording = record(tmp_path / "bag", 300, "sqlite3")
    (recording / "metadata.yaml").unlink()
    file = storage_file(recording)
    with sqlite3.connect(file) as database:
        (root,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    database.close()
    data = bytearray(file.read_bytes())
    page = (root - 1) * struct.unpack_from(">H", data, 16)[0]
    assert data[page] == 5  # leads to others
    (count,) = struct.unpack_from(">H", data, page + 3)
    cells = [page + cell for cell in struct.unpack_from(f">{count}H", data, page + 12)]
    for cell in cells[1:]:
        data[cell : cell + 4] = data[cells[0] : cells[0] + 4]
    file.write_bytes(data)
    messages, error = attempt(recording)
    assert [message.stamp_ns for message in messages] == list(map(stamp, range(300)))
    assert "row 1 of its messages comes behind row" in str(error)


def mcap_with(path: Path, payloads: list[bytes], compression: CompressionType = CompressionType.ZSTD) -> Path:
    """Each message in a chunk of its own."""
    with path.open("wb") as file:
        writer = McapWriter(file, compression=compression, chunk_size=1)
        writer.start()
        schema = writer.register_schema(IMAGE_TYPE, "ros2msg", b"")
        channel = writer.register_channel(TOPIC, "cdr", schema)
        for index, payload in enumerate(payloads):
            writer.add_message(channel, stamp(index), payload, stamp(index), index)
        writer.finish()
    return path


def image(index: int, size: int = 100) -> bytes:
    return b"\0\1\0\0" + struct.pack("<iI", index, 0) + bytes(size)


@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4])
@pytest.mark.parametrize("declared", [None, 1000, 2**40])
def test_a_chunk_that_unpacks_to_gigabytes(tmp_path: Path, compression: CompressionType, declared: int | None) -> None:
    """The frames before and after it are read."""
    path = mcap_with(tmp_path / "bag.mcap", [image(0), image(1, 10), image(2)], compression)
    bomb = b"".join(zstd_zeros(GB)) if compression == CompressionType.ZSTD else lz4_zeros(GB)
    data = path.read_bytes()
    chunks = []
    position = 8
    while position < len(data) - 8:
        opcode, length = struct.unpack_from("<BQ", data, position)
        if opcode == 6:
            chunks.append((position, length))
        position += 9 + length
    at, _ = chunks[1]
    start, end, _, _, name = struct.unpack_from("<QQQII", data, at + 9)
    head = struct.pack("<QQQII", start, end, GB if declared is None else declared, 0, name)
    content = head + compression.name.lower().encode() + struct.pack("<Q", len(bomb)) + bomb
    # Without an index behind it, which would have to be moved.
    last_at, last_length = chunks[2]
    path.write_bytes(
        data[:at] + struct.pack("<BQ", 6, len(content)) + content + data[last_at : last_at + 9 + last_length]
    )
    count, error = read_bounded(path)
    assert count == 2
    assert "chunk" in error


def zstd_zeros(size: int) -> list[bytes]:
    compressor = zstandard.ZstdCompressor().compressobj(size=size)
    piece = bytes(2**24)
    return [*(compressor.compress(piece) for _ in range(size // len(piece))), compressor.flush()]


def lz4_zeros(size: int) -> bytes:
    with lz4.frame.LZ4FrameCompressor() as compressor:
        piece = bytes(2**24)
        parts = [compressor.begin(), *(compressor.compress(piece) for _ in range(size // len(piece)))]
        return b"".join([*parts, compressor.flush()])


@pytest.mark.parametrize("compression", [b"\xff" * 10**6, b"x" * 10**6, b""])
def test_what_cannot_be_unpacked_is_not_written_out(tmp_path: Path, compression: bytes) -> None:
    """A chunk says how it is packed in a million bytes that are no text, or no packing; its message has a topic of
    as many."""
    path = tmp_path / "bag.mcap"
    topic = "/" + "a" * 10**6
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.NONE, use_chunking=False)
        writer.start()
        schema = writer.register_schema(IMAGE_TYPE, "ros2msg", b"")
        writer.add_message(writer.register_channel(topic, "cdr", schema), 1, image(0), 1)
        writer.add_message(writer.register_channel(topic, "cdr", schema), 2, image(0)[:5], 2)
        writer.finish()
    data = path.read_bytes()
    chunk = struct.pack("<QQQII", 0, 0, 9, 0, len(compression)) + compression + struct.pack("<Q", 9) + bytes(9)
    path.write_bytes(data[:8] + struct.pack("<BQ", 6, len(chunk)) + chunk + data[8:])
    messages, error = attempt(path)
    assert len(messages) == 1
    assert len(str(error)) < 1000


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("honest", [True, False])
def test_a_packed_message_that_unpacks_to_gigabytes(tmp_path: Path, storage: str, honest: bool) -> None:
    if honest:
        bomb = b"".join(zstd_zeros(GB))
    else:
        compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
        bomb = b"".join(compressor.compress(bytes(2**24)) for _ in range(GB >> 24)) + compressor.flush()
    payloads = [image(0), bomb, image(2)]
    if storage == "mcap":
        path = mcap_with(tmp_path / "bag.mcap", payloads)
    else:
        path = altered(tmp_path / "bag", "DELETE FROM messages")
        with sqlite3.connect(storage_file(path)) as database:
            rows = [(index, 1, stamp(index), payload) for index, payload in enumerate(payloads)]
            database.executemany("INSERT INTO messages (id, topic_id, timestamp, data) VALUES (?, ?, ?, ?)", rows)
        database.close()
    count, error = read_bounded(path)
    assert count == 2
    assert "compressed message" in error


def test_a_packed_file_does_not_fill_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was unpacked within the limit is read."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    plain = mcap_with(tmp_path / "bag.mcap", [image(index) for index in range(3)], CompressionType.NONE)
    packed = tmp_path / "packed.mcap.zstd"
    packed.write_bytes(zstandard.compress(plain.read_bytes()) + b"".join(zstd_zeros(GB)))
    with reader(packed) as process:
        largest = 0
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):  # what is looked at is being removed
                there = (tmp_path / "temporary").rglob("*")
                largest = max(largest, sum(path.stat().st_size for path in there if path.is_file()))
        out, errors = process.communicate()
    assert process.returncode == 0, errors
    count, error = json.loads(out.splitlines()[-1])
    assert count == 3
    assert "unpacks to more than" in error
    assert largest <= 2**28 + 2**21
    assert not list((tmp_path / "temporary").iterdir())


def packed_files(folder: Path) -> Path:
    """Four files of one frame each; behind the frame, each but the first unpacks to 16 MB of nothing."""
    folder.mkdir()
    for index in range(4):
        whole = mcap_with(folder / "plain", [image(index)], CompressionType.NONE)
        tail = b"".join(zstd_zeros(2**24)) if index else b""
        (folder / f"{index}.mcap.zstd").write_bytes(zstandard.compress(whole.read_bytes()) + tail)
        whole.unlink()
    return folder


def test_nor_do_many_packed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one alone may take, all may take together."""
    monkeypatch.setattr(recording_module, "_UNPACKED_FLOOR", 2**25)
    unpacked: list[int] = []
    closing = Recording.close

    def close(self: Recording) -> None:
        assert self._unpacked is not None
        unpacked.append(sum(path.stat().st_size for path in Path(self._unpacked.name).iterdir()))
        closing(self)

    monkeypatch.setattr(Recording, "close", close)
    messages, error = attempt(packed_files(tmp_path / "bag"))
    assert len(messages) == 3
    assert "2.mcap.zstd: with what was unpacked before, it unpacks to more than" in str(error)
    assert unpacked == [pytest.approx(2**25, abs=2**21)]


def test_others_are_left_room_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**22))
    messages, error = attempt(packed_files(tmp_path / "bag"))
    assert len(messages) == 4
    assert "1.mcap.zstd: it finds no room to be unpacked in" in str(error)
    assert "with 4194304 bytes free (a tenth is left for others) (and 2 more such places)" in str(error)


def test_many_frames_of_one_time_are_not_all_kept(tmp_path: Path) -> None:
    """Logged at one time, of different stamps, with a reference that never comes: 1,000 of 1 MB, packed."""
    path = tmp_path / "bag.mcap"
    with path.open("wb") as file:
        writer = McapWriter(file, compression=CompressionType.ZSTD)
        writer.start()
        schema = writer.register_schema(IMAGE_TYPE, "ros2msg", b"")
        channel = writer.register_channel(TOPIC, "cdr", schema)
        writer.add_message(writer.register_channel("/front/reference/image", "cdr", schema), 1, image(0), 1)
        for index in range(1000):
            writer.add_message(channel, 1, image(1 + index, 2**20), 1)
        writer.finish()
    count, error = read_bounded(path)
    assert (count, error) == (1001, "")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(
    "name", ["bag.mcap", "bag.db3", "bag.mcap.zstd", "bag.db3.zstd", "metadata.yaml", "wal", "shm"]
)
def test_pipes_are_not_waited_for(tmp_path: Path, name: str, storage: str) -> None:
    recording = record(tmp_path / "recording", 5, storage)
    (recording / "metadata.yaml").unlink()
    if name in ("wal", "shm"):
        name = f"{storage_file(recording).name}-{name}"
    os.mkfifo(recording / name)
    assert len(read(recording)) == 5
    if name.startswith("bag"):
        assert "is neither a folder nor a regular file" in str(attempt(recording / name)[1])


def test_a_pipe_that_metadata_names(tmp_path: Path) -> None:
    recording = record(tmp_path / "recording", 5)
    file = storage_file(recording)
    file.unlink()
    os.mkfifo(file)
    assert "which the directory lacks" in str(attempt(recording)[1])


@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 11])
def test_messages_shorter_than_a_header(tmp_path: Path, size: int) -> None:
    path = mcap_with(tmp_path / "bag.mcap", [image(0), image(1)[:size], image(2)])
    found: list[int] = []
    with Recording(path) as recording, pytest.raises(RecordingError, match=f"has {size} bytes, 12 at least"):
        found.extend(at for at, _ in frames(recording, [TOPIC]))
    assert found == [0, 2 * 10**9]


def test_an_index_that_names_one_chunk_a_thousand_times(tmp_path: Path) -> None:
    path = mcap_with(tmp_path / "bag.mcap", [image(0), image(1)])
    original = SeekingReader.get_summary

    def repeated(self: SeekingReader) -> object:
        summary = original(self)
        assert summary is not None
        summary.chunk_indexes *= 1000
        assert summary.statistics is not None
        summary.statistics = replace(summary.statistics, message_count=2000)
        return summary

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeekingReader, "get_summary", repeated)
        messages, error = attempt(path)
    assert len(messages) == 2
    assert error


def test_a_sparse_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = mcap_with(tmp_path / "bag.mcap", [image(0), image(1)])
    end = path.read_bytes()[-37:]
    with path.open("r+b") as file:
        file.truncate(40 * GB)
        file.seek(-37, os.SEEK_END)
        file.write(end)
    count, _ = read_bounded(path)
    assert count == 2


def test_lengths_beyond_every_file(tmp_path: Path) -> None:
    path = mcap_with(tmp_path / "bag.mcap", [image(0)])
    data = path.read_bytes()
    for length in (2**28 + 2**21, 2**64 - 1):
        attacked = data[:8] + struct.pack("<BQ", 5, length) + data[17:]
        path.write_bytes(attacked)
        assert read_bounded(path)[0] == 1  # by the index, which leads past it
        path.write_bytes(attacked[:-40])  # no index is found, and the records are walked through
        count, error = read_bounded(path)
        assert count == 0
        assert error


@pytest.mark.parametrize("name", ["x" * 300 + ".mcap", "a\0b.mcap", "\x1b[2J.mcap", "", ".", "/"])
def test_metadata_that_names_what_no_file_can_be_called(tmp_path: Path, name: str) -> None:
    recording = record(tmp_path / "recording", 5)
    metadata = recording / "metadata.yaml"
    content = yaml.safe_load(metadata.read_text())
    content["rosbag2_bagfile_information"]["relative_file_paths"] = [name]
    metadata.write_text(yaml.safe_dump(content))
    _, error = attempt(recording)
    assert "metadata.yaml" in str(error)
    assert str(error).isprintable()
