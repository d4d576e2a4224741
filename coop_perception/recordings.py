"""Reading and writing rosbag2 recordings (mcap, sqlite3) without a ROS installation.

Whatever can be read of a recording is read, in the order in which it was logged. Where that is not all, one
``RecordingError`` at its end says so.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Literal

import numpy as np
import yaml
import zstandard
from numpy.typing import NDArray
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from coop_perception import topics
from coop_perception.camera import Intrinsics
from coop_perception.images import CompressedFormat, fill_compressed, fill_image
from coop_perception.storage import DamagedFileError, StorageFile, open_storage

IMAGE_TYPE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
Storage = Literal["mcap", "sqlite3"]

_TYPES = get_typestore(Stores.ROS2_JAZZY)
_SUFFIXES = (".mcap", ".db3", ".mcap.zstd", ".db3.zstd")
_WRITE_ERRORS = (OSError, sqlite3.Error)
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

    def __enter__(self) -> Recording:
        try:
            for path in _storage_files(self.path):
                try:
                    self._files.append(open_storage(self._unpack(path) if path.suffix == ".zstd" else path))
                except (DamagedFileError, OSError) as error:
                    self._damages.append(self._locate(path, error))
                    continue
                damage = self._files[-1].damage
                if damage is not None:
                    self._damages.append(self._locate(path, damage))
            self.topics = self._merge_topics()
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
        waiting: list[tuple[int, int, Message]] = []
        loaded = 0
        for block, file in blocks:
            while waiting and waiting[0][0] <= block.start_ns:
                yield heappop(waiting)[2]
            try:
                for row in file.load(block):
                    topic = file.topics.get(row.topic_id)
                    if topic is None or topic.name not in names:
                        continue
                    message = Message(topic.name, self.topics[topic.name].type, row.stamp_ns, _unpacked(row.data))
                    heappush(waiting, (row.stamp_ns, loaded, message))
                    loaded += 1
            except (DamagedFileError, OSError) as error:
                damages.append(self._locate(file.path, error))
        while waiting:
            yield heappop(waiting)[2]
        if damages:
            raise RecordingError(self._damage_report(damages, f"The {loaded} messages that can be read were read."))

    def deserialize(self, message: Message) -> Any:
        """The message as an object with its type's fields; ``data`` of images is a flat ndarray.

        Raises:
            RecordingError: the type is not known here, or the bytes are no such message.
        """
        if message.type not in _TYPES.types:
            raise RecordingError(
                f"{self.path}: {message.topic} has type {message.type!r}, which is not one of ROS 2's common interfaces"
            )
        try:
            return _TYPES.deserialize_cdr(message.raw, message.type)
        except Exception as error:  # damaged bytes make the generated parser raise nearly anything
            raise RecordingError(
                f"{self.path}: the message on {message.topic} logged at {message.stamp_ns} ns cannot be read as "
                f"{message.type} ({error}); the recording is damaged, record or copy it again"
            ) from error

    def _merge_topics(self) -> dict[str, TopicInfo]:
        declared = [topic for file in self._files for topic in file.topics.values()]
        if not declared and self._damages:
            raise RecordingError(self._damage_report(self._damages, "Nothing in it can be read."))
        if declared and all(topic.serialization != "cdr" for topic in declared):
            found = ", ".join(sorted({topic.serialization for topic in declared}))
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
        """Decompresses a storage file into a temporary directory."""
        if self._unpacked is None:
            self._unpacked = tempfile.TemporaryDirectory(prefix="recording-")
        unpacked = Path(self._unpacked.name, path.stem)
        with path.open("rb") as packed, unpacked.open("wb") as file:
            try:
                zstandard.ZstdDecompressor().copy_stream(packed, file)
            except zstandard.ZstdError as error:
                self._damages.append(self._locate(path, f"its compression is damaged ({error})"))
        return unpacked

    def _locate(self, file: Path, damage: object) -> str:
        return f"{file.name}: {damage}" if self.path.is_dir() else str(damage)

    def _damage_report(self, damages: list[str], outcome: str) -> str:
        first, *others = dict.fromkeys(damages)
        more = f" (and {len(others)} more such places)" if others else ""
        return (
            f"{self.path}: damaged recording: {first}{more}. {outcome} Copy the recording again if its source is whole."
        )


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
        if type_name not in _TYPES.types:
            raise RecordingError(
                f"{topic}: type {type_name!r} is not one of ROS 2's common interfaces; it cannot be written"
            )
        raw = message if isinstance(message, bytes) else _TYPES.serialize_cdr(message, type_name)
        try:
            connection = self._connections.get(topic)
            if connection is None:
                connection = self._writer.add_connection(topic, type_name, typestore=_TYPES)
                self._connections[topic] = connection
            if connection.msgtype != type_name:
                raise RecordingError(f"{topic}: holds {connection.msgtype}; a {type_name} cannot be written to it")
            self._writer.write(connection, stamp_ns, raw)
        except _WRITE_ERRORS as failure:
            raise self._failed(failure) from failure


def find_image_topic(recording: Recording, topic: str | None = None) -> str:
    """The image topic that a recording is processed from: the one given, or else the only one that it has.

    Topics of references and of the system's own outputs, and topics without messages, do not count.

    Raises:
        RecordingError: the given one is not there or holds no images, there is none, or there are several.
    """
    there = "; ".join(f"{name} ({info.type}, {info.count})" for name, info in sorted(recording.topics.items()))
    there = f"topics in {recording.path}: {there or 'none'}"
    if topic is not None:
        if topic not in recording.topics:
            raise RecordingError(f"there is no topic {topic}; {there}")
        if recording.topics[topic].type not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
            raise RecordingError(f"{topic} holds no images but {recording.topics[topic].type}; {there}")
        return topic
    candidates = sorted(name for name, info in recording.topics.items() if _is_image_input(name, info))
    if not candidates:
        raise RecordingError(f"there is no image topic (Image or CompressedImage) with messages; {there}")
    if len(candidates) > 1:
        raise RecordingError(
            f"{recording.path} has {len(candidates)} image topics: {', '.join(candidates)}; "
            f"choose one with --image-topic {candidates[0]} (make demo: TOPIC={candidates[0]})"
        )
    return candidates[0]


def camera_prefix(image_topic: str) -> str:
    """The camera's name space: ``/front`` for ``/front/image_raw`` and ``/front/image_raw/compressed``."""
    return image_topic.removesuffix(topics.COMPRESSED).rpartition("/")[0]


def camera_of(image_topic: str) -> str:
    """The camera name under which a recorded topic is played: its prefix, or `camera` where it has none."""
    return camera_prefix(image_topic).strip("/") or "camera"


def reference_image_topic(image_topic: str) -> str:
    """Where a recording holds the clear image of each frame of a camera."""
    return topics.of(camera_prefix(image_topic), topics.REFERENCE_IMAGE)


def reference_mask_topic(image_topic: str) -> str:
    """Where a recording holds the true mask of each frame of a camera."""
    return topics.of(camera_prefix(image_topic), topics.REFERENCE_MASK)


def image_message(image: NDArray[np.uint8], encoding: Literal["rgb8", "mono8"], frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/Image for ``RecordingWriter``; arguments as for ``images.fill_image``."""
    message = _TYPES.types[IMAGE_TYPE](_header(frame_id, stamp_ns), 0, 0, "", 0, 0, np.empty(0, np.uint8))
    fill_image(message, image, encoding)
    return message


def compressed_image_message(
    image: NDArray[np.uint8], file_format: CompressedFormat, frame_id: str, stamp_ns: int, quality: int = 95
) -> Any:
    """A sensor_msgs/CompressedImage for ``RecordingWriter``; arguments as for ``images.fill_compressed``."""
    message = _TYPES.types[COMPRESSED_IMAGE_TYPE](_header(frame_id, stamp_ns), "", np.empty(0, np.uint8))
    fill_compressed(message, image, file_format, quality)
    return message


def camera_info_message(intrinsics: Intrinsics, frame_id: str, stamp_ns: int) -> Any:
    """A sensor_msgs/CameraInfo of a rectified, undistorted camera for ``RecordingWriter``."""
    k = np.array(intrinsics.k())
    projection = np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).reshape(-1)
    return _TYPES.types[CAMERA_INFO_TYPE](
        header=_header(frame_id, stamp_ns),
        height=intrinsics.height,
        width=intrinsics.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3).reshape(-1),
        p=projection,
        binning_x=0,
        binning_y=0,
        roi=_TYPES.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )


def _header(frame_id: str, stamp_ns: int) -> Any:
    stamp = _TYPES.types["builtin_interfaces/msg/Time"](*divmod(stamp_ns, 10**9))
    return _TYPES.types["std_msgs/msg/Header"](stamp, frame_id)


def _is_image_input(name: str, info: TopicInfo) -> bool:
    if info.type not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE) or not info.count:
        return False
    return "/reference/" not in name and "/coop/" not in name and not name.endswith("/compressedDepth")


def _storage_files(path: Path) -> list[Path]:
    if not path.exists():
        raise RecordingError(f"{path}: there is no such recording")
    if path.is_file():
        _refuse_ros1(path, [path])
        if not path.name.endswith(_SUFFIXES):
            raise RecordingError(
                f"{path}: is no recording; expected a rosbag2 directory or a {' or '.join(_SUFFIXES)} file"
            )
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
    listed = _listed_files(path / "metadata.yaml")
    missing = [name for name in listed if not (path / name).is_file()]
    if missing:
        raise RecordingError(
            f"{path}: metadata.yaml names {', '.join(missing)}, which the directory lacks; copy them there, "
            "or remove metadata.yaml to read the others"
        )
    if listed:
        return [path / name for name in listed]
    if not files:
        _refuse_ros1(path, sorted(path.iterdir()))
        raise RecordingError(f"{path}: holds no recording ({', '.join(_SUFFIXES)})")
    return files


def _listed_files(metadata: Path) -> list[str]:
    """The storage files that metadata.yaml names; none where it cannot be read, so that those there are taken."""
    try:
        content = yaml.safe_load(metadata.read_text())
        names = content["rosbag2_bagfile_information"]["relative_file_paths"]
        return [PurePath(name).name for name in names]  # early versions give paths that begin with the directory
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []


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
        return zstandard.ZstdDecompressor().decompress(raw)
    except zstandard.ZstdError as error:
        raise DamagedFileError(f"a compressed message is damaged ({error})") from error
