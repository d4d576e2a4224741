"""Reading rosbag2 recordings (mcap, sqlite3) without a ROS installation.

Whatever can be read of a recording is read, in the order in which it was logged. Where that is not all, one
``RecordingError`` at its end says so.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from filecmp import cmp
from heapq import heappop, heappush
from pathlib import Path, PurePath
from typing import Any

import zstandard

from coop_perception.documents import DocumentError, read_yaml
from coop_perception.recordings.blocks import LARGEST
from coop_perception.recordings.messages import CAMERA_INFO_TYPE, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE, TYPES
from coop_perception.recordings.storage import DamagedFileError, StorageFile, open_storage
from coop_perception.shown import LONGEST_NAME, plain, shown

METADATA = "metadata.yaml"
METADATA_LIMIT = 1 << 20
"""Bytes: it has some hundreds for each storage file and topic. Each MiB takes seconds."""
SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_NOT_NAMED = (
    "metadata.yaml does not name it, so it was not read; have it named by `ros2 bag reindex`, or move it elsewhere"
)
MOST_WAITING = 2**28
"""Bytes of messages that are held back to be put in order."""
_UNPACKED_FLOOR, _UNPACKED_RATIO = 2**28, 64
"""Bytes that a recording's packed files may unpack to together, and how many times their size where that is more."""
_HEADED = (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE, CAMERA_INFO_TYPE)
_HEAD = 12
"""Bytes of a serialised message that has a header, up to its stamp's end; one that has none begins with 4."""
_PIECE = 1 << 20
_MOST_DAMAGES = 10_000
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class RecordingError(RuntimeError):
    """A recording that cannot be read (to its end), or not be written."""


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic of a recording: its type, such as ``sensor_msgs/msg/Image``, and how many messages it has."""

    type: str
    count: int


@dataclass(frozen=True, slots=True)
class Message:
    """One recorded message, serialised (CDR); ``stamp_ns`` is the time at which it was logged."""

    topic: str
    type: str
    stamp_ns: int
    raw: bytes


class _Waiting:
    """Messages that others may still come before, by time; equal times as they came. No more than MOST_WAITING bytes of
    them: where one file's parts lie across one another wholly, they come as near to their order as that allows."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Message]] = []
        self._count = self._bytes = 0

    def until(self, stamp_ns: int) -> Iterator[Message]:
        """Those that no other can come before."""
        while self._heap and self._heap[0][0] <= stamp_ns:
            yield self._next()

    def with_another(self, message: Message) -> Iterator[Message]:
        """Adds one; gives those that there is no room for."""
        heappush(self._heap, (message.stamp_ns, self._count, message))
        self._count += 1
        self._bytes += _size(message)
        while self._bytes > MOST_WAITING:
            yield self._next()

    def rest(self) -> Iterator[Message]:
        while self._heap:
            yield self._next()

    def _next(self) -> Message:
        message = heappop(self._heap)[2]
        self._bytes -= _size(message)
        return message


def _size(message: Message) -> int:
    """Bytes that a message takes in memory, about."""
    return len(message.raw) + 400


class Recording:
    """A rosbag2 directory, with or without its metadata.yaml, or one of its storage files. Use it in ``with``.

    Raises:
        RecordingError: there is no such recording, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.topics: dict[str, TopicInfo] = {}
        self._files: list[StorageFile] = []
        self._damages: list[str] = []
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None
        self._packed_bytes = self._unpacked_bytes = 0
        self._promised: dict[str, int] = {}

    def __enter__(self) -> Recording:
        try:
            metadata = _metadata(self.path / METADATA)
            paths, left_out = _storage_files(self.path, _listed_files(metadata))
            _refuse_copies(self.path, paths)
            self._damages += [self._locate(path, _NOT_NAMED) for path in left_out]
            for path in paths:
                try:
                    self._files.append(open_storage(self._unpack(path) if path.suffix == ".zstd" else path))
                except (DamagedFileError, OSError) as error:
                    self._damages.append(self._locate(path, error))
                    continue
                damage = self._files[-1].damage
                if damage is not None:
                    self._damages.append(self._locate(path, damage))
            self.topics = self._merge_topics()
            self._promised = _promised_counts(metadata)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; called at the end of ``with``."""
        for file in self._files:
            file.close()
        self._files.clear()
        if self._unpacked is not None:
            self._unpacked.cleanup()

    def expected(self, topic: str) -> int:
        """How many messages a topic should have, as the storage files' indexes say or metadata.yaml does."""
        there = self.topics[topic].count if topic in self.topics else 0
        return max(there, self._promised.get(topic, 0))

    def messages(self, topics: Collection[str] | None = None) -> Iterator[Message]:
        """The messages of some topics, or of all, by the time at which they were logged; equal times in file order.

        Raises:
            RecordingError: after the last message that can be read, when the recording is damaged.
        """
        names = self.topics.keys() if topics is None else self.topics.keys() & set(topics)
        blocks = []
        for file in self._files:
            ids = {id_ for id_, topic in file.topics.items() if topic.name in names}
            blocks += [(block, file) for block in file.blocks if not ids.isdisjoint(block.topic_ids)]
        blocks.sort(key=lambda entry: entry[0].start_ns)
        damages = list(self._damages)
        waiting = _Waiting()
        loaded = 0
        for block, file in blocks:
            yield from waiting.until(block.start_ns)
            try:
                for row in file.load(block):
                    topic = file.topics.get(row.topic_id)
                    if topic is None or topic.name not in names:
                        continue
                    type_ = self.topics[topic.name].type
                    try:
                        raw = _unpacked(row.data)
                        _check_head(raw, type_)
                    except DamagedFileError as error:  # those behind it are read
                        where = f"on {plain(topic.name, LONGEST_NAME)} at {row.stamp_ns} ns"
                        _note(damages, self._locate(file.path, f"{error}, {where}"))
                        continue
                    loaded += 1
                    yield from waiting.with_another(Message(topic.name, type_, row.stamp_ns, raw))
            except (DamagedFileError, OSError) as error:
                _note(damages, self._locate(file.path, error))
        yield from waiting.rest()
        if damages:
            raise RecordingError(self._damage_report(damages, f"The {loaded} messages that can be read were read."))

    def deserialize(self, message: Message) -> Any:
        """The message as an object with its type's fields; ``data`` of images is a flat ndarray.

        Raises:
            RecordingError: the type is not known here, or the bytes are no such message.
        """
        topic = plain(message.topic, LONGEST_NAME)
        if message.type not in TYPES.types:
            raise RecordingError(
                f"{self.path}: {topic} has type {shown(message.type)}, which is not one of ROS 2's common interfaces"
            )
        try:
            return TYPES.deserialize_cdr(message.raw, message.type)
        except Exception as error:  # damaged bytes make the generated parser raise nearly anything
            raise RecordingError(
                f"{self.path}: the message on {topic} logged at {message.stamp_ns} ns cannot be read as "
                f"{message.type} ({plain(error, 200)}); the recording is damaged, record or copy it again"
            ) from error

    def _merge_topics(self) -> dict[str, TopicInfo]:
        declared = [topic for file in self._files for topic in file.topics.values()]
        if not declared and self._damages:
            raise RecordingError(self._damage_report(self._damages, "Nothing in it can be read."))
        if declared and all(topic.serialization != "cdr" for topic in declared):
            found = plain(", ".join(sorted({topic.serialization for topic in declared})), 200)
            raise RecordingError(
                f"{self.path}: its messages are serialised as {found}; expected a ROS 2 recording (cdr)"
            )
        topics: dict[str, TopicInfo] = {}
        for topic in declared:
            if topic.serialization == "cdr":
                known = topics.get(topic.name, TopicInfo(_current_type_name(topic.type), 0))
                topics[topic.name] = TopicInfo(known.type, known.count + topic.count)
        return topics

    def _unpack(self, path: Path) -> Path:
        """Decompresses a storage file into a temporary directory, of whose room others are left a tenth."""
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="recording-")
        unpacked = Path(self._unpacked.name, path.stem)
        self._packed_bytes += path.stat().st_size
        most = max(_UNPACKED_FLOOR, _UNPACKED_RATIO * self._packed_bytes)
        free = shutil.disk_usage(self._unpacked.name).free
        room = free * 9 // 10
        with path.open("rb") as packed, unpacked.open("wb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)
            try:
                while piece := stream.read(_PIECE):
                    room -= len(piece)
                    self._unpacked_bytes += len(piece)
                    if room < 0:
                        raise OSError("a tenth is left for others")
                    if self._unpacked_bytes > most:
                        limit = f"{_UNPACKED_RATIO} times their size, and more than {_UNPACKED_FLOOR} bytes"
                        found = f"with what was unpacked before, it unpacks to more than {limit}"
                        self._damages.append(self._locate(path, f"{found}; unpack it with `zstd -d` yourself"))
                        break
                    file.write(piece)
            except zstandard.ZstdError as error:
                self._damages.append(self._locate(path, f"its compression is damaged ({error})"))
            except OSError as error:
                folder = Path(self._unpacked.name).parent
                self._damages.append(
                    self._locate(path, f"it finds no room to be unpacked in {folder}, with {free} bytes free ({error})")
                )
        return unpacked

    def _locate(self, file: Path, damage: object) -> str:
        return f"{file.name}: {damage}" if self.path.is_dir() else str(damage)

    def _damage_report(self, damages: list[str], outcome: str) -> str:
        first, *others = dict.fromkeys(damages)
        count = f"{len(others)}{' or' * (len(damages) == _MOST_DAMAGES)} more such places"
        more = f" (and {count})" if others else ""
        return (
            f"{self.path}: damaged recording: {first}{more}. {outcome} Copy the recording again if its source is whole."
        )


def _note(damages: list[str], damage: str) -> None:
    """One of the first _MOST_DAMAGES; a file can have one in every few bytes."""
    if len(damages) < _MOST_DAMAGES:
        damages.append(damage)


def _storage_files(path: Path, listed: list[str]) -> tuple[list[Path], list[Path]]:
    """The storage files of a recording, and those in its directory that its metadata.yaml does not name."""
    if not path.exists():
        raise RecordingError(f"{path}: there is no such recording")
    if path.is_file():
        _refuse_ros1(path, [path])
        if not path.name.endswith(SUFFIXES):
            raise RecordingError(
                f"{path}: is no recording; expected a rosbag2 directory or a {' or '.join(SUFFIXES)} file"
            )
        return [path], []
    if not path.is_dir():
        raise RecordingError(f"{path}: is neither a folder nor a regular file, expected a recording")
    there = {file.name: file for file in sorted(path.iterdir()) if file.is_file()}
    files = [file for name, file in there.items() if name.endswith(SUFFIXES) and name[0] != "."]
    missing = [plain(name, LONGEST_NAME) for name in listed if name not in there]
    if missing:
        raise RecordingError(
            f"{path}: metadata.yaml names {plain(', '.join(missing))}, which the directory lacks; copy them there, "
            "or remove metadata.yaml to read the others"
        )
    if listed:
        stems = {_stem(path / name) for name in listed}
        return [path / name for name in listed], [file for file in files if _stem(file) not in stems]
    if not files:
        _refuse_ros1(path, sorted(path.iterdir()))
        raise RecordingError(f"{path}: holds no recording ({', '.join(SUFFIXES)})")
    return files, []


def _refuse_copies(path: Path, files: list[Path]) -> None:
    """Raises RecordingError where files hold the same messages, by their names or byte for byte: each frame would be
    read twice. `ros2 bag reindex` names copies in metadata.yaml as well."""
    of_stem: dict[str, Path] = {}
    of_size: dict[int, list[Path]] = {}
    for file in files:
        alike = of_size.setdefault(file.stat().st_size, [])
        other = of_stem.get(_stem(file)) or next((one for one in alike if cmp(one, file, shallow=False)), None)
        if other is not None:
            raise RecordingError(
                f"{path}: holds {other.name} and {file.name}, copies of the same messages; give the one instead of the "
                "directory, or move the other elsewhere and make metadata.yaml anew with `ros2 bag reindex`"
            )
        of_stem[_stem(file)] = file
        alike.append(file)


def _stem(file: Path) -> str:
    """What copies of one storage file in other formats or compressed have in common."""
    return file.name.removesuffix(".zstd").rpartition(".")[0]


def _metadata(path: Path) -> Any:
    """What metadata.yaml says of the recording; nothing where it cannot be read."""
    try:
        return read_yaml(path, METADATA_LIMIT)["rosbag2_bagfile_information"]
    except (DocumentError, KeyError, TypeError):
        return None


def _listed_files(metadata: Any) -> list[str]:
    """The storage files that metadata.yaml names; none where it does not, so that those there are taken."""
    try:
        # Early versions give paths that begin with the directory.
        return list(dict.fromkeys(PurePath(name).name for name in metadata["relative_file_paths"]))
    except (KeyError, TypeError):
        return []


def _promised_counts(metadata: Any) -> dict[str, int]:
    """Messages by topic, as metadata.yaml says; none where it does not."""
    try:
        topics = metadata["topics_with_message_count"]
        return {str(topic["topic_metadata"]["name"]): int(topic["message_count"]) for topic in topics}
    except (KeyError, TypeError, ValueError, OverflowError):
        return {}


def _refuse_ros1(path: Path, files: list[Path]) -> None:
    if any(file.suffix == ".bag" for file in files):
        raise RecordingError(
            f"{path}: is a ROS 1 bag; convert it first with `rosbags-convert --src FILE.bag --dst DIRECTORY`"
        )


def _current_type_name(name: str) -> str:
    """``sensor_msgs/Image``, as ROS 2 wrote it in 2019, is ``sensor_msgs/msg/Image`` today."""
    package, _, rest = name.partition("/")
    return f"{package}/msg/{rest}" if rest and "/" not in rest else name


def _unpacked(raw: bytes) -> bytes:
    """A message, decompressed if it was compressed by itself; serialised messages never begin as zstd frames do."""
    if not raw.startswith(_ZSTD_MAGIC):
        return raw
    try:
        size = zstandard.frame_content_size(raw)
        if size > LARGEST:
            raise DamagedFileError(f"a compressed message says that it has {size} bytes, {LARGEST} at most are read")
        return zstandard.ZstdDecompressor().decompress(raw, max_output_size=LARGEST if size < 0 else 0)
    except zstandard.ZstdError as error:
        raise DamagedFileError(f"a compressed message is damaged ({plain(error, 200)})") from error


def _check_head(raw: bytes, type_: str) -> None:
    """Raises DamagedFileError where a message is shorter than what every one of its type begins with."""
    least = _HEAD if type_ in _HEADED else 4
    if len(raw) < least:
        raise DamagedFileError(f"a message of {type_} has {len(raw)} bytes, {least} at least are its head")
