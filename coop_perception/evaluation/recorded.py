"""evaluate_bag --recorded: the scores of what a node published while it was recorded together with its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rclpy.serialization import deserialize_message

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.conditions import Estimated, of_message
from coop_perception.evaluation.evaluated import Evaluation
from coop_perception.evaluation.evaluation import EvaluationError, Findings, Topics
from coop_perception.evaluation.node_outputs import RECORDED, Answered, check_bundle, evaluate_outputs
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.frames import frames, header_stamp
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception_msgs.msg import ImageCondition, ModelInfo

MODEL_INFO_TYPE = "coop_perception_msgs/msg/ModelInfo"


@dataclass(slots=True)
class _Log:
    """When frames and their outputs were recorded."""

    answers: list[tuple[int, float | None]] = field(default_factory=list)
    """Of each image, in order of arrival, its header stamp in ns, and ms from its reception by the recorder to that of
    its mask; None where not all outputs are there."""
    first_ns: int = 0
    last_ns: int = 0


def evaluate_recorded(recording: Recording, chosen: Topics, bundle: Bundle, out: Path) -> Evaluation:
    """Score the outputs that the recording holds; a frame without all of them counts as dropped.

    Raises:
        EvaluationError: the recording holds no outputs for the image topic, or those of another bundle.
        RecordingError, ScoringError: as their modules say.
    """
    camera = camera_of(chosen.image)
    output_topics = ["/" + topics.of(camera, topic) for topic in RECORDED.values()]
    missing = [topic for topic in output_topics if topic not in recording.topics]
    if missing:
        raise EvaluationError(
            f"{recording.path} does not hold {', '.join(missing)}; record the node with pipeline.launch.py record:=DIR"
        )
    findings = Findings()
    info = _model_info(recording, bundle)
    log = _log(recording, chosen.image, output_topics, findings)
    latencies = [latency for _, latency in log.answers if latency is not None]
    if not latencies:
        raise EvaluationError(f"{recording.path}: no image on {chosen.image} has all its outputs")
    if len(latencies) < len(log.answers):
        share = len(latencies) / len(log.answers)
        findings.note(f"the node answered only {len(latencies)} of {len(log.answers)} images", share)
    conditions = _conditions(recording, "/" + topics.of(camera, topics.CONDITION), findings)
    seconds = (log.last_ns - log.first_ns) / 1e9
    known = {"fps": len(latencies) / seconds if seconds > 0 else 0.0}
    answered = Answered(info, recording.path, log.answers, conditions)
    return evaluate_outputs(recording, chosen, bundle, answered, findings, out, {"mode": "recorded"}, known)


def _model_info(recording: Recording, bundle: Bundle) -> ModelInfo:
    """What the recorded node says of itself.

    Raises:
        EvaluationError: it says nothing, or that it ran another bundle.
    """
    names = [name for name, topic in recording.topics.items() if topic.type == MODEL_INFO_TYPE and topic.count]
    if not names:
        raise EvaluationError(
            f"{recording.path} does not say which bundle the node ran: it holds no {MODEL_INFO_TYPE}; record "
            f"/{topics.NODE}/model_info too"
        )
    info: ModelInfo | None = None
    for message in recording.messages(names):  # each bundle that it loaded, or that another node did
        info = deserialize_message(message.raw, ModelInfo)
        check_bundle(bundle, message.topic.removesuffix("/model_info"), info)
    assert info is not None
    return info


def _log(recording: Recording, image_topic: str, output_topics: list[str], findings: Findings) -> _Log:
    log = _Log()
    mask_topic = next(topic for topic in output_topics if topic.endswith(topics.MASK))
    try:
        for stamp, group in frames(recording, [image_topic, *output_topics]):
            if image_topic not in group:
                continue
            log.first_ns = log.first_ns or group[image_topic].stamp_ns
            latency = None
            if all(topic in group for topic in output_topics):
                latency = (group[mask_topic].stamp_ns - group[image_topic].stamp_ns) / 1e6
                log.last_ns = max(log.last_ns, group[mask_topic].stamp_ns)
            log.answers.append((stamp, latency))
    except RecordingError as error:
        findings.warnings.append(str(error))
    return log


def _conditions(recording: Recording, topic: str, findings: Findings) -> dict[int, Estimated]:
    conditions: dict[int, Estimated] = {}
    read = 0
    try:
        for message in recording.messages([topic]):
            try:
                condition = deserialize_message(message.raw, ImageCondition)
                conditions[header_stamp(message.raw)] = of_message(condition)
            except ValueError as error:
                raise EvaluationError(f"{recording.path}: {topic}: {error}") from error
            read += 1
    except RecordingError as error:
        findings.warnings.append(str(error))
    if len(conditions) < read:
        findings.warnings.append(
            f"{read} messages on {topic} have {len(conditions)} different stamps: conditions of frames that share one "
            "are not told apart"
        )
    return conditions
