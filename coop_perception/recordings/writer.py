"""Writing rosbag2 recordings (mcap, sqlite3) without a ROS installation."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Literal

from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from coop_perception.recordings.messages import TYPES
from coop_perception.recordings.recording import RecordingError

Storage = Literal["mcap", "sqlite3"]
_WRITE_ERRORS = (OSError, sqlite3.Error)


class RecordingWriter:
    """Writes a rosbag2 directory, which appears under its name when it is complete. Use it in ``with``.

    Where the disk is full, what had reached it is kept (mcap only) under the name with ``_incomplete`` behind it.

    Args:
        path: directory to create.
        storage: ``mcap`` or ``sqlite3``.
        overwrite: replace an earlier recording at ``path``.

    Raises:
        RecordingError: ``path`` exists and may not be replaced.
    """

    def __init__(self, path: Path, storage: Storage = "mcap", overwrite: bool = False) -> None:
        self.path = path.resolve()
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self._storage = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        self._overwrite = overwrite
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> RecordingWriter:
        if self.path.exists():
            if not self._overwrite:
                raise RecordingError(
                    f"{self.path} exists already; choose another name, or allow it to be replaced (--force)"
                )
            if not (self.path / "metadata.yaml").is_file():
                raise RecordingError(
                    f"{self.path} exists and is no recording, so it is not replaced; choose another name"
                )
        shutil.rmtree(self._partial, ignore_errors=True)  # of a run that was killed
        # rosbags names the file inside after its directory, so that must have its final name already. Version 8 of the
        # format is the newest that Humble reads.
        self._writer = Writer(self._partial / self.path.name, version=8, storage_plugin=self._storage)
        self._writer.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            try:
                self._writer.__exit__(kind, error, traceback)
            except _WRITE_ERRORS as failure:
                raise self._failed(failure) from failure
            if kind is None:
                if self.path.exists():
                    self.path.rename(self._partial / "replaced")
                (self._partial / self.path.name).rename(self.path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _failed(self, failure: Exception) -> RecordingError:
        """Keeps what was written before storage failed; returns the error that says so."""
        self._writer.abort()
        outcome = "Nothing of it is kept."
        if self._storage is StoragePlugin.MCAP:  # sqlite3 takes back all that was not committed
            kept = self.path.with_name(f"{self.path.name}_incomplete")
            shutil.rmtree(kept, ignore_errors=True)
            (self._partial / self.path.name).rename(kept)
            outcome = f"What was written before is in {kept}."
        return RecordingError(
            f"{self.path}: recording failed ({failure}). {outcome} Free some space, or record to another disk."
        )

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
