"""The node's entries in /diagnostics: one per camera, of its engines and of its lifecycle. Their levels' thresholds
stand here."""

from __future__ import annotations

import math
from collections.abc import Mapping

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from coop_perception.engines import Engine, EngineError
from coop_perception.engines.cpu import cpu_name
from coop_perception.engines.cuda import memory_in_use
from coop_perception.model.pipeline import Pipeline
from coop_perception.node.input_health import Missing
from coop_perception.node.statistics import WINDOW_S, Summary
from coop_perception_msgs.msg import DropCount

PERIOD_S = 1.0
"""Between two messages: seldom enough to cost nothing, often enough that a problem is reported within 5 s."""
KEEPS_UP = 0.5
"""WARN where less than this share of a camera's frames is processed for being superseded."""
AHEAD_S = 1.0
"""WARN where a camera's stamps are further ahead of the node's clock than this."""

_UNUSABLE = (DropCount.MALFORMED, DropCount.FAILED, DropCount.TOO_OLD)


def diagnostics(
    node: str,
    cameras: Mapping[str, tuple[Summary, Missing]],
    pipeline: Pipeline,
    stages: Mapping[str, bool],
    stamp: Time,
    twins: str = "",
) -> DiagnosticArray:
    """Entries of an active node.

    Args:
        node: its fully qualified name.
        cameras: by name, the statistics, and what does not arrive.
        pipeline: in use.
        stages: which of those that can be switched are on.
        stamp: now.
        twins: what is said of others of its name; empty where there is none.
    """
    level = DiagnosticStatus.WARN if twins else DiagnosticStatus.OK
    status = [_camera(node, name, summary, missing) for name, (summary, missing) in cameras.items()]
    status += [_engines(node, pipeline, stages), lifecycle_status(node, level, twins or "active")]
    return DiagnosticArray(header=Header(stamp=stamp), status=status)


def lifecycle_status(node: str, level: bytes, message: str) -> DiagnosticStatus:
    """The entry that says why a node does not serve. One that serves has it as well: an aggregator keeps an entry that
    is not published any more as a stale one, which is an error for good."""
    return _status(level, f"{node}: lifecycle", message, "", {})


def judge(summary: Summary, missing: Missing) -> tuple[bytes, str]:
    """A camera's level and message.

    ERROR: no image for SILENT_S; or, in the last WINDOW_S, images arrived and none could be used. WARN: none has come
    yet; some could not be used; too few are processed (KEEPS_UP); stamps from the future (AHEAD_S); a camera_info that
    is published does not come. One that nobody publishes is nobody's fault: frames go out without.
    """
    if missing.image:
        return DiagnosticStatus.ERROR, missing.image
    if not summary.received:
        return DiagnosticStatus.WARN, "no image yet"
    unusable = {reason: count for reason, count in summary.recently_dropped.items() if reason in _UNUSABLE}
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(unusable.items()))
    if unusable and math.isnan(summary.output_rate):
        return DiagnosticStatus.ERROR, f"images arrive, but none can be used: {counts} in {WINDOW_S:.0f} s; see the log"
    warnings = [f"{counts} in {WINDOW_S:.0f} s; see the log"] if unusable else []
    superseded = DropCount.SUPERSEDED in summary.recently_dropped
    if superseded and summary.output_rate < KEEPS_UP * summary.input_rate:
        warnings.append(f"{summary.output_rate:.1f} of {summary.input_rate:.1f} images per second are processed")
    if summary.age_s < -AHEAD_S:
        warnings.append(
            f"stamps are {-summary.age_s:.1f} s ahead of the node's clock, so max_age cannot tell old frames; check "
            "the machines' clocks, and use_sim_time where a recording is played"
        )
    if missing.info_published:
        warnings.append(missing.camera_info)
    return (DiagnosticStatus.WARN, "; ".join(warnings)) if warnings else (DiagnosticStatus.OK, "running")


def _camera(node: str, camera: str, summary: Summary, missing: Missing) -> DiagnosticStatus:
    level, message = judge(summary, missing)
    values = {
        "input rate (Hz)": f"{summary.input_rate:.1f}",
        "output rate (Hz)": f"{summary.output_rate:.1f}",
        "latency p50 (ms)": f"{summary.latency_ms[0]:.1f}",
        "latency p95 (ms)": f"{summary.latency_ms[1]:.1f}",
        "latency p99 (ms)": f"{summary.latency_ms[2]:.1f}",
        "since last image (s)": f"{summary.silence_s:.1f}",
        "age of last image when received (s)": f"{summary.age_s:.3f}",
        "frames received": str(summary.received),
        "frames processed": str(summary.processed),
        "frames not restored, being clear": str(summary.clear),
        **({} if summary.present is None else {"conditions": ", ".join(summary.present) or "none"}),
        **{f"frames dropped, {reason}": str(count) for reason, count in sorted(summary.dropped.items())},
        **({"camera_info": missing.camera_info} if missing.camera_info else {}),
    }
    return _status(level, f"{node}: {camera}", message, camera, values)


def _engines(node: str, pipeline: Pipeline, stages: Mapping[str, bool]) -> DiagnosticStatus:
    engine = pipeline.engines["segmenter"]
    values = {
        "bundle": pipeline.bundle.name,
        "bundle directory": str(pipeline.bundle.directory),
        "backend": engine.backend,
        "device": engine.device,
        "precision": engine.precision,
        **_gpu_memory(engine),
        **stages_in_words(stages),
    }
    message = f"{pipeline.bundle.name} on {engine.backend}"
    return _status(DiagnosticStatus.OK, f"{node}: engines", message, engine.device, values)


def stages_in_words(stages: Mapping[str, bool]) -> dict[str, str]:
    """By name, which of the stages that can be switched are on."""
    words = {stage: "on" if on else "off" for stage, on in stages.items()}
    if stages["restoration"] and not stages["refinement"]:
        words["restoration"] = "on, but without effect while refinement is off"
    return words


def _gpu_memory(engine: Engine) -> dict[str, str]:
    """Of everybody's together; nothing where the engine runs on the CPU or the GPU does not say."""
    if engine.device == cpu_name():
        return {}
    try:
        used, total = memory_in_use()
    except EngineError:
        return {}
    return {"GPU memory in use (MiB)": f"{used / 2**20:.0f} of {total / 2**20:.0f}"}


def _status(level: bytes, name: str, message: str, hardware: str, values: Mapping[str, str]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=value) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware, values=pairs)
