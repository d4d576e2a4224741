"""A recording through the networks in this process, and scored: reading runs ahead of them, scoring behind."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from copy import deepcopy
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from coop_perception.contracts import STAGES
from coop_perception.engines import EngineError
from coop_perception.engines.cpu import usable_cores
from coop_perception.engines.loading import EngineSettings, Say, load_engines
from coop_perception.evaluation.ahead import ahead
from coop_perception.evaluation.conditions import Estimated, conditions_of
from coop_perception.evaluation.evaluated import Evaluation, evaluated
from coop_perception.evaluation.evaluation import (
    EvaluationError,
    Findings,
    Frame,
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
from coop_perception.evaluation.table import Table, save
from coop_perception.evaluation.task import Task
from coop_perception.model.bundle import load_bundle
from coop_perception.model.conditions import Conditions
from coop_perception.model.over_time import CameraConditions
from coop_perception.model.pipeline import OUTPUTS, Decide, FrameError, Pipeline, Result
from coop_perception.recordings.cameras import camera_of, empty_cameras, image_topics
from coop_perception.recordings.recording import Recording

DEPTH = 4
"""Frames that are read before the networks are free for them."""

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
        pipeline.warm_up(network_height=task.network_height)
        engine = next(iter(pipeline.engines.values()))
        findings = Findings()
        for chosen in cameras:
            own = [(chosen.reference_mask, task.labels), (chosen.reference_image, task.images)]
            findings.warnings += [
                f"{task.bag} has {topic}, which comes before files in {folder}"
                for topic, folder in own
                if topic and folder
            ]
        if not task.image_topics:
            findings.warnings += [f"{task.bag} has no image on {topic}" for topic in empty_cameras(recording)]
        count = sum(recording.topics[chosen.image].count for chosen in cameras)
        whole = count
        keeper = Keeper(task.keep, task.out, bundle.classes)
        identity = task.identity(bundle, engine.backend, engine.precision)
        with Journal(path, identity) as journal:
            keeper.begin(anew=not journal.rows)
            try:
                done = Counter(journal.cameras)
                for chosen in cameras:
                    with closing(
                        _rows(
                            recording,
                            chosen,
                            _Networks(pipeline, task, path, camera_of(chosen.image), done[camera_of(chosen.image)]),
                            folders,
                            findings,
                            keeper,
                        )
                    ) as rows:
                        for row in rows:
                            journal.append(row)
                            share = task.selection.share(row.frame, row.time_s, recording.topics[chosen.image].count)
                            whole = max(journal.rows, round(count * share))
                            advance(journal.rows, whole)
            except KeyboardInterrupt:
                if not journal.rows:
                    raise
                findings.interrupted = True
                findings.warnings.append(f"interrupted after {journal.rows} of {whole} frames")
        table = save(task.out / FRAMES, read_rows(path))
        if not (table.texts["status"] == "processed").any():
            none = (
                [] if len(table.texts["status"]) or task.selection.whole else ["--start and --end leave out every one"]
            )
            reasons = [*none, *findings.warnings, *table.texts["warnings"][:1], *table.texts["reason"][:1]]
            wrong = "; ".join(filter(None, reasons[:2]))
            raise EvaluationError(f"{task.bag}: no frame could be processed{wrong and '; ' + wrong}")
        if folders is not None and not findings.interrupted:
            unread, files = folders.unread()
            if unread and task.selection.whole:
                findings.note(f"{unread} of {files} files of references belong to no frame", 1 - unread / files)
            if folders.count_from_one(max(recording.topics[chosen.image].count for chosen in cameras)):
                findings.note(
                    "files of references are numbered from 1, frames from 0: each is taken for the one behind",
                    0,
                )
        if not findings.interrupted:
            keeper.finish([chosen.image for chosen in cameras])
        facts = {
            "recording": str(recording.path),
            "image_topic": ", ".join(chosen.image for chosen in cameras),
            "mode": "offline",
            **bundle_facts(bundle),
            "network_height": task.network_height or bundle.input.height,
            "condition_time_constant": task.over_time.time_constant_s,
            "skip_when_clear": task.over_time.skip_when_clear,
            "backend": engine.backend,
            "precision": engine.precision,
            "device": engine.device,
            "run": identity,
        }
        again = _Again(pipeline, task.network_height, table)
        evaluation = evaluated(recording, cameras, bundle, table, facts, findings, again.of, folders)
        pipeline.close()
        return evaluation


def _settings(task: Task) -> EngineSettings:
    """Those of the run that is gone on with: another backend's digits differ."""
    asked = replace(task.settings, network_height=task.network_height)
    begun = began(task.out / JOURNAL)
    if begun is None:
        return asked
    backend, precision = str(begun.get("backend", asked.backend)), str(begun.get("precision", asked.precision))
    return replace(
        asked,
        backend=backend if asked.backend == "auto" else asked.backend,
        precision=precision if asked.precision == "auto" else asked.precision,
    )


class _Networks:
    """One camera's frames through the networks, in order.

    Args:
        pipeline: loaded.
        task: how.
        journal: of rows that are there already.
        camera: whose.
        done: how many of the rows are its.
    """

    def __init__(self, pipeline: Pipeline, task: Task, journal: Path, camera: str, done: int) -> None:
        self.pipeline, self.task, self.camera, self.done = pipeline, task, camera, done
        # The last one that is done is run again: its masks are what the next one's are compared with.
        self.skipped = max(0, done - 1)
        self._conditions = CameraConditions()
        if self.skipped:
            rows = (row for row in read_rows(journal) if row.camera == camera)
            for row in islice(rows, self.skipped):
                self._take(row)

    def _take(self, row: Row) -> None:
        """What is known of conditions from a frame that is done."""
        if row.height is None or row.width is None or row.familiarity is None:
            return
        names = self.pipeline.bundle.conditions
        own = conditions_of(names, row.presence, row.strength, row.familiarity)
        size = (int(row.height), int(row.width))
        self._conditions.take(own, row.stamp_ns, size, self.task.over_time)

    def outputs(self, frame: Frame) -> tuple[Outputs | None, Row]:
        """What they make of a frame; if nothing, the row that says why."""
        if frame.image is None:
            row = row_of(self.camera, frame.found, "dropped", "malformed")
        else:
            before = deepcopy(self._conditions)
            try:
                return self._run(frame), row_of(self.camera, frame.found, "processed")
            except (EngineError, FrameError) as error:
                self._conditions = before  # as it is for a run that is gone on with, whose rows say nothing of it
                row = row_of(self.camera, frame.found, "failed", "networks")
                row.warnings.append(str(error))
        row.warnings += frame.warnings
        return None, row

    def _run(self, frame: Frame) -> Outputs:
        assert frame.image is not None
        size = frame.image.shape[:2]
        over_time: list[Conditions] = []

        def decide(_: int, own: Conditions) -> Conditions | None:
            now, restore = self._conditions.take(own, frame.found.stamp_ns, size, self.task.over_time)
            over_time.append(now)
            return now if restore else None

        begun = time.perf_counter()
        result = _run(self.pipeline, frame, self.task.network_height, decide)
        took_ms = (time.perf_counter() - begun) * 1e3
        assert result.condition is not None
        restored = result.used is not None
        estimated = Estimated(self.pipeline.bundle.conditions, result.condition, over_time[0], restored)
        return _outputs(result, estimated, took_ms)


class _Again:
    """Frames once more through the networks, as they went: for pictures, of which nobody could know before."""

    def __init__(self, pipeline: Pipeline, network_height: int, table: Table) -> None:
        self._pipeline, self._network_height, self._table = pipeline, network_height, table

    def of(self, chosen: Topics) -> Callable[[Frame], Outputs]:
        """Of a camera."""
        texts, whole = self._table.texts, self._table.whole
        of_camera = np.flatnonzero(texts["camera"] == camera_of(chosen.image))
        rows = dict(zip(whole["frame"][of_camera].tolist(), of_camera.tolist(), strict=True))

        def outputs(frame: Frame) -> Outputs:
            used = self._used(rows[frame.found.index])
            return _outputs(_run(self._pipeline, frame, self._network_height, lambda _, __: used), None, None)

        return outputs

    def _used(self, row: int) -> Conditions | None:
        numbers = self._table.numbers
        if numbers["restoration_ran"][row] != 1:
            return None
        names = self._pipeline.bundle.conditions
        presence, strength = (
            {name: float(numbers[f"{column}.{name}"][row]) for name in names}
            for column in ("presence_filtered", "strength_filtered")
        )
        return conditions_of(names, presence, strength, float(numbers["familiarity_filtered"][row]))


def _run(pipeline: Pipeline, frame: Frame, network_height: int, decide: Decide) -> Result:
    assert frame.image is not None
    (result,) = pipeline.run([frame.image], OUTPUTS, network_height=network_height, decide=decide)
    return result


def _outputs(result: Result, estimated: Estimated | None, took_ms: float | None) -> Outputs:
    return Outputs(
        result.mask_raw, result.mask, result.confidence, result.restored, estimated, took_ms, result.stages_ms
    )


def _rows(
    recording: Recording,
    chosen: Topics,
    networks: _Networks,
    folders: Folders | None,
    findings: Findings,
    keeper: Keeper,
) -> Generator[Row, None, None]:
    """One camera's rows, without those that are done, in order."""
    camera, task, done, skipped = networks.camera, networks.task, networks.done, networks.skipped
    classes = len(networks.pipeline.bundle.classes)
    # Behind the networks: one frame takes longer than a GPU does.
    threads = max(2, usable_cores() // task.workers // 2)

    def frames() -> Generator[Frame, None, None]:
        for number, found in enumerate(find_frames(recording, chosen, findings, task.selection)):
            if folders is not None:
                folders.meet(found.stamp_ns, found.index)
            if number >= skipped:
                yield decode_frame(recording, chosen, found, folders)

    def scored(frame: Frame, outputs: Outputs | None, earlier: Before | None, without: Row) -> Row:
        if outputs is None:
            return without
        keeper.keep(chosen.image, frame, outputs)
        return score(camera, frame, outputs, earlier, classes)

    earlier: Before | None = None
    waiting: deque[Future[Row]] = deque()
    with closing(ahead(frames(), DEPTH)) as decoded, ThreadPoolExecutor(threads, "score") as scorers:
        for number, frame in enumerate(decoded, skipped):
            outputs, row = networks.outputs(frame)
            if number >= done:
                waiting.append(scorers.submit(scored, frame, outputs, earlier, row))
            earlier = before(frame, outputs) if outputs is not None else None
            while len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
