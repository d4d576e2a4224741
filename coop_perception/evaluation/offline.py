"""A recording through the networks in this process, and scored: reading runs ahead of them, scoring behind."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

from coop_perception.contracts import STAGES
from coop_perception.engines import EngineError
from coop_perception.engines.loading import EngineSettings, Say, load_engines
from coop_perception.evaluation.ahead import ahead
from coop_perception.evaluation.conditions import of_result
from coop_perception.evaluation.evaluated import Evaluation, evaluated
from coop_perception.evaluation.evaluation import (
    EvaluationError,
    Findings,
    Frame,
    Selection,
    Topics,
    bundle_facts,
    choose_topics,
    decode_frame,
    find_frames,
)
from coop_perception.evaluation.folders import Folders
from coop_perception.evaluation.journal import NAME as JOURNAL
from coop_perception.evaluation.journal import Journal, began, read_rows
from coop_perception.evaluation.kept import Keeper
from coop_perception.evaluation.rows import Row, row_of
from coop_perception.evaluation.scoring import Before, Outputs, before, score
from coop_perception.evaluation.table import NAME as FRAMES
from coop_perception.evaluation.table import save
from coop_perception.evaluation.task import Task
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import FrameError, Pipeline
from coop_perception.recordings.cameras import camera_of, image_topics
from coop_perception.recordings.recording import Recording

WANTED = ("mask_raw", "mask", "confidence", "restored", "condition")
DEPTH = 4
"""Frames that are read before the networks are free for them."""
SCORERS = max(2, len(os.sched_getaffinity(0)) // 2)
"""Threads that score behind the networks: one frame takes longer than a GPU does."""

Advance = Callable[[int, int], object]
"""Called with how many frames are done, and of how many."""


def evaluate_offline(task: Task, say: Say = lambda _: None, advance: Advance = lambda _done, _all: None) -> Evaluation:
    """Every chosen frame through the pipeline in this process, one after the other, network by network for their times.

    Rows go to the journal in the task's folder as they come. Those that are there already are not made again, and the
    result is the same as of a run that was never interrupted.

    Raises:
        EvaluationError: no frame could be processed, or the journal is another run's.
        RecordingError, BundleError, EngineError, DatasetError, OSError: as their modules say.
    """
    bundle = load_bundle(task.bundle)
    with Recording(task.bag) as recording:
        cameras = [
            choose_topics(recording, topic, task.reference_image_topic, task.reference_mask_topic)
            for topic in task.image_topics or image_topics(recording)
        ]
        folders = Folders(task.labels, task.images, bundle.classes) if task.labels or task.images else None
        path = task.out / JOURNAL
        pipeline = Pipeline(bundle, load_engines(bundle, STAGES, _settings(task), say))
        pipeline.warm_up()
        engine = next(iter(pipeline.engines.values()))
        findings = Findings()
        count = sum(recording.topics[chosen.image].count for chosen in cameras)
        whole = max(1, count // task.selection.every)
        keeper = Keeper(task.keep, task.out, bundle.classes)
        with Journal(path, task.identity(bundle, engine.backend, engine.precision)) as journal:
            keeper.begin(anew=not journal.rows)
            try:
                done = Counter(journal.cameras)
                for chosen in cameras:
                    with closing(
                        _rows(
                            recording,
                            chosen,
                            pipeline,
                            folders,
                            task.selection,
                            done[camera_of(chosen.image)],
                            findings,
                            keeper,
                        )
                    ) as rows:
                        for row in rows:
                            journal.append(row)
                            advance(journal.rows, whole)
            except KeyboardInterrupt:
                if not journal.rows:
                    raise
                findings.interrupted = True
                findings.warnings.append(f"interrupted after {journal.rows} of {whole} frames")
        table = save(task.out / FRAMES, read_rows(path))
        if not (table.texts["status"] == "processed").any():
            reasons = [*findings.warnings, *table.texts["warnings"][:1], *table.texts["reason"][:1]]
            wrong = "; ".join(filter(None, reasons[:2]))
            raise EvaluationError(f"{task.bag}: no frame could be processed{wrong and '; ' + wrong}")
        if folders is not None and not findings.interrupted:
            unread, files = folders.unread()
            if unread and task.selection.whole:
                findings.note(f"{unread} of {files} files of references belong to no frame", 1 - unread / files)
        if not findings.interrupted:
            keeper.finish([chosen.image for chosen in cameras])
        facts = {
            "recording": str(recording.path),
            "image_topic": ", ".join(chosen.image for chosen in cameras),
            "mode": "offline",
            **bundle_facts(bundle),
            "backend": engine.backend,
            "precision": engine.precision,
            "device": engine.device,
        }
        evaluation = evaluated(
            recording, cameras, bundle, table, facts, findings, lambda _: lambda frame: _run(pipeline, frame), folders
        )
        pipeline.close()
        return evaluation


def _settings(task: Task) -> EngineSettings:
    """Those of the run that is gone on with: another backend's digits differ."""
    begun = began(task.out / JOURNAL)
    if begun is None:
        return task.settings
    asked = task.settings
    backend, precision = str(begun.get("backend", asked.backend)), str(begun.get("precision", asked.precision))
    return replace(
        asked,
        backend=backend if asked.backend == "auto" else asked.backend,
        precision=precision if asked.precision == "auto" else asked.precision,
    )


def _rows(
    recording: Recording,
    chosen: Topics,
    pipeline: Pipeline,
    folders: Folders | None,
    selection: Selection,
    done: int,
    findings: Findings,
    keeper: Keeper,
) -> Generator[Row, None, None]:
    """One camera's rows, without the first `done`, in order."""
    camera = camera_of(chosen.image)
    # The last one that is done is run again: its masks are what the next one's are compared with.
    skipped = max(0, done - 1)

    def frames() -> Generator[Frame, None, None]:
        for number, found in enumerate(find_frames(recording, chosen, findings, selection)):
            if folders is not None:
                folders.meet(found.stamp_ns, found.index)
            if number >= skipped:
                yield decode_frame(recording, chosen, found, folders)

    def scored(frame: Frame, outputs: Outputs | None, earlier: Before | None, without: Row) -> Row:
        if outputs is None:
            return without
        keeper.keep(chosen.image, frame, outputs)
        return score(camera, frame, outputs, earlier, len(pipeline.bundle.classes))

    earlier: Before | None = None
    waiting: deque[Future[Row]] = deque()
    with closing(ahead(frames(), DEPTH)) as decoded, ThreadPoolExecutor(SCORERS, "score") as scorers:
        for number, frame in enumerate(decoded, skipped):
            outputs, row = _outputs(pipeline, camera, frame)
            if number >= done:
                waiting.append(scorers.submit(scored, frame, outputs, earlier, row))
            earlier = before(frame, outputs) if outputs is not None else None
            while len(waiting) > 2 * SCORERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _outputs(pipeline: Pipeline, camera: str, frame: Frame) -> tuple[Outputs | None, Row]:
    """What the networks make of a frame; if nothing, the row that says why."""
    if frame.image is None:
        row = row_of(camera, frame.found, "dropped", "malformed")
    else:
        try:
            return _run(pipeline, frame), row_of(camera, frame.found, "processed")
        except (EngineError, FrameError) as error:
            row = row_of(camera, frame.found, "failed", "networks")
            row.warnings.append(str(error))
    row.warnings += frame.warnings
    return None, row


def _run(pipeline: Pipeline, frame: Frame) -> Outputs:
    assert frame.image is not None
    begun = time.perf_counter()
    (result,) = pipeline.run([frame.image], WANTED)
    return Outputs(
        result.mask_raw,
        result.mask,
        result.confidence,
        result.restored,
        of_result(result, pipeline.bundle.conditions),
        (time.perf_counter() - begun) * 1e3,
        result.stages_ms,
    )
