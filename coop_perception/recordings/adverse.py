"""A recording of clear weather becomes an adverse one: the camera's images change, all else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coop_perception import topics
from coop_perception.camera import Intrinsics
from coop_perception.classes import SemanticClass
from coop_perception.degradations import degrade_by
from coop_perception.degradations.depth import ground_plane_depth, with_unknown_filled
from coop_perception.degradations.scene import intrinsics_of
from coop_perception.degradations.street import depth_from_street_labels
from coop_perception.images import (
    EMPTY_BITS,
    ImageError,
    decode,
    fill_compressed,
    fill_image,
    leaves_high_bits_empty,
    to_depth,
    to_mask,
)
from coop_perception.recordings.cameras import (
    camera_prefix,
    find_image_topic,
    reference_condition_topic,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import (
    APPLIED_TYPE,
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    TYPES,
    applied_levels,
    applied_message,
)
from coop_perception.recordings.recording import Message, Recording, RecordingError
from coop_perception.recordings.schedule import Schedule
from coop_perception.recordings.sources import check_street
from coop_perception.recordings.writer import RecordingWriter

LEAST_READ = 0.9
"""Of a camera's images: with fewer that can be decoded, the recording is incomplete."""
LONGEST_PAUSE_S = 3600.0
"""Between images of one drive: log times farther apart are of two clocks, and a schedule's seconds say nothing."""


def make_adverse(
    bag: Path,
    image_topic: str | None,
    schedule: Schedule,
    seed: int,
    classes: Sequence[SemanticClass],
    writer: RecordingWriter,
    console: Console,
) -> str:
    """Copy a recording with one camera's images under the schedule's conditions, and its clear ones as references.

    Depth for fog and rain is the recording's own (`<camera>/depth/image_raw`), or made up from its reference masks, or
    that of an empty street.

    Args:
        bag: to be read.
        image_topic: of the camera; None where there is only one.
        schedule: seconds count from the first image's logging.
        seed: of the conditions' randomness.
        classes: of the reference masks.
        writer: of the copy.
        console: for progress, and for what was assumed or left out.

    Returns:
        Why the copy is incomplete: less than LEAST_READ of the images can be decoded, or the schedule meets none, or
        cannot be followed. Empty where it is not.

    Raises:
        RecordingError: it cannot be read to its end, or has no such topic.
        ImageError: its depth, masks or calibration do not fit its images.
        DatasetError: its masks' classes do not say what is ground and sky, and depth is needed.
    """
    with Recording(bag) as recording:
        topic = find_image_topic(recording, image_topic)
        camera = _Camera(recording, topic, schedule, seed, classes)
        count = recording.topics[topic].count
        unknown = [name for name, info in recording.topics.items() if info.type not in TYPES.types and info.count]
        others = set(recording.topics) - {topic, camera.applied, *unknown}
        messages = merge(
            track(camera.messages(count), "Recording", camera.writes * count, console=console),
            ((m.stamp_ns, m.topic, m.raw, m.type) for m in recording.messages(others)),
            key=lambda each: each[0],
        )
        for stamp_ns, name, message, type_name in messages:
            writer.write(name, message, type_name, stamp_ns)
    for name in unknown:
        kind = recording.topics[name].type
        console.print(f"{bag}: {name} is left out: {kind} is none of ROS 2's common interfaces", highlight=False)
    for line in camera.assumed:
        console.print(f"{topic}: {line}", highlight=False, soft_wrap=True)
    if schedule.unit == "seconds" and camera.pause_s > LONGEST_PAUSE_S and not schedule.is_constant:
        return (
            f"images of {topic} were logged up to {camera.pause_s:.0f} s apart, so the schedule's seconds were not "
            "the drive's: the first were recorded before the clock ran, perhaps; cut them off, or take unit: share"
        )
    if count and not camera.met:
        return f"none of {count} images of {topic} is within the schedule: they are as clear as they were"
    if not camera.unreadable:
        return ""
    said = f"{camera.unreadable} of {count} images of {topic} cannot be decoded and stay as they are"
    if count - camera.unreadable < LEAST_READ * count:
        return f"{said}: {camera.first_error}"
    console.print(f"{bag}: {said}: {camera.first_error}", highlight=False, soft_wrap=True)
    return ""


class _Camera:
    """One camera's images, made adverse. `assumed`: what stood in, and what is odd."""

    def __init__(
        self, recording: Recording, topic: str, schedule: Schedule, seed: int, classes: Sequence[SemanticClass]
    ) -> None:
        self._recording, self._topic, self._schedule, self._seed = recording, topic, schedule, seed
        prefix = camera_prefix(topic)
        self._reference = reference_image_topic(topic)
        self._depth, self._mask = topics.of(prefix, topics.DEPTH), reference_mask_topic(topic)
        self._info = topics.of(prefix, topics.CAMERA_INFO)
        self.applied = reference_condition_topic(topic)
        self.writes = 2 if self._reference in recording.topics else 3
        """Messages for each image."""
        self._classes = classes
        self.assumed: dict[str, None] = {}
        self.unreadable, self.first_error = 0, ""
        self.met, self.pause_s = 0, 0.0
        """Images that are under a condition; the longest time between two."""

    def messages(self, count: int) -> Iterator[tuple[int, str, Any, str]]:
        """Log time, topic, message and type, of the images and, where there are none, of their references."""
        kinds = {
            self._topic: None,
            self._depth: IMAGE_TYPE,
            self._mask: IMAGE_TYPE,
            self._info: CAMERA_INFO_TYPE,
            self.applied: APPLIED_TYPE,
        }
        known = self._recording.topics
        wanted = [name for name, kind in kinds.items() if name in known and kind in (None, known[name].type)]
        first_ns: int | None = None
        last_ns = index = 0
        for _, group in frames(self._recording, wanted):
            if self._topic not in group:
                continue
            given = group[self._topic]
            if first_ns is None:
                first_ns = last_ns = given.stamp_ns
            self.pause_s = max(self.pause_s, (given.stamp_ns - last_ns) / 1e9)
            last_ns = given.stamp_ns
            at = (given.stamp_ns - first_ns) / 1e9, index / max(count, 1)
            parameters = self._schedule.parameters(*at)
            self.met += bool(parameters)
            message = self._recording.deserialize(given)
            try:
                clear = decode(message)
                if leaves_high_bits_empty(message, clear):
                    self.assumed[f"images of 16 bits that stay {EMPTY_BITS}"] = None
            except ImageError as error:
                self.unreadable += 1
                self.first_error = self.first_error or str(error)
                yield given.stamp_ns, self._topic, given.raw, given.type
            else:
                if self._reference not in known:
                    yield given.stamp_ns, self._reference, _image(message.header, clear), IMAGE_TYPE
                adverse = self._adverse(clear, parameters, index, group)
                yield given.stamp_ns, self._topic, _like(message, given.type, adverse), given.type
                levels = self._levels(group) | self._schedule.levels(*at)
                header = message.header
                stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
                yield given.stamp_ns, self.applied, applied_message(levels, header.frame_id, stamp), APPLIED_TYPE
            index += 1

    def _levels(self, group: Mapping[str, Message]) -> dict[str, float]:
        """What had been applied before."""
        if self.applied not in group:
            return {}
        try:
            return applied_levels(self._recording.deserialize(group[self.applied]))
        except ValueError as error:
            raise RecordingError(f"{self.applied}: {error}") from error

    def _adverse(
        self, clear: NDArray[np.uint8], parameters: Mapping[str, float], index: int, group: Mapping[str, Message]
    ) -> NDArray[np.uint8]:
        if not self._schedule.needs_depth:
            return degrade_by(clear, parameters, seed=self._seed, frame=index)
        info = self._recording.deserialize(group[self._info]) if self._info in group else None
        intrinsics, assumed = intrinsics_of(info, clear.shape[1], clear.shape[0])
        if assumed:
            self.assumed[assumed] = None
        depth = self._depth_of(clear, intrinsics, group)
        return degrade_by(clear, parameters, seed=self._seed, frame=index, depth=depth, intrinsics=intrinsics)

    def _depth_of(
        self, clear: NDArray[np.uint8], intrinsics: Intrinsics, group: Mapping[str, Message]
    ) -> NDArray[np.float32]:
        plane = ground_plane_depth(intrinsics)
        if self._depth in group:
            measured = to_depth(self._recording.deserialize(group[self._depth]))
            self._check_size(self._depth, measured, clear)
            return with_unknown_filled(measured, plane)
        if self._mask in group:
            check_street(self._classes)
            mask = to_mask(self._recording.deserialize(group[self._mask]))
            self._check_size(self._mask, mask, clear)
            return depth_from_street_labels(mask, clear, intrinsics, self._classes)
        self.assumed[f"neither {self._depth} nor {self._mask}: depth is that of an empty, level street"] = None
        return plane

    def _check_size(self, topic: str, found: NDArray[Any], clear: NDArray[np.uint8]) -> None:
        if found.shape != clear.shape[:2]:
            raise ImageError(
                f"{topic} is {found.shape[1]}x{found.shape[0]}, {self._topic} {clear.shape[1]}x{clear.shape[0]}; they "
                "must agree pixel by pixel"
            )


def _image(header: Any, image: NDArray[np.uint8]) -> Any:
    message = TYPES.types[IMAGE_TYPE](header, 0, 0, "", 0, 0, np.empty(0, np.uint8))
    fill_image(message, image, "rgb8")
    return message


def _like(message: Any, type_name: str, image: NDArray[np.uint8]) -> Any:
    """An image in a message of the type and header of another one."""
    if type_name != COMPRESSED_IMAGE_TYPE:
        return _image(message.header, image)
    compressed = TYPES.types[COMPRESSED_IMAGE_TYPE](message.header, "", np.empty(0, np.uint8))
    fill_compressed(compressed, image, "jpeg", 95)
    return compressed
