"""Outputs that a node published, as recorded beside the frames that it got: of which bundle they are, their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import EvaluationError, SampleChooser, Topics, read_frames
from coop_perception.evaluation.report.frames import Sample
from coop_perception.evaluation.scoring import Scores
from coop_perception.images import to_mask, to_rgb
from coop_perception.recordings.frames import frames
from coop_perception.recordings.recording import Message, Recording
from coop_perception_msgs.msg import ModelInfo

RECORDED = {"mask_raw": topics.MASK_RAW, "mask": topics.MASK, "restored": topics.RESTORED}
"""The outputs that are scored, and their topics."""


def check_bundle(bundle: Bundle, node_name: str, info: ModelInfo) -> None:
    """Raises EvaluationError unless a node runs this bundle, by what it says of itself."""
    ours = {name: network.sha256 for name, network in bundle.networks.items()}
    if any(ours.get(network.name) != network.sha256 for network in info.networks):
        raise EvaluationError(
            f"{node_name} runs bundle {info.bundle_path}, whose networks are not those of {bundle.directory}; "
            "give the one that it runs as --bundle"
        )


def score_outputs(
    recording: Recording,
    chosen: Topics,
    bundle: Bundle,
    outputs: Recording,
    camera: str,
    latency_ms: Mapping[int, float],
    problems: list[str],
) -> tuple[Scores, list[Sample]]:
    """Score the frames whose outputs are all there; a few of them come back as pictures.

    Args:
        recording: holds the frames and their references.
        chosen: its topics.
        bundle: names the classes.
        outputs: holds what the node published for the frames, with their stamps; not the same object as `recording`.
        camera: the name under which the node published.
        latency_ms: of each processed frame, by stamp.
        problems: what is wrong with the recordings is added.

    Raises:
        ImageError, RecordingError, ScoringError: as their modules say.
    """
    scores, chooser = Scores(bundle.classes), SampleChooser(len(latency_ms))
    outputs_by_stamp = _in_order(outputs, camera)
    noted = list(problems)
    total = recording.topics[chosen.image].count
    for frame in track(read_frames(recording, chosen, problems), "scoring", total):
        result = outputs_by_stamp(frame.stamp_ns)
        # A frame of which some output is missing is not scored at all: differences must compare the same frames.
        if frame.image is None or result is None or any(value is None for value in result.values()):
            continue
        sample = frame.sample(result["mask_raw"], result["mask"], result["restored"])
        scores.add(sample, frame.time_s, latency_ms.get(frame.stamp_ns))
        chooser.offer(sample)
    problems[:] = list(dict.fromkeys([*noted, *problems]))  # damage was met twice: by the caller, and here
    return scores, chooser.samples


def _in_order(outputs: Recording, camera: str) -> Callable[[int], Mapping[str, NDArray[np.uint8] | None] | None]:
    """Look-up of a frame's recorded outputs by stamp, for ascending stamps: one pass, a few frames in memory."""
    names = {"/" + topics.of(camera, topic): output for output, topic in RECORDED.items()}
    groups = frames(outputs, list(names))
    waiting: dict[int, Mapping[str, Message]] = {}

    def take(stamp: int) -> Mapping[str, NDArray[np.uint8] | None] | None:
        while stamp not in waiting and not any(later > stamp for later in waiting):
            following = next(groups, None)
            if following is None:
                break
            waiting[following[0]] = following[1]
        group = waiting.pop(stamp, None)
        if group is None:
            return None
        decoded: dict[str, NDArray[np.uint8] | None] = dict.fromkeys(RECORDED)
        for topic, message in group.items():
            decode = to_rgb if names[topic] == "restored" else to_mask
            decoded[names[topic]] = decode(outputs.deserialize(message))
        return decoded

    return take
