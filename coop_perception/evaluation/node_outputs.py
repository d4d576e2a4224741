"""Outputs that a node published, as recorded beside the frames that it got: of which bundle they are, their scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.conditions import Estimated
from coop_perception.evaluation.evaluated import Evaluation, evaluated
from coop_perception.evaluation.evaluation import (
    EvaluationError,
    Findings,
    Topics,
    bundle_facts,
    decode_frame,
    find_frames,
)
from coop_perception.evaluation.rows import Row, row_of
from coop_perception.evaluation.scoring import Before, Outputs, before, score
from coop_perception.evaluation.table import NAME as FRAMES
from coop_perception.evaluation.table import Table, save
from coop_perception.images import to_mask, to_rgb
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.frames import frames
from coop_perception.recordings.recording import Message, Recording
from coop_perception_msgs.msg import ModelInfo

UNANSWERED = "unanswered"
RECORDED = {"mask_raw": topics.MASK_RAW, "mask": topics.MASK, "restored": topics.RESTORED}
"""The outputs that are scored, and their topics."""


def check_bundle(bundle: Bundle, node_name: str, info: ModelInfo) -> None:
    """Raises EvaluationError unless a node runs this bundle, by what it says of itself."""
    ours = {name: network.sha256 for name, network in bundle.networks.items()}
    if {network.name: network.sha256 for network in info.networks} != ours:
        raise EvaluationError(
            f"{node_name} runs bundle {info.bundle_path}, whose networks are not those of {bundle.directory}; "
            "give the one that it runs as --bundle"
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What a node made of a recording.

    info: what it says of itself. outputs: recording of what it published, with the frames' stamps. answers: of each
    frame, in order of arrival, its stamp and the latency of its mask; None where it had none. conditions: what it said
    of frames' conditions, by stamp.
    """

    info: ModelInfo
    outputs: Path
    answers: Sequence[tuple[int, float | None]]
    conditions: Mapping[int, Estimated]


def evaluate_outputs(
    recording: Recording,
    chosen: Topics,
    bundle: Bundle,
    answered: Answered,
    findings: Findings,
    folder: Path,
    facts: Mapping[str, Any],
    known: Mapping[str, Any],
) -> Evaluation:
    """Score the frames whose outputs are all there; the others count as dropped. The rows go to frames.parquet.

    Args:
        recording: holds the frames and their references.
        chosen: its topics.
        bundle: names the classes.
        answered: by the node.
        findings: what is wrong with the recordings is added.
        folder: of results.
        facts: how it was done, for the summary.
        known: what is known better than by the rows.

    Raises:
        EvaluationError: no frame can be scored.
        ImageError, RecordingError, OSError: as their modules say.
    """
    with Recording(answered.outputs) as outputs:
        table = _score(recording, chosen, bundle, outputs, answered, findings, folder)
    processed = table.texts["status"] == "processed"
    if not processed.any():
        raise EvaluationError(f"{recording.path}: no frame on {chosen.image} has outputs that can be scored")
    answers = sum(latency is not None for _, latency in answered.answers)
    if processed.sum() < answers and not findings.interrupted:
        share = float(processed.sum() / answers)
        findings.note(f"only {processed.sum()} of the {answers} frames that were answered can be scored", share)
    silent = int((processed & np.isnan(table.numbers["restoration_ran"])).sum())
    if silent:
        findings.warnings.append(f"conditions of {silent} of {processed.sum()} frames are not there")
    facts = {
        "recording": str(recording.path),
        "image_topic": chosen.image,
        **facts,
        **bundle_facts(bundle),
        "backend": answered.info.backend,
        "precision": answered.info.precision,
        "device": answered.info.device,
    }
    with Recording(answered.outputs) as outputs:
        by_stamp = _in_order(outputs, camera_of(chosen.image))
        return evaluated(
            recording,
            [chosen],
            bundle,
            table,
            facts,
            findings,
            lambda _: lambda frame: by_stamp(frame.found.stamp_ns),
            known=known,
        )


def _score(
    recording: Recording,
    chosen: Topics,
    bundle: Bundle,
    outputs: Recording,
    answered: Answered,
    findings: Findings,
    folder: Path,
) -> Table:
    camera = camera_of(chosen.image)

    def rows() -> Iterator[Row]:
        waiting: dict[int, deque[float | None]] = {}  # stamps that repeat (unset, say) are answered in order of arrival
        for stamp, latency in answered.answers:
            waiting.setdefault(stamp, deque()).append(latency)
        outputs_by_stamp = _in_order(outputs, camera)
        earlier: Before | None = None
        found = find_frames(recording, chosen, findings)
        try:
            for one in track(found, "scoring", recording.topics[chosen.image].count):
                if one.stamp_ns not in waiting:
                    continue  # not played
                latencies = waiting[one.stamp_ns]
                latency = latencies.popleft() if latencies else None
                result = None if latency is None else outputs_by_stamp(one.stamp_ns)
                frame = decode_frame(recording, chosen, one)
                if frame.image is None or result is None:
                    row = row_of(camera, one, "dropped", "malformed" if frame.image is None else UNANSWERED)
                    row.warnings += frame.warnings
                    earlier = None
                    yield row
                    continue
                made = replace(result, conditions=answered.conditions.get(one.stamp_ns), latency_ms=latency)
                yield score(camera, frame, made, earlier, len(bundle.classes))
                earlier = before(frame, made)
        except KeyboardInterrupt:
            findings.interrupted = True

    table = save(folder / FRAMES, rows())
    findings.warnings = list(dict.fromkeys(findings.warnings))  # damage was met twice: by the caller, and here
    return table


def _in_order(outputs: Recording, camera: str) -> Callable[[int], Outputs | None]:
    """Look-up of a frame's recorded outputs by stamp, for ascending stamps: one pass, a few frames in memory. None
    of a frame of which some is missing: differences must compare the same frames."""
    names = {"/" + topics.of(camera, topic): output for output, topic in RECORDED.items()}
    groups = (whole for whole in frames(outputs, list(names)) if len(whole[1]) == len(names))
    waiting: dict[int, deque[Mapping[str, Message]]] = {}

    def take(stamp: int) -> Outputs | None:
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
        return Outputs(decoded["mask_raw"], decoded["mask"], None, decoded["restored"], None, None, {})

    return take
