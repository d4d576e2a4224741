"""evaluate_bag --live: the scores of what a running node made of a recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.wait_for_message import wait_for_message
from rich.progress import track

from coop_perception import topics
from coop_perception.bundle import Bundle
from coop_perception.camera_statistics import percentiles
from coop_perception.evaluate_bag import Evaluation, EvaluationError, SampleChooser, Topics, bundle_facts, read_frames
from coop_perception.images import to_mask, to_rgb
from coop_perception.live import RECORDED, LiveError, Played, camera_of, play
from coop_perception.recorded_frames import frames
from coop_perception.recordings import Message, Recording
from coop_perception.report import Sample
from coop_perception.scoring import Scores, condition_summary
from coop_perception_msgs.msg import ModelInfo


def evaluate_live(recording: Recording, chosen: Topics, bundle: Bundle, node_name: str, out: Path) -> Evaluation:
    """Play the recording to the node, record its outputs to `out`/outputs, and score them.

    Raises:
        EvaluationError: the node is not there, runs another bundle, or lost a frame's outputs.
        RecordingError, ScoringError: as their modules say.
    """
    out.mkdir(parents=True, exist_ok=True)
    rclpy.init()
    try:
        info = _model_info(node_name)
        ours = {name: network.sha256 for name, network in bundle.networks.items()}
        if any(ours.get(network.name) != network.sha256 for network in info.networks):
            raise EvaluationError(
                f"{node_name} runs bundle {info.bundle_path}, whose networks are not those of {bundle.directory}; "
                "give the one that it runs as --bundle"
            )
        played = play(recording, chosen.image, node_name, out / "outputs")
    except LiveError as error:
        raise EvaluationError(str(error)) from error
    finally:
        rclpy.try_shutdown()
    problems = [played.damage] if played.damage else []
    if played.received < played.frames:
        problems.append(
            f"{played.frames - played.received} frames were lost on the way to the node; with its parameters "
            "qos_overrides.<image topic>.subscription.reliability: reliable and .history: keep_all none are"
        )
    with Recording(out / "outputs") as outputs:
        scores, samples = _score(recording, chosen, bundle, outputs, camera_of(chosen.image), played, problems)
    p50, p95, p99 = percentiles(list(played.latency_ms.values()))
    summary = {
        "recording": str(recording.path),
        "image_topic": chosen.image,
        "mode": "live",
        **bundle_facts(bundle),
        "backend": info.backend,
        "device": info.device,
        "frames": {
            "read": played.frames,
            "processed": played.processed,
            "dropped": sum(played.dropped.values()),
        },
        "dropped_by_reason": played.dropped,
        "fps": played.processed / played.seconds if played.seconds else 0.0,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": played.stages_ms,
        **scores.summary(),
        **({"condition": condition_summary(played.conditions)} if played.conditions else {}),
    }
    return Evaluation(summary, scores, samples, problems)


def _model_info(node_name: str) -> ModelInfo:
    node = Node("evaluate_bag_model_info")
    try:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = f"{node_name}/{topics.MODEL_INFO.removeprefix('~/')}"
        found, info = wait_for_message(ModelInfo, node, topic, qos_profile=latched, time_to_wait=20)
    finally:
        node.destroy_node()
    if not found:
        raise EvaluationError(f"no node publishes {topic} within 20 s; start the node and configure it first")
    return info


def _score(
    recording: Recording,
    chosen: Topics,
    bundle: Bundle,
    outputs: Recording,
    camera: str,
    played: Played,
    problems: list[str],
) -> tuple[Scores, list[Sample]]:
    scores, chooser = Scores(bundle.classes), SampleChooser(played.processed)
    outputs_by_stamp = _in_order(outputs, camera)
    noted = list(problems)
    for frame in track(read_frames(recording, chosen, problems), "scoring", played.frames):
        result = outputs_by_stamp(frame.stamp_ns)
        # A frame of which some output is missing is not scored at all: differences must compare the same frames.
        if frame.image is None or result is None or any(value is None for value in result.values()):
            continue
        sample = frame.sample(result["mask_raw"], result["mask"], result["restored"])
        scores.add(sample, frame.time_s, played.latency_ms.get(frame.stamp_ns))
        chooser.offer(sample)
    problems[:] = list(dict.fromkeys([*noted, *problems]))  # damage was met twice: when playing, and here
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
