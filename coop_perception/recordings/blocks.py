"""What the storage files of a recording have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

LARGEST = 2**28
"""Bytes of a message and of a chunk, unpacked: an image of 64 million pixels in colour, and some."""


class DamagedFileError(Exception):
    """What is wrong with a file, or with a part of it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as a file declares it."""

    name: str
    type: str
    serialization: str
    count: int


class Block(NamedTuple):
    """Messages that are loaded together. No message in it was logged before ``start_ns``."""

    start_ns: int
    position: int
    """Byte in an mcap file, row in a sqlite3 one."""
    topic_ids: frozenset[int]


class Row(NamedTuple):
    """One message."""

    stamp_ns: int
    topic_id: int
    data: bytes


class StorageFile(Protocol):
    """One open file. ``damage`` says what is wrong with it as a whole, None when its index is in order."""

    path: Path
    topics: dict[int, Topic]
    blocks: list[Block]
    damage: str | None

    def load(self, block: Block) -> Iterator[Row]:
        """The block's messages in the file's order.

        Raises:
            DamagedFileError: after the last message that can be read, when there should be more.
        """

    def close(self) -> None:
        """Closes the file."""
