"""Reading a sqlite3 file of rosbag2; file format: https://www.sqlite.org/fileformat.html."""

from __future__ import annotations

import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import quote

from coop_perception.recordings.blocks import LARGEST, Block, DamagedFileError, Row, Topic
from coop_perception.recordings.sqlite_tables import check_table, interruptible, reason

MAGIC = b"SQLite format 3\x00"
_SMALLEST_ROW = 8
"""Bytes of a file for each of its rows, at least."""
_MOST_TOPICS = 10_000
_ROWS = (
    "SELECT CASE WHEN typeof(timestamp) = 'integer' THEN timestamp END, rowid, "
    "CASE WHEN typeof(topic_id) = 'integer' THEN topic_id END FROM messages NOT INDEXED"
)


class SqliteFile:
    """A sqlite3 file of rosbag2. SQLite itself refuses one that was cut; its pages are then read one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[int, Topic] = {}
        self.blocks: list[Block] = []
        self.damage: str | None = None
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._pages: _Pages | None = None
        self._longest = LARGEST
        wal, shm = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
        logged = wal.is_file() and wal.stat().st_size > 0
        if logged and not shm.is_file():
            # SQLite would make one beside the recording, which is not to be written to, or cannot be.
            self._copy = tempfile.TemporaryDirectory(prefix="recording-")
            path = _copied([path, wal], Path(self._copy.name))
        # Immutable files are read without a lock; a write-ahead log needs one.
        uri = f"file:{quote(str(path.resolve()))}?{'mode=ro' if logged else 'immutable=1'}"
        self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        try:
            self._read_index(logged)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._database.close()
        if self._copy is not None:
            self._copy.cleanup()

    def load(self, block: Block) -> Iterator[Row]:
        if self._pages is not None:
            row = self._pages.row(block.position)
            if row is None:
                raise DamagedFileError(self.damage)
            yield row
            return
        # What a row claims is looked at before memory is taken for it; a claim can be larger than the file.
        query = (
            "SELECT timestamp, topic_id, typeof(data), length(data), "
            "CASE WHEN typeof(data) = 'blob' AND length(data) <= ? THEN data END FROM messages WHERE rowid = ?"
        )
        name = f"row {block.position} of its messages"
        try:
            found = self._database.execute(query, (self._longest, block.position)).fetchone()
        except sqlite3.Error as error:
            raise DamagedFileError(f"{name} cannot be read ({reason(error)})") from error
        if found is None:
            raise DamagedFileError(f"{name} is not there any more")
        stamp_ns, topic_id, kind, length, data = found
        if data is None:
            raise DamagedFileError(
                f"{name} holds {kind} of length {length}, expected a blob of {self._longest} at most"
            )
        yield Row(stamp_ns, topic_id, data)

    def _read_index(self, logged: bool) -> None:
        size = self.path.stat().st_size
        self._longest = min(LARGEST, size) if not logged else LARGEST
        try:
            interruptible(self._database)
            # Lets SQLite look into a file that is shorter than it says.
            self._database.execute("PRAGMA writable_schema = ON")
            self._database.execute("PRAGMA trusted_schema = OFF")
            for table in ("topics", "messages"):
                check_table(self._database, table)
            query = "SELECT id, name, type, serialization_format FROM topics"
            topics = self._database.execute(query).fetchmany(_MOST_TOPICS)
        except sqlite3.Error as error:
            raise DamagedFileError(f"its list of topics cannot be read ({reason(error)})") from error
        pages = _Pages(self.path)
        try:
            if not logged and pages.missing_bytes:
                raise sqlite3.DatabaseError(f"its last {pages.missing_bytes} bytes are missing: it was cut")
            rows = list(_ascending(self._database.execute(_ROWS)))
        except sqlite3.Error as error:
            self.damage = reason(error)
            self._pages = pages
            rows = list(islice(pages.rows(), size // _SMALLEST_ROW))
        # Columns of damaged rows may hold anything.
        rows = [row for row in rows if isinstance(row[0], int)]
        topics = [topic for topic in topics if all(isinstance(text, str) for text in topic[1:])]
        topic_ids = {topic[0]: frozenset((topic[0],)) for topic in topics}
        counts = Counter(row[2] for row in rows)
        self.topics = {id_: Topic(name, type_, form, counts[id_]) for id_, name, type_, form in topics}
        self.blocks = [Block(stamp, row_id, topic_ids[topic]) for stamp, row_id, topic in rows if topic in topic_ids]


def _ascending(rows: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Rows as they lie in a table's tree, which is by their numbers.

    Raises:
        sqlite3.DatabaseError: they are not, as where pages are in the tree over and over.
    """
    last = -(2**63) - 1
    for row in rows:
        if row[1] <= last:
            raise sqlite3.DatabaseError(f"row {row[1]} of its messages comes behind row {last}")
        last = row[1]
        yield row


def _copied(files: Sequence[Path], folder: Path) -> Path:
    """Copies files; returns the first one's.

    Raises:
        DamagedFileError: there is no room for them.
    """
    size, free = sum(file.stat().st_size for file in files), shutil.disk_usage(folder).free
    if size > free // 2:
        raise DamagedFileError(f"its last rows are in its log, and a copy of {size} bytes finds no room in {folder}")
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder / files[0].name


class _Cell(NamedTuple):
    """Where a messages row lies in the file."""

    stamp_ns: int
    topic_id: int
    payload: int
    payload_size: int
    blob: int


class _Pages:
    """The rows of the messages table, found page by page without the tree that SQLite would follow.

    That tree's upper pages may lie anywhere; a row's own pages were written when it was recorded. So what was recorded
    before a cut is still here, even where SQLite can no longer reach it.
    """

    _TABLE_LEAF = 0x0D
    _INTEGER_BYTES: ClassVar = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        (page_size,) = struct.unpack_from(">H", self._file, 16)
        (pages,) = struct.unpack_from(">I", self._file, 28)
        self._page_size = 65536 if page_size == 1 else page_size
        self._usable = self._page_size - self._file[20]
        self.missing_bytes = max(0, pages * self._page_size - len(self._file))

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Stamp, position and topic id of each row, in the order of the file."""
        # The first page holds the schema; a last one that is cut holds nothing that can be trusted.
        for page in range(self._page_size, len(self._file) - self._page_size + 1, self._page_size):
            if self._file[page] != self._TABLE_LEAF:
                continue
            (count,) = struct.unpack_from(">H", self._file, page + 3)
            for index in range(min(count, self._page_size // 4)):
                (offset,) = struct.unpack_from(">H", self._file, page + 8 + 2 * index)
                cell = self._cell(page + offset)
                if cell is not None:
                    yield cell.stamp_ns, page + offset, cell.topic_id

    def row(self, position: int) -> Row | None:
        """The row whose cell is at a position; None when a part of it is not in the file any more."""
        cell = self._cell(position)
        assert cell is not None
        if cell.payload_size > min(LARGEST, len(self._file)):  # pages that lead back to one another
            return None
        here, left = self._sizes(cell.payload_size)
        parts = [self._file[cell.payload : cell.payload + here]]
        link = cell.payload + here
        while left:
            (page,) = struct.unpack_from(">I", self._file, link)
            link = (page - 1) * self._page_size
            size = min(left, self._usable - 4)
            if page == 0 or link + 4 + size > len(self._file):
                return None
            parts.append(self._file[link + 4 : link + 4 + size])
            left -= size
        return Row(cell.stamp_ns, cell.topic_id, b"".join(parts)[cell.blob :])

    def _cell(self, position: int) -> _Cell | None:
        """A cell of the messages table, whose columns are null, integer, integer, blob; None for any other."""
        try:
            payload_size, at = self._varint(position)
            _, payload = self._varint(at)
            head_size, at = self._varint(payload)
            types: list[int] = []
            while at < payload + head_size and len(types) <= 4:
                type_, at = self._varint(at)
                types.append(type_)
            if len(types) != 4 or types[0] != 0 or types[3] < 12 or types[3] % 2:
                return None
            topic_id, at = self._integer(types[1], at)
            stamp_ns, at = self._integer(types[2], at)
        except (IndexError, KeyError):  # damaged bytes
            return None
        return _Cell(stamp_ns, topic_id, payload, payload_size, at - payload)

    def _sizes(self, payload_size: int) -> tuple[int, int]:
        """How many of a payload's bytes lie in its cell, and how many on the pages that the cell's end leads to."""
        largest = self._usable - 35
        if payload_size <= largest:
            return payload_size, 0
        smallest = (self._usable - 12) * 32 // 255 - 23
        here = smallest + (payload_size - smallest) % (self._usable - 4)
        here = here if here <= largest else smallest
        return here, payload_size - here

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for index in range(8):
            byte = self._file[at + index]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, at + index + 1
        return value << 8 | self._file[at + 8], at + 9

    def _integer(self, type_: int, at: int) -> tuple[int, int]:
        if type_ in (8, 9):  # the constants 0 and 1
            return type_ - 8, at
        end = at + self._INTEGER_BYTES[type_]
        return int.from_bytes(self._file[at:end], "big", signed=True), end
