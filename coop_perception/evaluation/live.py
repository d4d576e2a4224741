"""evaluate_bag --live: the scores of what a running node made of a recording."""

from __future__ import annotations

import time
from pathlib import Path

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from rich.console import Console

from coop_perception import topics
from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluated import Evaluation
from coop_perception.evaluation.evaluation import EvaluationError, Findings, Topics
from coop_perception.evaluation.node_outputs import Answered, check_bundle, evaluate_outputs
from coop_perception.evaluation.player import LONGEST_GAP_S, LiveError, check_alone, play
from coop_perception.evaluation.results import OUTPUTS
from coop_perception.recordings.recording import Recording
from coop_perception.ros.initialising import initialise
from coop_perception_msgs.msg import ModelInfo

MODEL_INFO_S = 20.0
"""How long a node that has nothing loaded, or is not there, is waited for."""
ASK_AGAIN_S = 3.0


def evaluate_live(
    recording: Recording, chosen: Topics, bundle: Bundle, node_name: str, out: Path, rate: float | None = 1.0
) -> Evaluation:
    """Play the recording to the node at a rate (`play`), record its outputs to `out`/outputs, and score them.

    Raises:
        EvaluationError: the node is not there, runs another bundle, or lost a frame's outputs.
        RecordingError, ScoringError: as their modules say.
    """
    initialise(signal_handler_options=SignalHandlerOptions.NO)  # Ctrl-C ends the playing, not what comes after it
    try:
        info = _model_info(node_name)
        check_bundle(bundle, node_name, info)
        played = play(recording, chosen.image, node_name, out / OUTPUTS, rate)
    except LiveError as error:
        raise EvaluationError(str(error)) from error
    finally:
        rclpy.try_shutdown()
    findings = Findings([played.damage] if played.damage else [], interrupted=played.interrupted)
    if played.interrupted:
        findings.warnings.append(f"interrupted after {played.frames} of {recording.expected(chosen.image)} frames")
    elif played.received < played.frames:
        findings.warnings.append(
            f"{played.frames - played.received} frames were lost on the way to the node; with its parameters "
            "qos_overrides.<image topic>.subscription.reliability: reliable and .history: keep_all none are"
        )
    if played.processed < played.frames and not played.interrupted:
        # At a rate that was chosen by what the node needs, few are lost, and nobody could do better.
        share = 1.0 if rate is None else played.processed / played.frames
        findings.note(
            f"the node answered only {played.processed} of {played.frames} images; a lower --rate gives it time", share
        )
    if played.cut_s:
        findings.warnings.append(
            f"gaps between images were cut to {LONGEST_GAP_S:g} s, {played.cut_s:.0f} s in all: the camera was off, or "
            "a clock was set"
        )
    if played.repeated:
        every = played.frames + played.repeated
        findings.note(
            f"{played.repeated} of {every} images have the stamp of an earlier one and were not played: their outputs "
            "could not be told apart; offline, without --live, all are scored",
            played.frames / every,
        )
    answers = [(stamp, played.latency_ms.get(stamp)) for stamp in played.published]
    answered = Answered(info, out / OUTPUTS, answers, played.conditions)
    counted = {
        "frames": {
            "read": played.frames,
            "processed": played.processed,
            "dropped": sum(played.dropped.values()) - played.dropped.get("failed", 0),
            "failed": played.dropped.get("failed", 0),
        },
        "dropped_by_reason": {reason: count for reason, count in played.dropped.items() if reason != "failed"},
        "fps": played.processed / played.seconds if played.seconds else 0.0,
        "stages_ms": played.stages_ms,
    }
    facts = {"mode": "live", "rate": played.rate}
    return evaluate_outputs(recording, chosen, bundle, answered, findings, out, facts, counted)


def _model_info(node_name: str) -> ModelInfo:
    """What the node runs. As long as it is loading that, it is waited for.

    Raises:
        EvaluationError: there is no such node, or it has nothing loaded.
    """
    received: list[ModelInfo] = []
    node, executor = Node("evaluate_bag_model_info"), SingleThreadedExecutor()
    executor.add_node(node)
    try:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topic = f"{node_name}/{topics.MODEL_INFO.removeprefix('~/')}"
        node.create_subscription(ModelInfo, topic, received.append, latched)
        states = node.create_client(GetState, f"{node_name}/get_state")
        asked, asked_at, answered_at = None, 0.0, 0.0
        waited, told, now = 0.0, False, time.monotonic()
        while not received:
            check_alone(node, node_name)
            before, now = now, time.monotonic()
            if asked is None or asked.done() or not states.service_is_ready():
                answered_at = now
            # Asked again, as an answer may be lost before discovery is done on both sides.
            if states.service_is_ready() and (asked is None or asked.done() or now - asked_at > ASK_AGAIN_S):
                asked, asked_at = states.call_async(GetState.Request()), now
            executor.spin_once(timeout_sec=0.1)
            loading = now - answered_at > 1  # a node that configures itself answers nobody
            if not loading:
                waited += now - before
            elif not told:
                told = True
                Console(stderr=True, markup=False).print(f"{node_name} is there and busy: waiting until it has loaded")
            if waited > MODEL_INFO_S:
                raise EvaluationError(
                    f"no node publishes {topic} within {MODEL_INFO_S:.0f} s; start the node and configure it first"
                )
    finally:
        executor.shutdown()
        node.destroy_node()
    return received[0]
