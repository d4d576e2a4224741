"""The node's own state as messages: model info, label info, status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from coop_perception.contracts import STAGES, Bundle
from coop_perception.engines import Engine
from coop_perception.model.bundle import FORMAT_VERSION
from coop_perception.node.statistics import Summary
from coop_perception.node.worker import DECODE, PUBLISH
from coop_perception_msgs.msg import (
    CameraStatus,
    DropCount,
    ModelInfo,
    ModelNetwork,
    PipelineStatus,
    SemanticClass,
    StageTime,
)

_ORDER = (DECODE, *STAGES, PUBLISH)


def model_info(bundle: Bundle, engines: Mapping[str, Engine], stamp: Time) -> ModelInfo:
    engine = next(iter(engines.values()))
    return ModelInfo(
        header=Header(stamp=stamp),
        bundle_name=bundle.name,
        bundle_path=str(bundle.directory.resolve()),
        format_version=FORMAT_VERSION,
        classes=[SemanticClass(id=c.id, name=c.name, rgb=list(c.rgb)) for c in bundle.classes],
        networks=[
            ModelNetwork(name=n, file=bundle.networks[n].path.name, sha256=bundle.networks[n].sha256) for n in engines
        ],
        conditions=list(bundle.conditions),
        input_height=bundle.input.height,
        input_smallest=bundle.input.smallest,
        input_largest=bundle.input.largest,
        backend=engine.backend,
        device=engine.device,
        precision=engine.precision,
    )


def label_info(bundle: Bundle, stamp: Time) -> Any | None:
    """A vision_msgs/LabelInfo of the classes; None where vision_msgs is not installed."""
    try:
        from vision_msgs.msg import LabelInfo, VisionClass
    except ImportError:
        return None
    return LabelInfo(
        header=Header(stamp=stamp),
        class_map=[VisionClass(class_id=c.id, class_name=c.name) for c in bundle.classes],
        threshold=0.0,
    )


def status(cameras: Mapping[str, Summary], stages: Mapping[str, bool], uptime_s: float, stamp: Time) -> PipelineStatus:
    """`stages`: whether refinement and restoration are on."""
    return PipelineStatus(
        header=Header(stamp=stamp),
        uptime_s=uptime_s,
        **stages,
        cameras=[_camera(name, summary) for name, summary in cameras.items()],
    )


def _camera(name: str, summary: Summary) -> CameraStatus:
    p50, p95, p99 = summary.latency_ms
    return CameraStatus(
        name=name,
        frames_received=summary.received,
        frames_processed=summary.processed,
        frames_clear=summary.clear,
        dropped=[DropCount(reason=reason, count=count) for reason, count in sorted(summary.dropped.items())],
        input_rate_hz=summary.input_rate,
        output_rate_hz=summary.output_rate,
        latency_p50_ms=p50,
        latency_p95_ms=p95,
        latency_p99_ms=p99,
        stages=[
            StageTime(name=name, median_ms=summary.stages_ms[name]) for name in _ORDER if name in summary.stages_ms
        ],
    )
