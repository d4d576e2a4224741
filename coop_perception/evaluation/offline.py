"""A recording through the networks in this process, frame by frame, and scored."""

from __future__ import annotations

import time

import numpy as np
from rich.console import Console
from rich.progress import track

from coop_perception.contracts import STAGES, Bundle
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.evaluation.evaluation import (
    Evaluation,
    EvaluationError,
    Findings,
    SampleChooser,
    Topics,
    bundle_facts,
    read_frames,
)
from coop_perception.evaluation.scoring import Scores, condition_summary
from coop_perception.metrics import percentiles
from coop_perception.model.pipeline import Pipeline
from coop_perception.recordings.recording import Recording

WANTED = ("mask_raw", "mask", "restored", "condition")


def evaluate_offline(recording: Recording, chosen: Topics, bundle: Bundle, settings: EngineSettings) -> Evaluation:
    """Every frame through the pipeline in this process, one after the other, network by network for their times.

    Raises:
        EvaluationError: no frame could be read.
        BundleError, EngineError, ScoringError: as their modules say.
    """
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, settings, Console(stderr=True, markup=False).print))
    pipeline.warm_up()
    scores, chooser = Scores(bundle.classes), SampleChooser(recording.topics[chosen.image].count)
    latencies: list[float] = []
    stages: dict[str, list[float]] = {}
    conditions: list[tuple[str, float]] = []
    findings = Findings()
    read = malformed = 0
    count = recording.topics[chosen.image].count
    try:
        for frame in track(read_frames(recording, chosen, findings), "evaluating", count):
            if frame.image is None:
                read, malformed = read + 1, malformed + 1
                continue
            begun = time.perf_counter()
            (result,) = pipeline.run([frame.image], WANTED)
            latency = (time.perf_counter() - begun) * 1e3
            sample = frame.sample(result.mask_raw, result.mask, result.restored)
            scores.add(sample, frame.time_s, latency)
            chooser.offer(sample)
            for name, value in result.stages_ms.items():
                stages.setdefault(name, []).append(value)
            if result.condition is not None:
                conditions.append((bundle.conditions[int(result.condition.argmax())], result.strength or 0.0))
            latencies.append(latency)
            read += 1
    except KeyboardInterrupt:
        if not latencies:
            raise
        findings.interrupted = True
        findings.warnings.append(f"interrupted after {read} of {count} frames")
    if not latencies:
        wrong = "".join(f"; {warning}" for warning in findings.warnings[:1])
        raise EvaluationError(f"{chosen.image}: no frame could be processed{wrong}")
    engine = pipeline.engines["segmenter"]
    p50, p95, p99 = percentiles(latencies)
    summary = {
        "recording": str(recording.path),
        "image_topic": chosen.image,
        "mode": "offline",
        **bundle_facts(bundle),
        "backend": engine.backend,
        "precision": engine.precision,
        "device": engine.device,
        "frames": {"read": read, "processed": len(latencies), "dropped": malformed},
        "dropped_by_reason": {"malformed": malformed} if malformed else {},
        "fps": len(latencies) / (sum(latencies) / 1e3),
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(values)) for name, values in stages.items()},
        **scores.summary(),
        **({"condition": condition_summary(conditions)} if conditions else {}),
    }
    return Evaluation(summary, scores, chooser.samples, findings)
