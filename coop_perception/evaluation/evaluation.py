"""What every way of evaluating a recording shares: its topics, its frames as they are read, and the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.folders import Folders
from coop_perception.image_files import DatasetError
from coop_perception.images import EMPTY_BITS, decode, leaves_high_bits_empty, to_mask
from coop_perception.recordings.cameras import (
    camera_prefix,
    find_image_topic,
    reference_condition_topic,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.recordings.frames import frames
from coop_perception.recordings.messages import APPLIED_TYPE, applied_levels
from coop_perception.recordings.recording import Message, Recording, RecordingError

T = TypeVar("T")
LEAST_SHARE = 0.9
"""Of what was there: results that rest on less are incomplete."""


class EvaluationError(RuntimeError):
    """An evaluation that cannot be made, or that lost frames."""


class NotAloneError(EvaluationError):
    """Several nodes have the name of the one that is to be evaluated: what is sent to one, all of them answer."""

    def __init__(self, count: int, node_name: str) -> None:
        super().__init__(topics.several_nodes(count, node_name))


@dataclass(frozen=True, slots=True)
class Topics:
    """The recorded topics to evaluate; references are None where the recording has none."""

    image: str
    reference_image: str | None
    reference_mask: str | None
    reference_condition: str | None = None
    """Which conditions were applied."""

    def present(self) -> list[str]:
        every = (self.image, self.reference_image, self.reference_mask, self.reference_condition)
        return [topic for topic in every if topic is not None]


@dataclass(slots=True)
class Findings:
    """What went wrong on the way, in words, and what that makes of the results."""

    warnings: list[str] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)
    """Those of the warnings by which the results rest on less than LEAST_SHARE of what was there."""
    interrupted: bool = False

    def note(self, warning: str, share: float) -> None:
        """Add a warning of what rests on this share of what was there."""
        self.warnings.append(warning)
        if share < LEAST_SHARE:
            self.incomplete.append(warning)


def choose_topics(
    recording: Recording, image: str | None, reference_image: str | None, reference_mask: str | None
) -> Topics:
    """The topics named, or else those that the recording has.

    Raises:
        RecordingError: a named topic is not in the recording, or no image topic can be chosen.
    """
    image = find_image_topic(recording, image)
    for named in (reference_image, reference_mask):
        if named is not None and named not in recording.topics:
            raise RecordingError(
                f"there is no topic {named}; topics in {recording.path}: {', '.join(recording.topics)}"
            )

    def otherwise(topic: str) -> str | None:
        return topic if topic in recording.topics else None

    applied = recording.topics.get(reference_condition_topic(image))
    return Topics(
        image,
        reference_image or otherwise(reference_image_topic(image)),
        reference_mask or otherwise(reference_mask_topic(image)),
        reference_condition_topic(image) if applied is not None and applied.type == APPLIED_TYPE else None,
    )


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    networks = {name: network.sha256 for name, network in bundle.networks.items()}
    return {"bundle": {"name": bundle.name, "path": str(bundle.directory), "sha256": networks}}


@dataclass(frozen=True, slots=True)
class Selection:
    """Which of a recording's frames are evaluated: seconds since its first image, and every n-th of those."""

    start_s: float = 0.0
    end_s: float = math.inf
    every: int = 1

    @property
    def whole(self) -> bool:
        return self == WHOLE

    def share(self, frame: int, time_s: float, frames: int) -> float:
        """Of a camera's frames, those that are chosen, by how many had come at a time."""
        lasts_s = frames * time_s / frame if frame else time_s
        span = max(0.0, min(self.end_s, lasts_s) - self.start_s) / lasts_s if lasts_s else 1.0
        return span / self.every


WHOLE = Selection()


@dataclass(frozen=True, slots=True)
class Found:
    """One frame as it was recorded. `index` counts all the recording's frames of this camera, chosen or not."""

    index: int
    stamp_ns: int
    time_s: float
    messages: Mapping[str, Message]

    @property
    def title(self) -> str:
        return f"frame {self.index}, {self.time_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame with its references, decoded. `image` is None where the message is malformed; `warnings` say what of
    it could not be used; `applied`: level by condition, None where the recording does not say."""

    found: Found
    image: NDArray[np.uint8] | None
    reference_image: NDArray[np.uint8] | None
    reference_mask: NDArray[np.uint8] | None
    warnings: tuple[str, ...]
    applied: Mapping[str, float] | None = None


def find_frames(
    recording: Recording, chosen: Topics, findings: Findings, selection: Selection = WHOLE
) -> Iterator[Found]:
    """The recording's frames. What is damaged, missing or of no use is added to `findings`."""
    first: int | None = None
    index = -1
    tally = _Tally(chosen.image)
    ended = False
    try:
        for stamp, group in frames(recording, chosen.present()):
            tally.add(stamp, group)
            if chosen.image not in group:
                continue
            index += 1
            logged = group[chosen.image].stamp_ns
            first = logged if first is None else first
            time_s = (logged - first) / 1e9
            if time_s > selection.end_s:
                ended = True
                break
            if time_s >= selection.start_s and index % selection.every == 0:
                yield Found(index, stamp, time_s, group)
    except RecordingError as error:
        findings.warnings.append(str(error))
    tally.tell(recording, chosen, findings, ended)


def decode_frame(recording: Recording, chosen: Topics, found: Found, folders: Folders | None = None) -> Frame:
    """A frame's pictures; its references from folders where there are some."""
    warnings = []

    def decoded(topic: str | None, decoder: Callable[[Any], T]) -> T | None:
        if topic is None or topic not in found.messages:
            return None
        try:
            return decoder(recording.deserialize(found.messages[topic]))
        except (ValueError, RecordingError) as error:
            warnings.append(f"{topic}: {error}")
            return None

    def image_of(message: Any) -> NDArray[np.uint8]:
        found = decode(message)
        if leaves_high_bits_empty(message, found):
            warnings.append(f"{chosen.image}: 16 bits that stay {EMPTY_BITS}")
        return found

    image, reference = decoded(chosen.image, image_of), decoded(chosen.reference_image, decode)
    mask = decoded(chosen.reference_mask, to_mask)
    applied = decoded(chosen.reference_condition, applied_levels)
    if folders is not None:
        try:
            reference = folders.image(found.stamp_ns, found.index) if reference is None else reference
        except DatasetError as error:
            warnings.append(f"reference image: {error}")
        try:
            mask = folders.mask(found.stamp_ns, found.index) if mask is None else mask
        except DatasetError as error:
            warnings.append(f"reference mask: {error}")
    return Frame(found, image, reference, mask, tuple(warnings), applied)


class _Tally:
    """Counts what was read of each topic, and which of it belongs to an image."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._read: Counter[str] = Counter()
        self._matched: Counter[str] = Counter()
        self._stamps: dict[str, dict[int, None]] = {}
        """Of images, and of references without one: the first two that differ."""

    def add(self, stamp: int, group: Mapping[str, Message]) -> None:
        has_image = self._image in group
        for topic in group:
            self._read[topic] += 1
            self._matched[topic] += has_image
            stamps = self._stamps.setdefault(topic, {})
            if len(stamps) < 2 and has_image == (topic == self._image):
                stamps[stamp] = None

    def tell(self, recording: Recording, chosen: Topics, findings: Findings, ended: bool) -> None:
        """`ended`: not to the recording's end."""
        for topic in chosen.present():
            read, expected, matched = self._read[topic], recording.expected(topic), self._matched[topic]
            if read < expected and not ended:
                findings.note(f"only {read} of {expected} messages on {topic} can be read", read / expected)
            if matched < read:
                count = f"only {matched} of {read} references have" if matched else f"none of {read} references has"
                stamps = f"images {self._written(self._image)}, references {self._written(topic)}"
                findings.note(f"{count} the stamp of an image ({stamps}): {topic}", matched / read)

        lost = {reference_image_topic(self._image), reference_mask_topic(self._image)} - recording.topics.keys()
        for topic in sorted(lost):
            if promised := recording.expected(topic):
                findings.note(f"metadata.yaml says {promised} messages on {topic}, and none is there", 0)

        info = recording.topics.get(topics.of(camera_prefix(self._image), topics.CAMERA_INFO))
        images = recording.expected(self._image)
        if info is not None and images < LEAST_SHARE * info.count:
            findings.warnings.append(
                f"the recording has {info.count} camera_info and {images} images on {self._image}: images were lost "
                "before it was written, and are not scored"
            )

    def _written(self, topic: str) -> str:
        stamps = list(self._stamps.get(topic, {}))
        if not stamps:
            return "none"
        text = f"{stamps[0] // 10**9}.{stamps[0] % 10**9:09}".rstrip("0").rstrip(".")
        return text + (" ..." if len(stamps) > 1 else "")
