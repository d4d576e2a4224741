"""evaluate_bag --recorded: the scores of what a node published while it was recorded together with its input."""

from __future__ import annotations

from dataclasses import dataclass, field

from rclpy.serialization import deserialize_message

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import Evaluation, EvaluationError, Topics, bundle_facts
from coop_perception.evaluation.outputs import RECORDED, check_bundle, score_outputs
from coop_perception.evaluation.scoring import condition_summary
from coop_perception.metrics import percentiles
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.frames import frames
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception_msgs.msg import ImageCondition, ModelInfo

MODEL_INFO_TYPE = "coop_perception_msgs/msg/ModelInfo"


@dataclass(slots=True)
class _Log:
    """When frames and their outputs were recorded. By header stamp in ns."""

    images: int = 0
    latency_ms: dict[int, float] = field(default_factory=dict)
    """From the image's reception by the recorder to the mask's, of frames whose outputs are all there."""
    first_ns: int = 0
    last_ns: int = 0


def evaluate_recorded(recording: Recording, chosen: Topics, bundle: Bundle) -> Evaluation:
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
    problems: list[str] = []
    info = _model_info(recording, bundle)
    log = _log(recording, chosen.image, output_topics, problems)
    if not log.latency_ms:
        raise EvaluationError(f"{recording.path}: no image on {chosen.image} has all its outputs")
    conditions = _conditions(recording, "/" + topics.of(camera, topics.CONDITION), problems)
    with Recording(recording.path) as outputs:
        scores, samples = score_outputs(recording, chosen, bundle, outputs, camera, log.latency_ms, problems)
    processed = len(log.latency_ms)
    p50, p95, p99 = percentiles(list(log.latency_ms.values()))
    seconds = (log.last_ns - log.first_ns) / 1e9
    summary = {
        "recording": str(recording.path),
        "image_topic": chosen.image,
        "mode": "recorded",
        **bundle_facts(bundle),
        "backend": info.backend,
        "device": info.device,
        "frames": {"read": log.images, "processed": processed, "dropped": log.images - processed},
        "dropped_by_reason": {"unanswered": log.images - processed} if log.images > processed else {},
        "fps": processed / seconds if seconds > 0 else 0.0,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {},
        **scores.summary(),
        **({"condition": condition_summary(conditions)} if conditions else {}),
    }
    return Evaluation(summary, scores, samples, problems)


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
    message = next(recording.messages(names))
    info = deserialize_message(message.raw, ModelInfo)
    check_bundle(bundle, message.topic.removesuffix("/model_info"), info)
    return info


def _log(recording: Recording, image_topic: str, output_topics: list[str], problems: list[str]) -> _Log:
    log = _Log()
    mask_topic = next(topic for topic in output_topics if topic.endswith(topics.MASK))
    try:
        for stamp, group in frames(recording, [image_topic, *output_topics]):
            if image_topic not in group:
                continue
            log.images += 1
            log.first_ns = log.first_ns or group[image_topic].stamp_ns
            if all(topic in group for topic in output_topics):
                log.latency_ms[stamp] = (group[mask_topic].stamp_ns - group[image_topic].stamp_ns) / 1e6
                log.last_ns = max(log.last_ns, group[mask_topic].stamp_ns)
    except RecordingError as error:
        problems.append(str(error))
    return log


def _conditions(recording: Recording, topic: str, problems: list[str]) -> list[tuple[str, float]]:
    conditions = []
    try:
        for message in recording.messages([topic]):
            condition = deserialize_message(message.raw, ImageCondition)
            conditions.append((condition.most_likely, condition.strength))
    except RecordingError as error:
        problems.append(str(error))
    return conditions
