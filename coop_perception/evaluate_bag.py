"""Command `evaluate_bag`: a recording through the networks, offline or through the running node, and scored; or the
outputs of a node that were recorded with it."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coop_perception import topics
from coop_perception.bundle import Bundle, BundleError, load_bundle
from coop_perception.camera_statistics import percentiles
from coop_perception.engines import EngineError
from coop_perception.engines.backends import AUTO, BACKENDS, PRECISIONS
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.images import ImageError, decode, to_mask
from coop_perception.pipeline import STAGES, Pipeline
from coop_perception.recorded_frames import frames
from coop_perception.recordings import (
    Recording,
    RecordingError,
    find_image_topic,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.report import Sample, summary_table, write_overview, write_report
from coop_perception.resources import default_bundle
from coop_perception.scoring import Scores, ScoringError, condition_summary

WANTED = ("mask_raw", "mask", "restored", "condition")
OVERVIEW_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Topics:
    """The recorded topics to evaluate; references are None where the recording has none."""

    image: str
    reference_image: str | None
    reference_mask: str | None

    def present(self) -> list[str]:
        return [topic for topic in (self.image, self.reference_image, self.reference_mask) if topic is not None]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A summary as `summary.json` holds it, what pictures it rests on, and what went wrong on the way."""

    summary: dict[str, Any]
    scores: Scores
    samples: list[Sample]
    problems: list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work or a frame is unaccounted for.
    """
    options = _parser().parse_args(arguments)
    try:
        bundle = load_bundle(options.bundle)
        with Recording(options.bag) as recording:
            chosen = choose_topics(
                recording, options.image_topic, options.reference_image_topic, options.reference_mask_topic
            )
            if options.live:
                from coop_perception.live_evaluation import evaluate_live  # rclpy: only where it is needed

                evaluation = evaluate_live(recording, chosen, bundle, f"/{topics.NODE}", options.out)
            elif options.recorded:
                from coop_perception.recorded_evaluation import evaluate_recorded

                evaluation = evaluate_recorded(recording, chosen, bundle)
            else:
                evaluation = evaluate_offline(
                    recording, chosen, bundle, EngineSettings(options.backend, options.precision)
                )
        finish(evaluation, bundle, options.out)
    except (RecordingError, BundleError, EngineError, ScoringError, EvaluationError, OSError) as error:
        raise SystemExit(f"evaluate_bag: {error}") from error


class EvaluationError(RuntimeError):
    """An evaluation that cannot be made, or that lost frames."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evaluate_bag", description=__doc__)
    parser.add_argument("--bag", type=Path, required=True, help="the recording: a rosbag2 directory or storage file")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--image-topic", help="camera topic to process (default: the recording's only one)")
    parser.add_argument(
        "--reference-image-topic", help="clear images to compare with (default: <camera>/reference/image)"
    )
    parser.add_argument("--reference-mask-topic", help="true masks to compare with (default: <camera>/reference/mask)")
    parser.add_argument("--backend", default="auto", choices=[AUTO, *BACKENDS], help="what runs the networks")
    parser.add_argument("--precision", default=AUTO, choices=[AUTO, *PRECISIONS], help="of the networks' arithmetic")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--live", action="store_true", help="play the recording to the running node instead")
    mode.add_argument("--recorded", action="store_true", help="score the node's outputs that the recording holds")
    parser.add_argument(
        "--out", type=Path, default=Path("out/evaluation"), help="folder of results (default: %(default)s)"
    )
    return parser


def choose_topics(
    recording: Recording, image: str | None, reference_image: str | None, reference_mask: str | None
) -> Topics:
    """The topics named, or else those that the recording has.

    Raises:
        RecordingError: a named topic is not in the recording, or no image topic can be chosen.
    """
    image = find_image_topic(recording, image)
    for named in (reference_image, reference_mask):
        if named is not None and named not in recording.topics:
            raise RecordingError(
                f"there is no topic {named}; topics in {recording.path}: {', '.join(recording.topics)}"
            )

    def otherwise(topic: str) -> str | None:
        return topic if topic in recording.topics else None

    return Topics(
        image,
        reference_image or otherwise(reference_image_topic(image)),
        reference_mask or otherwise(reference_mask_topic(image)),
    )


def evaluate_offline(recording: Recording, chosen: Topics, bundle: Bundle, settings: EngineSettings) -> Evaluation:
    """Every frame through the pipeline in this process, one after the other, network by network for their times.

    Raises:
        EvaluationError: no frame could be read.
        BundleError, EngineError, ScoringError: as their modules say.
    """
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, settings, Console(stderr=True).print))
    pipeline.warm_up()
    scores, chooser = Scores(bundle.classes), SampleChooser(recording.topics[chosen.image].count)
    latencies: list[float] = []
    stages: dict[str, list[float]] = {}
    conditions: list[tuple[str, float]] = []
    problems: list[str] = []
    read = 0
    for frame in track(read_frames(recording, chosen, problems), "evaluating", recording.topics[chosen.image].count):
        read += 1
        if frame.image is None:
            continue
        begun = time.perf_counter()
        (result,) = pipeline.run([frame.image], WANTED)
        latencies.append((time.perf_counter() - begun) * 1e3)
        for name, value in result.stages_ms.items():
            stages.setdefault(name, []).append(value)
        if result.condition is not None:
            conditions.append((bundle.conditions[int(result.condition.argmax())], result.strength or 0.0))
        sample = frame.sample(result.mask_raw, result.mask, result.restored)
        scores.add(sample, frame.time_s, latencies[-1])
        chooser.offer(sample)
    if not latencies:
        raise EvaluationError(f"{chosen.image}: no frame could be processed" + "".join(f"; {p}" for p in problems[:1]))
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
        "frames": {"read": read, "processed": len(latencies), "dropped": read - len(latencies)},
        "dropped_by_reason": {"malformed": read - len(latencies)} if read > len(latencies) else {},
        "fps": len(latencies) / (sum(latencies) / 1e3),
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99},
        "stages_ms": {name: float(np.median(values)) for name, values in stages.items()},
        **scores.summary(),
        **({"condition": condition_summary(conditions)} if conditions else {}),
    }
    return Evaluation(summary, scores, chooser.samples, problems)


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    networks = {name: network.sha256 for name, network in bundle.networks.items()}
    return {"bundle": {"name": bundle.name, "path": str(bundle.directory), "sha256": networks}}


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded frame with its references, decoded. `image` is None where the message is malformed."""

    index: int
    stamp_ns: int
    time_s: float
    image: NDArray[np.uint8] | None
    reference_image: NDArray[np.uint8] | None
    reference_mask: NDArray[np.uint8] | None

    def sample(
        self,
        mask_raw: NDArray[np.uint8] | None,
        mask: NDArray[np.uint8] | None,
        restored: NDArray[np.uint8] | None,
    ) -> Sample:
        assert self.image is not None
        return Sample(
            title=f"frame {self.index}, {self.time_s:.1f} s",
            image=self.image,
            mask_raw=mask_raw,
            mask=mask,
            restored=restored,
            reference_image=self.reference_image,
            reference_mask=self.reference_mask,
        )


def read_frames(recording: Recording, chosen: Topics, problems: list[str]) -> Iterator[Frame]:
    """The recording's frames. What is malformed or damaged is added to `problems`; the frames before it are kept."""
    first: int | None = None
    index = 0
    try:
        for stamp, group in frames(recording, chosen.present()):
            if chosen.image not in group:
                continue
            message = group[chosen.image]
            first = message.stamp_ns if first is None else first
            decoded: dict[str, NDArray[np.uint8] | None] = {}
            for topic, decoder in (
                (chosen.image, decode),
                (chosen.reference_image, decode),
                (chosen.reference_mask, to_mask),
            ):
                if topic is None or topic not in group:
                    continue
                try:
                    decoded[topic] = decoder(recording.deserialize(group[topic]))
                except (ImageError, RecordingError) as error:
                    problems.append(f"frame {index} on {topic}: {error}")
            yield Frame(
                index,
                stamp,
                (message.stamp_ns - first) / 1e9,
                decoded.get(chosen.image),
                decoded.get(chosen.reference_image or ""),
                decoded.get(chosen.reference_mask or ""),
            )
            index += 1
    except RecordingError as error:
        problems.append(str(error))


class SampleChooser:
    """Keeps a few frames, evenly spread over a recording of about `count` frames, for the overview."""

    def __init__(self, count: int) -> None:
        spread = (np.arange(OVERVIEW_COLUMNS) + 0.5) / OVERVIEW_COLUMNS * count
        self._due = [int(position) for position in spread]
        self._offered = 0
        self.samples: list[Sample] = []

    def offer(self, sample: Sample) -> None:
        if len(self.samples) < OVERVIEW_COLUMNS and self._offered >= self._due[len(self.samples)]:
            self.samples.append(sample)
        self._offered += 1


def finish(evaluation: Evaluation, bundle: Bundle, out: Path) -> None:
    """Write summary.json, overview.png and report.html; print the table and the problems.

    Raises:
        EvaluationError: a frame is unaccounted for.
    """
    out.mkdir(parents=True, exist_ok=True)
    summary = evaluation.summary
    (out / "summary.json").write_text(json.dumps(_finite(summary), indent=2) + "\n")
    written = ["summary.json", "report.html"]
    (out / "overview.png").unlink(missing_ok=True)
    if evaluation.samples:
        write_overview(out / "overview.png", evaluation.samples, bundle.classes)
        written.append("overview.png")
    write_report(out / "report.html", summary, evaluation.samples, bundle.classes, evaluation.scores.series)
    Console().print(summary_table(summary))
    for problem in evaluation.problems[:5]:
        print(f"warning: {problem}", file=sys.stderr)
    if len(evaluation.problems) > 5:
        print(f"warning: and {len(evaluation.problems) - 5} more", file=sys.stderr)
    print(f"results in {out}: {', '.join(written)}")
    counts = summary["frames"]
    lost = counts["read"] - counts["processed"] - counts["dropped"]
    if lost:
        raise EvaluationError(f"{lost} of {counts['read']} frames are unaccounted for: neither processed nor dropped")


def _finite(value: Any) -> Any:
    """JSON has no NaN: None instead."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


if __name__ == "__main__":
    main()
