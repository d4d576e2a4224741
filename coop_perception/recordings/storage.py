"""The storage files of a rosbag2 recording, mcap and sqlite3, read block by block; damaged ones as far as they go.

A recorder that is killed, a disk that is full and a copy that breaks off leave files without their index. Libraries
refuse those, so a file is read here from its index where it has one, and otherwise record by record from its start.
"""

from __future__ import annotations

from pathlib import Path

from coop_perception.recordings.blocks import Block, DamagedFileError, StorageFile, Topic
from coop_perception.recordings.mcap_file import MAGIC as MCAP_MAGIC
from coop_perception.recordings.mcap_file import McapFile
from coop_perception.recordings.sqlite_file import MAGIC as SQLITE_MAGIC
from coop_perception.recordings.sqlite_file import SqliteFile

__all__ = ["Block", "DamagedFileError", "StorageFile", "Topic", "open_storage"]


def open_storage(path: Path) -> StorageFile:
    """Opens an mcap or sqlite3 file by what it holds, whatever its name.

    Raises:
        DamagedFileError: nothing can be read from it.
        OSError: it cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(len(SQLITE_MAGIC))
    if head.startswith(MCAP_MAGIC):
        return McapFile(path)
    if head == SQLITE_MAGIC:
        return SqliteFile(path)
    if not head:
        raise DamagedFileError("it is empty")
    raise DamagedFileError(f"it is neither an mcap nor a sqlite3 file (it begins with {head[:8]!r})")
