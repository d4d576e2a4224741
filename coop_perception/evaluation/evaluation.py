"""What every way of evaluating a recording shares: its topics, its frames as they are read, and the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.report.frames import Sample
from coop_perception.evaluation.scoring import Scores
from coop_perception.images import ImageError, decode, to_mask
from coop_perception.recordings.cameras import (
    camera_prefix,
    find_image_topic,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.recordings.frames import frames
from coop_perception.recordings.recording import Message, Recording, RecordingError

OVERVIEW_COLUMNS = 4
LEAST_SHARE = 0.9
"""Of what was there: results that rest on less are incomplete."""


class EvaluationError(RuntimeError):
    """An evaluation that cannot be made, or that lost frames."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The recorded topics to evaluate; references are None where the recording has none."""

    image: str
    reference_image: str | None
    reference_mask: str | None

    def present(self) -> list[str]:
        return [topic for topic in (self.image, self.reference_image, self.reference_mask) if topic is not None]


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


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A summary as `summary.json` holds it, what pictures it rests on, and what went wrong on the way."""

    summary: dict[str, Any]
    scores: Scores
    samples: list[Sample]
    findings: Findings


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

    return Topics(
        image,
        reference_image or otherwise(reference_image_topic(image)),
        reference_mask or otherwise(reference_mask_topic(image)),
    )


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    networks = {name: network.sha256 for name, network in bundle.networks.items()}
    return {"bundle": {"name": bundle.name, "path": str(bundle.directory), "sha256": networks}}


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded frame with its references, decoded. `image` is None where the message is malformed."""

    index: int
    stamp_ns: int
    time_s: float
    image: NDArray[np.uint8] | None
    reference_image: NDArray[np.uint8] | None
    reference_mask: NDArray[np.uint8] | None

    def sample(
        self,
        mask_raw: NDArray[np.uint8] | None,
        mask: NDArray[np.uint8] | None,
        restored: NDArray[np.uint8] | None,
    ) -> Sample:
        assert self.image is not None
        return Sample(
            title=f"frame {self.index}, {self.time_s:.1f} s",
            image=self.image,
            mask_raw=mask_raw,
            mask=mask,
            restored=restored,
            reference_image=self.reference_image,
            reference_mask=self.reference_mask,
        )


def read_frames(recording: Recording, chosen: Topics, findings: Findings) -> Iterator[Frame]:
    """The recording's frames. What is malformed, damaged, missing or of no use is added to `findings`."""
    first: int | None = None
    index = 0
    tally = _Tally(chosen.image)
    try:
        for stamp, group in frames(recording, chosen.present()):
            tally.add(stamp, group)
            if chosen.image not in group:
                continue
            message = group[chosen.image]
            first = message.stamp_ns if first is None else first
            decoded: dict[str, NDArray[np.uint8] | None] = {}
            for topic, decoder in (
                (chosen.image, decode),
                (chosen.reference_image, decode),
                (chosen.reference_mask, to_mask),
            ):
                if topic is None or topic not in group:
                    continue
                try:
                    decoded[topic] = decoder(recording.deserialize(group[topic]))
                except (ImageError, RecordingError) as error:
                    findings.warnings.append(f"frame {index} on {topic}: {error}")
                    tally.unusable[topic] += 1
            yield Frame(
                index,
                stamp,
                (message.stamp_ns - first) / 1e9,
                decoded.get(chosen.image),
                decoded.get(chosen.reference_image or ""),
                decoded.get(chosen.reference_mask or ""),
            )
            index += 1
    except RecordingError as error:
        findings.warnings.append(str(error))
    tally.tell(recording, chosen, findings)


class _Tally:
    """Counts what was read of each topic, and which of it belongs to an image."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._read: Counter[str] = Counter()
        self._matched: Counter[str] = Counter()
        self.unusable: Counter[str] = Counter()
        """What was read and cannot be decoded."""
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

    def tell(self, recording: Recording, chosen: Topics, findings: Findings) -> None:
        for topic in chosen.present():
            read, expected, matched = self._read[topic], recording.expected(topic), self._matched[topic]
            if read < expected:
                findings.note(f"only {read} of {expected} messages on {topic} can be read", read / expected)
            if topic != self._image and (unusable := self.unusable[topic]):
                findings.note(f"{unusable} of {read} references on {topic} cannot be used", 1 - unusable / read)
            if matched < read:
                count = f"only {matched} of {read} references have" if matched else f"none of {read} references has"
                stamps = f"images {self._written(self._image)}, references {self._written(topic)}"
                findings.note(f"{count} the stamp of an image ({stamps}): {topic}", matched / read)

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


class SampleChooser:
    """Keeps a few frames, evenly spread over a recording of about `count` frames, for the overview."""

    def __init__(self, count: int) -> None:
        spread = (np.arange(OVERVIEW_COLUMNS) + 0.5) / OVERVIEW_COLUMNS * count
        self._due = [int(position) for position in spread]
        self._offered = 0
        self.samples: list[Sample] = []

    def offer(self, sample: Sample) -> None:
        if len(self.samples) < OVERVIEW_COLUMNS and self._offered >= self._due[len(self.samples)]:
            self.samples.append(sample)
        self._offered += 1
