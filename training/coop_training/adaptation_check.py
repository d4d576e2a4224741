"""What a bundle does on a camera's held-out frames and on sample drives, before and after it was adapted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from rich.console import Console
from rich.progress import track

from coop_perception.classes import CAMVID_CLASSES, translation
from coop_perception.contracts import STAGES, Bundle
from coop_perception.degradations import CONDITIONS
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.metrics import PSNR_CAP, psnr
from coop_perception.model.pipeline import Pipeline, Result
from coop_perception.sample_scene.drive import SampleDrive
from coop_training.cases import published_cases
from coop_training.config import TrainConfig
from coop_training.evaluation import as_first_frame, cooperative, evaluate, select
from coop_training.frames import unlabelled
from coop_training.layouts.frame import Item, LabelledFrame
from coop_training.observed import Pixels, adverse
from coop_training.results import CHANGED_DB, HARM_DB, PRESENT, Results
from coop_training.tables import markdown, number, percent

MARGIN_DB, MARGIN_POINTS = 0.5, 0.5
"""By how much restored images (PSNR) and refined masks (mIoU) of sample drives may be worse, condition by condition."""
MARGIN_RECALL = 0.1
"""By how much smaller the share of conditions may be that are found in the camera's own held-out frames."""
DRIVES, FRAMES_PER_DRIVE, FIRST_DRIVE, FRAME_STEP = 2, 2, 7900, 60
"""Sample drives that nothing is fitted to."""
PER_FRAME = 2
"""Times that each held-out frame is put under conditions."""


@dataclass(frozen=True, slots=True)
class OnCamera:
    """Of the camera's held-out frames: of clear ones the share in which any condition is present, the share that comes
    back changed, and the mean familiarity; of those put under conditions the share of these that is found, what
    restoration gains in the mean and at worst, in dB, and the share of frames that it makes worse."""

    false_alarms: float
    changed: float
    familiarity: float
    recall: float
    gain: float
    worst: float
    harmed: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A bundle's scores on the camera and on sample drives."""

    camera: OnCamera
    drives: Results

    def camera_figures(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self.camera).items()}


def measure(bundle: Bundle, held: Sequence[Pixels], config: TrainConfig, console: Console) -> Measured:
    """Scores of a bundle, through the pipeline of the vehicle.

    Raises:
        BundleError, EngineError: the bundle cannot be used, or a network failed.
    """
    settings = EngineSettings("onnxruntime", threads=1)
    pipeline = Pipeline(bundle, load_engines(bundle, STAGES, settings))
    on_camera = _on_camera(pipeline, held, config, console)
    drives = evaluate(
        select(_drive_items(bundle), None),
        published_cases([name for name in CONDITIONS if config.mixtures or name in config.conditions]),
        cooperative(pipeline),
        bundle.classes,
        bundle=bundle.name,
        method_name="sample drives",
        known=bundle.conditions,
    )
    return Measured(on_camera, drives.results)


def _on_camera(pipeline: Pipeline, held: Sequence[Pixels], config: TrainConfig, console: Console) -> OnCamera:
    alarms, changes, familiarities, found, gains = [], [], [], [], []
    for index, clear in enumerate(track(held, f"held-out frames, {pipeline.bundle.name}", console=console)):
        result = _run(pipeline, clear)
        alarms.append((_presence(result) >= PRESENT).any())
        changes.append(_psnr(clear, result) < CHANGED_DB)
        familiarities.append(result.condition.familiarity if result.condition else 0.0)
        for time in range(PER_FRAME):
            rng = np.random.default_rng((config.seed, 3, index, time))
            reflected = held[int(rng.integers(len(held)))]
            degraded, strengths = adverse(unlabelled(clear), reflected, config.conditions, config.mixtures, rng)
            result = _run(pipeline, degraded)
            found += (_presence(result)[strengths > 0] >= PRESENT).tolist()
            gains.append(_psnr(clear, result) - min(psnr(clear, degraded), PSNR_CAP))
    return OnCamera(
        false_alarms=float(np.mean(alarms)),
        changed=float(np.mean(changes)),
        familiarity=float(np.mean(familiarities)),
        recall=float(np.mean(found)) if found else 1.0,
        gain=float(np.mean(gains)),
        worst=float(np.min(gains)),
        harmed=float(np.mean(np.array(gains) < -HARM_DB)),
    )


def _run(pipeline: Pipeline, image: Pixels) -> Result:
    return pipeline.run([image], ("restored", "condition"), decide=as_first_frame)[0]


def _presence(result: Result) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert result.condition is not None
    return result.condition.presence


def _psnr(clear: Pixels, result: Result) -> float:
    assert result.restored is not None
    return min(psnr(clear, result.restored), PSNR_CAP)


def _drive_items(bundle: Bundle) -> list[Item]:
    ids = translation(CAMVID_CLASSES, bundle.classes)
    items = []
    for seed in range(FIRST_DRIVE, FIRST_DRIVE + DRIVES):
        drive = SampleDrive(seed)
        for index in range(FRAMES_PER_DRIVE):
            shown = drive.frame(FRAME_STEP * index)
            depth = shown.depth.astype(np.float16)
            frame = LabelledFrame(shown.image, ids[shown.mask], depth, drive.intrinsics)
            items.append(Item(f"{seed}_{index}", partial(_same, frame)))
    return items


def _same(frame: LabelledFrame) -> LabelledFrame:
    return frame


def worse(before: Measured, after: Measured) -> list[str]:
    """What is worse by more than the margins, in words."""
    found = []
    for name, was in before.drives.conditions.items():
        now = after.drives.conditions[name]
        if now.restored.psnr < was.restored.psnr - MARGIN_DB:
            found.append(
                f"{name} of sample drives is restored to {now.restored.psnr:.2f} dB instead of {was.restored.psnr:.2f}"
            )
        if was.refined is not None and now.refined is not None:
            lost = 100 * (was.refined.miou - now.refined.miou)
            if lost > MARGIN_POINTS:
                found.append(f"masks of sample drives under {name} lose {lost:.1f} points of mIoU")
    shares = [
        ("clear frames of sample drives that are changed", before.drives.clean.changed, after.drives.clean.changed),
        ("the camera's clear frames that are changed", before.camera.changed, after.camera.changed),
        ("false alarms on the camera's clear frames", before.camera.false_alarms, after.camera.false_alarms),
    ]
    found += [
        f"{what}: {percent(now)} instead of {percent(was)}"
        for what, was, now in shares
        if was is not None and now is not None and now > was
    ]
    if after.camera.recall < before.camera.recall - MARGIN_RECALL:
        found.append(
            f"of the conditions in the camera's frames {percent(after.camera.recall)} are found instead of "
            f"{percent(before.camera.recall)}"
        )
    if after.camera.gain < before.camera.gain - MARGIN_DB:
        found.append(
            f"the camera's frames under conditions gain {after.camera.gain:.2f} dB instead of {before.camera.gain:.2f}"
        )
    return found


def table(before: Measured, after: Measured) -> str:
    """What changed, as Markdown."""
    rows = [
        ["the camera, clear: with a condition present", *_shares(before, after, "false_alarms")],
        [f"– changed, nearer than {CHANGED_DB:g} dB", *_shares(before, after, "changed")],
        ["– familiarity", number(before.camera.familiarity, 2), number(after.camera.familiarity, 2)],
        ["the camera, adverse: conditions found", *_shares(before, after, "recall")],
        ["– gain of restoration, dB", number(before.camera.gain, 2), number(after.camera.gain, 2)],
        ["– worst frame, dB", number(before.camera.worst, 2), number(after.camera.worst, 2)],
        [f"– worse by more than {HARM_DB} dB", *_shares(before, after, "harmed")],
        ["sample drives, clear: changed", percent(before.drives.clean.changed), percent(after.drives.clean.changed)],
    ]
    for name, was in before.drives.conditions.items():
        now = after.drives.conditions[name]
        cells = [number(scores.restored.psnr - scores.degraded.psnr, 2) for scores in (was, now)]
        rows.append([f"sample drives, {name}: gain, dB", *cells])
        if was.refined is not None and now.refined is not None:
            rows.append(["– refined mIoU", percent(was.refined.miou), percent(now.refined.miou)])
    return markdown(["held out", "before", "after"], rows)


def _shares(before: Measured, after: Measured, name: str) -> list[str]:
    return [percent(getattr(measured.camera, name)) for measured in (before, after)]
