"""Writing rosbag2 recordings (mcap, sqlite3) without a ROS installation."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal

from rosbags.interfaces import Connection
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.rosbag2.storage_mcap import McapWriter
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer

from coop_perception.recordings.messages import TYPES
from coop_perception.recordings.recording import METADATA, SUFFIXES, Recording, RecordingError
from coop_perception.replacing import refuse_others, replacement

Storage = Literal["mcap", "sqlite3"]
_WRITE_ERRORS = (OSError, sqlite3.Error)
_CHECKSUM_AT = 1 + 8 + 3 * 8
"""In a chunk's record: behind its opcode and length, two times and the unpacked size."""


class _Sqlite3Writer(Sqlite3Writer):  # type: ignore[misc]
    """rosbags' own opens the URI `file:PATH` without quoting: `#`, `?` and `%41` in a path make it another file's."""

    def __init__(self, path: Path, _: CompressionMode) -> None:
        self.path = path / f"{path.name}.db3"
        self.conn = sqlite3.connect(self.path)
        self.conn.executescript(self.SQLITE_SCHEMA)
        self.cursor = self.conn.cursor()


class _McapWriter(McapWriter):  # type: ignore[misc]
    """rosbags' own writes no checksums, without which nobody sees what a disk altered."""

    def close_chunk(self) -> None:
        start, checksum = self.bio.tell(), zlib.crc32(self.chunk.bio.getvalue())
        super().close_chunk()
        end = self.bio.tell()
        self.bio.seek(start + _CHECKSUM_AT)
        self.bio.write(struct.pack("<I", checksum))
        self.bio.seek(end)


class _Writer(Writer):  # type: ignore[misc]
    STORAGE_PLUGINS: ClassVar = {
        **Writer.STORAGE_PLUGINS,
        StoragePlugin.SQLITE3: _Sqlite3Writer,
        StoragePlugin.MCAP: _McapWriter,
    }


class RecordingWriter:
    """Writes a rosbag2 directory, which appears under its name when it is complete. Use it in ``with``.

    Where the disk is full, what had reached it is kept (mcap only) under the name with ``_incomplete`` behind it.

    Args:
        path: directory to create.
        storage: ``mcap`` or ``sqlite3``.
        overwrite: replace an earlier recording at ``path``, which stays until this one is whole.

    Raises:
        RecordingError: ``path`` exists and may not be replaced.
        OSError: nothing can be written there, or another process writes the same recording.
    """

    def __init__(self, path: Path, storage: Storage = "mcap", overwrite: bool = False) -> None:
        self.path = path.resolve()
        self._storage = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._overwrite = overwrite
        self._connections: dict[str, Connection] = {}
        self._place = ExitStack()

    def __enter__(self) -> RecordingWriter:
        with ExitStack() as place:
            self._made = place.enter_context(replacement(self.path))  # first: it may put an earlier recording back
            self._check_replaceable()
            # rosbags names the file inside after its directory, so that must have its final name already. Version 8 of
            # the format is the newest that Humble reads.
            self._writer = _Writer(self._made, version=8, storage_plugin=self._storage)
            self._writer.open()
            self._place = place.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._place:
            try:
                self._writer.__exit__(kind, error, traceback)
            except _WRITE_ERRORS as failure:
                raise self._failed(failure) from failure
            if error is not None:
                raise error
            self._check_whole()

    def _check_replaceable(self) -> None:
        if not self.path.exists():
            return
        if not self._overwrite:
            raise RecordingError(
                f"{self.path} exists already; choose another name, or allow it to be replaced (--force)"
            )
        if not (self.path / METADATA).is_file():
            raise RecordingError(f"{self.path} exists and is no recording, so it is not replaced; choose another name")
        try:
            others = (file for file in self.path.iterdir() if not _of_a_recording(file))
            refuse_others(self.path, others, "a recording")
        except FileExistsError as error:
            raise RecordingError(str(error)) from error

    def _check_whole(self) -> None:
        """Whether what was written is there, by its metadata.yaml too, under the names that it is read by."""
        written = {connection.topic: self._writer.counts[connection.id] for connection in self._connections.values()}
        with Recording(self._made) as recording:
            found = {topic: info.count for topic, info in recording.topics.items()}
        if found != written:
            raise RecordingError(f"{self.path}: of messages written {written} only {found} can be read back")

    def _failed(self, failure: Exception) -> RecordingError:
        """Keeps what was written before storage failed; returns the error that says so."""
        self._writer.abort()
        outcome = "Nothing of it is kept."
        if self._storage is StoragePlugin.MCAP:  # sqlite3 takes back all that was not committed
            kept = next(path for path in self._names_of_incomplete() if not path.exists())
            self._made.rename(kept)
            outcome = f"What was written before is in {kept}."
        return RecordingError(
            f"{self.path}: recording failed ({failure}). {outcome} Free some space, or record to another disk."
        )

    def _names_of_incomplete(self) -> Iterator[Path]:
        yield self.path.with_name(f"{self.path.name}_incomplete")
        for number in count(2):
            yield self.path.with_name(f"{self.path.name}_incomplete_{number}")

    def write(self, topic: str, message: object, type_name: str, stamp_ns: int) -> None:
        """Appends a message.

        Args:
            topic: name, with its leading slash.
            message: an object of rosbags' types, or the serialised message (CDR) as bytes.
            type_name: such as ``sensor_msgs/msg/Image``.
            stamp_ns: the time at which it counts as logged.

        Raises:
            RecordingError: the type is not one of ROS 2's common interfaces, the topic has had another type, or the
                disk is full.
        """
        if type_name not in TYPES.types:
            raise RecordingError(
                f"{topic}: type {type_name!r} is not one of ROS 2's common interfaces; it cannot be written"
            )
        raw = message if isinstance(message, bytes) else TYPES.serialize_cdr(message, type_name)
        try:
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(topic, type_name, typestore=TYPES)
                self._connections[topic] = connection
            if connection.msgtype != type_name:
                raise RecordingError(f"{topic}: holds {connection.msgtype}; a {type_name} cannot be written to it")
            self._writer.write(connection, stamp_ns, raw)
        except _WRITE_ERRORS as failure:
            raise self._failed(failure) from failure


def _of_a_recording(file: Path) -> bool:
    return file.name == METADATA or file.name.removesuffix("-wal").removesuffix("-shm").endswith(SUFFIXES)
