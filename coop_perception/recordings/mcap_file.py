"""Reading an mcap file; format: https://mcap.dev/spec."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import lz4.frame  # type: ignore[import-untyped]
import zstandard
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import SeekingReader
from mcap.records import Channel, ChunkIndex, Schema, Statistics
from mcap.summary import Summary

from coop_perception.recordings.blocks import LARGEST, Block, DamagedFileError, Row, Topic
from coop_perception.shown import plain, shown

MAGIC = b"\x89MCAP0\r\n"
_RECORD_HEAD = struct.Struct("<BQ")
_MESSAGE_HEAD = struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
_LATEST = 2**64
_INDEX_HEAD = _RECORD_HEAD.size + 6
_FOOTER = struct.Struct("<9sQQI8s")
_LARGEST_CHUNK = LARGEST + 2**20
"""Bytes of a record that is read, packed or not."""
_LONGEST_RECORD = 2**32
"""Bytes. No recorder writes longer ones."""


class McapFile:
    """An open mcap file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[int, Topic] = {}
        self.blocks: list[Block] = []
        self.damage: str | None = None
        self._indexed: dict[int, int] = {}
        """Messages of the chunk at a byte, by its index."""
        self._size = path.stat().st_size
        self._file = path.open("rb")
        try:
            summary = self._summary()
            if summary is not None and summary.statistics is not None and _is_whole(summary, summary.statistics):
                self._take_index(summary, summary.statistics)
            else:
                self._scan()
                if summary is not None and summary.statistics is not None:
                    self._check_count(summary.statistics)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def load(self, block: Block) -> Iterator[Row]:
        if self._record_head(block.position)[0] not in (Opcode.CHUNK, Opcode.MESSAGE):
            raise DamagedFileError(f"its index points to byte {block.position}, where no messages are: it was altered")
        found, short = 0, None
        for opcode, content in self._records(block.position):
            if opcode == Opcode.MESSAGE:
                found += 1
                try:
                    message = _message(content)
                except DamagedFileError as error:
                    short = short or error
                    continue
                yield message
        if short is not None:
            raise short
        expected = self._indexed.get(block.position, 0)
        if found < expected:
            raise DamagedFileError(
                f"the chunk at byte {block.position} holds {found} messages, its index {expected}: it was altered"
            )

    def _summary(self) -> Summary | None:
        """What the file says of itself at its end; None where that cannot be read."""
        try:
            self._file.seek(-_FOOTER.size, os.SEEK_END)
            _, start, _, _, _ = _FOOTER.unpack(self._file.read(_FOOTER.size))
            if self._size - start > LARGEST:
                return None
            self._file.seek(0)
            return SeekingReader(self._file).get_summary()
        except Exception:  # damaged bytes make the parser raise nearly anything
            return None

    def _check_count(self, statistics: Statistics) -> None:
        found = sum(topic.count for topic in self.topics.values())
        if found < statistics.message_count:
            self.damage = self.damage or (
                f"it holds {found} messages, its statistics say {statistics.message_count}: it was altered"
            )

    def _take_index(self, summary: Summary, statistics: Statistics) -> None:
        counts = Counter(statistics.channel_message_counts)
        for channel in summary.channels.values():
            self._add_topic(channel, summary.schemas, counts)
        for chunk in summary.chunk_indexes:
            # A chunk without message indexes may hold any topic.
            topic_ids = frozenset(chunk.message_index_offsets or summary.channels)
            self.blocks.append(Block(chunk.message_start_time, chunk.chunk_start_offset, topic_ids))
            self._indexed[chunk.chunk_start_offset] = _indexed_messages(chunk)

    def _scan(self) -> None:
        """Builds the index from the records themselves."""
        schemas: dict[int, Schema] = {}
        channels: dict[int, Channel] = {}
        counts: Counter[int] = Counter()
        position, opcode = len(MAGIC), 0
        while opcode not in (Opcode.DATA_END, Opcode.FOOTER):
            here: Counter[int] = Counter()
            first = _LATEST
            try:
                opcode, length = self._record_head(position)
            except DamagedFileError as error:
                self.damage = self.damage or str(error)
                break
            try:
                for inner, content in self._records(position):
                    if inner == Opcode.SCHEMA:
                        schema = Schema.read(ReadDataStream(BytesIO(content)))
                        schemas[schema.id] = schema
                    elif inner == Opcode.CHANNEL:
                        channel = Channel.read(ReadDataStream(BytesIO(content)))
                        channels[channel.id] = channel
                    elif inner == Opcode.MESSAGE:
                        try:
                            row = _message(content)
                        except DamagedFileError as error:  # the messages behind it are read
                            self.damage = self.damage or str(error)
                            continue
                        here[row.topic_id] += 1
                        first = min(first, row.stamp_ns)
            except DamagedFileError as error:
                self.damage = self.damage or str(error)
            except Exception as error:  # as in _summary
                self.damage = self.damage or f"the record at byte {position} cannot be read ({_kind(error)})"
            if here:
                counts.update(here)
                self.blocks.append(Block(first, position, frozenset(here)))
            position += _RECORD_HEAD.size + length
        for channel in channels.values():
            self._add_topic(channel, schemas, counts)

    def _add_topic(self, channel: Channel, schemas: dict[int, Schema], counts: Counter[int]) -> None:
        schema = schemas.get(channel.schema_id)
        type_name = "" if schema is None else schema.name
        self.topics[channel.id] = Topic(channel.topic, type_name, channel.message_encoding, counts[channel.id])

    def _record_head(self, position: int) -> tuple[int, int]:
        """Opcode and length of the record at a position; it may reach beyond the end of a cut file."""
        if position > self._size:
            raise DamagedFileError(f"it refers to byte {position}, but has {self._size} bytes: it was cut or altered")
        self._file.seek(position)
        head = self._file.read(_RECORD_HEAD.size)
        if len(head) < _RECORD_HEAD.size:
            raise DamagedFileError(f"it ends after {self._size} bytes without its index: it was cut, or never closed")
        opcode, length = _RECORD_HEAD.unpack(head)
        if opcode == 0 or length > _LONGEST_RECORD:
            raise DamagedFileError(f"what stands at byte {position} of {self._size} is no mcap record")
        return opcode, length

    def _records(self, position: int) -> Iterator[tuple[int, bytes]]:
        """Opcode and content of the record at a position, and of those inside if it is a chunk."""
        opcode, length = self._record_head(position)
        if opcode not in (Opcode.CHUNK, Opcode.MESSAGE, Opcode.SCHEMA, Opcode.CHANNEL):
            return
        if length > _LARGEST_CHUNK:
            raise DamagedFileError(
                f"the record at byte {position} has {length} bytes, {_LARGEST_CHUNK} at most are read"
            )
        content = self._file.read(min(length, self._size - self._file.tell()))
        cut = f"it ends after {self._size} bytes, in the middle of the record at byte {position}: it was cut"
        if opcode == Opcode.CHUNK:
            yield from _chunk_records(content, f"the chunk at byte {position}", cut if len(content) < length else None)
        elif len(content) < length:
            raise DamagedFileError(cut)
        else:
            yield opcode, content


def _is_whole(summary: Summary, statistics: Statistics) -> bool:
    """Whether an index leads to all messages, and says what they are: those outside of chunks are in none."""
    typed = all(channel.schema_id in summary.schemas for channel in summary.channels.values())
    indexed = {channel for chunk in summary.chunk_indexes for channel in chunk.message_index_offsets}
    count = sum(map(_indexed_messages, summary.chunk_indexes))
    if len({chunk.chunk_start_offset for chunk in summary.chunk_indexes}) < len(summary.chunk_indexes):
        return False
    return typed and indexed <= summary.channels.keys() and count == statistics.message_count


def _indexed_messages(chunk: ChunkIndex) -> int:
    """How many messages a chunk holds, by its message indexes: a record for each channel, 16 bytes for each message."""
    return max(0, chunk.message_index_length - _INDEX_HEAD * len(chunk.message_index_offsets)) // 16


def _chunk_records(content: bytes, name: str, cut: str | None) -> Iterator[tuple[int, bytes]]:
    """A chunk's records. Of a cut chunk, those before the cut; of one that fails its checksum, none."""
    try:
        _, _, size, checksum, name_length = _CHUNK_HEAD.unpack_from(content)
        start = _CHUNK_HEAD.size + name_length
        compression = content[_CHUNK_HEAD.size : start].decode()
        (data_length,) = struct.unpack_from("<Q", content, start)
        if size > LARGEST:
            raise DamagedFileError(f"it says that it unpacks to {size} bytes, {LARGEST} at most are read")
        data = _decompress(compression, content[start + 8 : start + 8 + data_length], size + 1)
    except DamagedFileError as error:
        raise DamagedFileError(f"{name}: {error}") from error
    except Exception as error:  # decompressors raise what they like on damaged bytes
        raise DamagedFileError(cut or f"{name} cannot be decompressed ({_kind(error)})") from error
    if cut is None and (len(data) != size or (checksum and zlib.crc32(data) != checksum)):
        raise DamagedFileError(f"{name} is altered: its checksum or its length is wrong")
    position = 0
    while position + _RECORD_HEAD.size <= len(data):
        opcode, length = _RECORD_HEAD.unpack_from(data, position)
        end = position + _RECORD_HEAD.size + length
        if end > len(data):
            break
        yield opcode, data[position + _RECORD_HEAD.size : end]
        position = end
    if position < size:
        raise DamagedFileError(cut or f"{name} holds a record that reaches beyond it")


def _decompress(compression: str, data: bytes, most: int) -> bytes:
    """What can be decompressed of data that may be cut, so many bytes at the most."""
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(data).read(most)
    if compression == "lz4":
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=most))
    if compression:
        raise DamagedFileError(f"compression {shown(compression)} is not known; expected zstd or lz4")
    return data


def _kind(error: Exception) -> str:
    """What a parser raised. Not as Python writes it, which can hold the bytes that were parsed."""
    return f"{type(error).__name__}: {plain(error, 200)}"


def _message(content: bytes) -> Row:
    if len(content) < _MESSAGE_HEAD.size:
        raise DamagedFileError(f"a message record has {len(content)} bytes, fewer than its head")
    topic_id, _, log_time, _ = _MESSAGE_HEAD.unpack_from(content)
    return Row(log_time, topic_id, content[_MESSAGE_HEAD.size :])
