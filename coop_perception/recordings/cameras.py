"""The topics that a recording holds of a camera."""

from __future__ import annotations

from coop_perception import topics
from coop_perception.recordings.messages import COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.recordings.recording import Recording, RecordingError, TopicInfo

ENOUGH = 0.9
"""Share of a camera's compressed images that raw ones must be to be taken."""


def find_image_topic(recording: Recording, topic: str | None = None) -> str:
    """The image topic that a recording is processed from: the one given, or else the only one that it has.

    Topics of references, of depth images and of the system's own outputs, and topics without messages, do not count.

    Raises:
        RecordingError: the given one is not there or holds no images, there is none, or there are several.
    """
    if topic is not None:
        there = _there(recording)
        if topic not in recording.topics:
            raise RecordingError(f"there is no topic {topic}; {there}")
        if recording.topics[topic].type not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
            raise RecordingError(f"{topic} holds no images but {recording.topics[topic].type}; {there}")
        return topic
    candidates = image_topics(recording)
    if len(candidates) > 1:
        raise RecordingError(
            f"{recording.path} has {len(candidates)} image topics: {', '.join(candidates)}; "
            f"choose one with --image-topic {candidates[0]} (make demo: TOPIC={candidates[0]})"
        )
    return candidates[0]


def image_topics(recording: Recording) -> list[str]:
    """The image topics of all cameras of a recording, one each: raw images rather than compressed ones of the same,
    unless these are more.

    Raises:
        RecordingError: there is none.
    """
    counts = {name: info.count for name, info in recording.topics.items() if _is_image_input(name, info) and info.count}
    if not counts:
        raise RecordingError(f"there is no image topic (Image or CompressedImage) with messages; {_there(recording)}")
    for raw in list(counts):
        compressed = raw + topics.COMPRESSED
        if compressed in counts:
            del counts[raw if counts[raw] < ENOUGH * counts[compressed] else compressed]
    return sorted(counts)


def empty_cameras(recording: Recording) -> list[str]:
    """The image topics of cameras that a recording names, and has nothing of."""
    named = {name for name, info in recording.topics.items() if _is_image_input(name, info)}
    there = {name.removesuffix(topics.COMPRESSED) for name in named if recording.topics[name].count}
    return sorted(name for name in named if name.removesuffix(topics.COMPRESSED) not in there)


def _there(recording: Recording) -> str:
    found = "; ".join(f"{name} ({info.type}, {info.count})" for name, info in sorted(recording.topics.items()))
    return f"topics in {recording.path}: {found or 'none'}"


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


def reference_condition_topic(image_topic: str) -> str:
    """Where a recording holds which conditions were applied to each frame of a camera."""
    return topics.of(camera_prefix(image_topic), topics.REFERENCE_CONDITION)


def _is_image_input(name: str, info: TopicInfo) -> bool:
    if info.type not in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE):
        return False
    inner = ("/reference/", "/coop/", "/depth/")
    return not any(part in name for part in inner) and not name.endswith("/compressedDepth")
