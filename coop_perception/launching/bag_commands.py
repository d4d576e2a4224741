"""What the launch files start of rosbag2's command line, which topics it records, and under which names it plays."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coop_perception import topics
from coop_perception.recordings.cameras import (
    camera_of,
    camera_prefix,
    find_image_topic,
    reference_condition_topic,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.recordings.messages import CAMERA_INFO_TYPE, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.recordings.recording import Recording

CAMERA_TOPICS = (
    topics.IMAGE,
    topics.IMAGE + topics.COMPRESSED,
    topics.CAMERA_INFO,
    topics.REFERENCE_IMAGE,
    topics.REFERENCE_MASK,
    topics.REFERENCE_CONDITION,
    topics.MASK,
    topics.MASK_RAW,
    topics.CONFIDENCE,
    topics.RESTORED,
    topics.CONDITION,
    topics.OUT_CAMERA_INFO,
    topics.LABEL_INFO,
)
"""Recorded of each camera. Overlay and compressed image follow from these: not computed for a recorder alone."""
NODE_TOPICS = (topics.MODEL_INFO, topics.STATUS)
DISCOVERY_S = 3.0
"""How long a player waits for its subscribers to find it."""


def record_command(directory: str, names: Iterable[str]) -> list[str]:
    """Records topics to a new recording `directory`, in the format that ROS is set to.

    Args:
        directory: must not exist.
        names: fully resolved; a topic that is not there yet is waited for.
    """
    expression = "|".join(map(re.escape, sorted(names)))
    # Not --topics, which ROS 2 Humble has not.
    return ["ros2", "bag", "record", "--output", directory, "--regex", f"^({expression})$"]


def recorded_topics(camera: str) -> list[str]:
    """Inputs and outputs of a camera, and what the node says of itself, where nothing is remapped."""
    of_camera = [f"/{topics.of(camera, topic)}" for topic in CAMERA_TOPICS]
    of_node = [topic.replace("~", f"/{topics.NODE}") for topic in NODE_TOPICS]
    return [*of_camera, *of_node, topics.DIAGNOSTICS]


def used_topics(subscribed: Mapping[str, str], published: Mapping[str, str]) -> set[str]:
    """What is recorded of a perception node that serves: what it reads and publishes, and its images' references.

    Args:
        subscribed: topics by their resolved names, each with its type; likewise `published`.

    Returns:
        Nothing while it reads no images. Neither overlay, nor the compressed image, which follow from the rest and are
        not computed for a recorder alone; an overlay of another name is not told from an output.
    """
    images = [name for name, kind in subscribed.items() if kind in (IMAGE_TYPE, COMPRESSED_IMAGE_TYPE)]
    if not images:
        return set()
    infos = [name for name, kind in subscribed.items() if kind == CAMERA_INFO_TYPE]
    kinds = (reference_image_topic, reference_mask_topic, reference_condition_topic)
    references = [of(image) for image in images for of in kinds]
    outputs = [
        name
        for name, kind in published.items()
        if not kind.startswith(("rcl_interfaces/", "lifecycle_msgs/"))
        and kind != COMPRESSED_IMAGE_TYPE
        and not name.endswith(f"/{topics.OVERLAY}")
    ]
    return {*images, *infos, *references, *outputs}


@dataclass(frozen=True, slots=True)
class Replay:
    """A recording as the node's input."""

    camera: str
    transport: str
    """`raw` or `compressed`: the nodes' parameter `image_transport`."""
    depth: bool
    """Whether depth images are among what is played."""
    command: list[str]
    """Plays it once."""


def replay(bag: Path, image_topic: str | None = None, degraded: bool = False, rate: float = 1.0) -> Replay:
    """How a recording is played: its images, their camera_info and references, under the names of the nodes' topics.

    Args:
        bag: the recording.
        image_topic: which of its image topics; None: the only one.
        degraded: to degrade_node, which makes the reference image of what it gets, and not straight to the node.
        rate: 1 is the recording's own pace.

    Raises:
        RecordingError: there is no such recording or topic.
    """
    with Recording(bag) as recording:
        image = find_image_topic(recording, image_topic)
        there = recording.topics
    camera = camera_of(image)
    compressed = there[image].type == COMPRESSED_IMAGE_TYPE
    suffix = topics.COMPRESSED if compressed else ""
    info = topics.of(camera_prefix(image), topics.CAMERA_INFO)
    depth = topics.of(camera_prefix(image), topics.DEPTH)
    names = {
        image: topics.of(camera, topics.CLEAN_IMAGE if degraded else topics.IMAGE) + suffix,
        info: topics.of(camera, topics.CLEAN_CAMERA_INFO if degraded else topics.CAMERA_INFO),
        depth: topics.of(camera, topics.DEPTH),
        reference_mask_topic(image): topics.of(camera, topics.REFERENCE_MASK),
    }
    if not degraded:
        names[reference_image_topic(image)] = topics.of(camera, topics.REFERENCE_IMAGE)
        names[reference_condition_topic(image)] = topics.of(camera, topics.REFERENCE_CONDITION)
    played = {old: f"/{new}" for old, new in names.items() if old in there}
    renamed = [f"{old}:={new}" for old, new in played.items() if old != new]
    command = ["ros2", "bag", "play", str(bag), "--rate", f"{rate:g}", "--delay", f"{DISCOVERY_S:g}"]
    command += ["--topics", *played, *(["--remap", *renamed] if renamed else [])]
    return Replay(camera, "compressed" if compressed else "raw", depth in there, command)
