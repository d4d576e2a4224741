"""Outputs that a node published, as recorded beside the frames that it got: of which bundle they are, their scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import EvaluationError, Findings, SampleChooser, Topics, read_frames
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
    answers: Sequence[tuple[int, float | None]],
    findings: Findings,
) -> tuple[Scores, list[Sample]]:
    """Score the frames whose outputs are all there; a few of them come back as pictures.

    Args:
        recording: holds the frames and their references.
        chosen: its topics.
        bundle: names the classes.
        outputs: holds what the node published for the frames, with their stamps; not the same object as `recording`.
        camera: the name under which the node published.
        answers: of each frame, in order of arrival, its stamp and the latency of its mask; None where it had none.
        findings: what is wrong with the recordings is added.

    Raises:
        ImageError, RecordingError, ScoringError: as their modules say.
    """
    answered = [latency for _, latency in answers if latency is not None]
    scores, chooser = Scores(bundle.classes), SampleChooser(len(answered))
    waiting: dict[int, deque[float | None]] = {}  # stamps that repeat (unset, say) are answered in order of arrival
    for stamp, latency in answers:
        waiting.setdefault(stamp, deque()).append(latency)
    outputs_by_stamp = _in_order(outputs, camera)
    total = recording.topics[chosen.image].count
    try:
        for frame in track(read_frames(recording, chosen, findings), "scoring", total):
            latencies = waiting.get(frame.stamp_ns)
            latency = latencies.popleft() if latencies else None
            result = None if latency is None else outputs_by_stamp(frame.stamp_ns)
            if frame.image is None or result is None:
                continue
            sample = frame.sample(result["mask_raw"], result["mask"], result["restored"])
            scores.add(sample, frame.time_s, latency)
            chooser.offer(sample)
    except KeyboardInterrupt:
        findings.interrupted = True
    findings.warnings = list(dict.fromkeys(findings.warnings))  # damage was met twice: by the caller, and here
    return scores, chooser.samples


def _in_order(outputs: Recording, camera: str) -> Callable[[int], Mapping[str, NDArray[np.uint8]] | None]:
    """Look-up of a frame's recorded outputs by stamp, for ascending stamps: one pass, a few frames in memory. None
    of a frame of which some is missing: differences must compare the same frames."""
    names = {"/" + topics.of(camera, topic): output for output, topic in RECORDED.items()}
    groups = (whole for whole in frames(outputs, list(names)) if len(whole[1]) == len(names))
    waiting: dict[int, deque[Mapping[str, Message]]] = {}

    def take(stamp: int) -> Mapping[str, NDArray[np.uint8]] | None:
        while not waiting.get(stamp) and not any(later > stamp for later in waiting):
            following = next(groups, None)
            if following is None:
                break
            waiting.setdefault(following[0], deque()).append(following[1])
        if not waiting.get(stamp):
            return None
        group = waiting[stamp].popleft()
        if not waiting[stamp]:
            del waiting[stamp]
        decoded: dict[str, NDArray[np.uint8]] = {}
        for topic, message in group.items():
            decode = to_rgb if names[topic] == "restored" else to_mask
            decoded[names[topic]] = decode(outputs.deserialize(message))
        return decoded

    return take
