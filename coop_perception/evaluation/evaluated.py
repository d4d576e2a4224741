"""What comes of evaluating one recording, whatever the way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import Bundle
from coop_perception.evaluation.evaluation import Findings, Frame, Topics, decode_frame, find_frames
from coop_perception.evaluation.folders import Folders
from coop_perception.evaluation.gallery import Choice, class_ious, gallery, overview
from coop_perception.evaluation.measures import conditions_in
from coop_perception.evaluation.report.frames import FrameScore, Sample, Shown
from coop_perception.evaluation.scoring import Outputs
from coop_perception.evaluation.summary import summarise
from coop_perception.evaluation.table import Table
from coop_perception.metrics import PSNR_CAP
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.recording import Recording

SHOWN_SCORES = {
    "miou_raw": "mIoU raw",
    "miou": "mIoU refined",
    "psnr_degraded": "PSNR degraded, dB",
    "psnr_restored": "PSNR restored, dB",
    "disagreement": "masks differ",
    "confidence": "confidence",
    "flicker": "flicker",
}
OutputsOf = Callable[[Frame], Outputs | None]
"""What was made of a frame, asked for in order; None where nothing was."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A summary as `summary.json` holds it, the frames that it rests on, pictures of some, and what went wrong.

    overview: frames spread over the drive. gallery: what is shown of others, and which and why.
    """

    summary: dict[str, Any]
    table: Table
    overview: Sequence[Sample]
    gallery: Sequence[Shown]
    findings: Findings


def evaluated(
    recording: Recording,
    cameras: Sequence[Topics],
    bundle: Bundle,
    table: Table,
    facts: Mapping[str, Any],
    findings: Findings,
    outputs_of: Callable[[Topics], OutputsOf],
    folders: Folders | None = None,
    known: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Scores and pictures of a recording whose frames have their rows.

    Args:
        recording: what was evaluated.
        cameras: its topics.
        bundle: names the classes.
        table: the rows.
        facts: how it was done, for the summary.
        findings: what the rows warn of is added.
        outputs_of: of a camera, for the pictures.
        folders: of references.
        known: what is known better than by the rows.
    """
    tell_warnings(table, cameras, findings)
    choices = gallery(table, [c.name for c in bundle.classes])
    rows = {*overview(table), *(choice.row for choice in choices)}
    samples: dict[int, Sample] = {}
    for chosen in cameras:
        camera = camera_of(chosen.image)
        wanted = {int(table.whole["frame"][row]): row for row in rows if table.texts["camera"][row] == camera}
        of_camera = _samples(recording, chosen, wanted, outputs_of(chosen), folders) if wanted else {}
        samples |= {wanted[frame]: sample for frame, sample in of_camera.items()}
    summary = {**facts, **summarise([table], 1, bundle.classes, known)}
    return Evaluation(
        summary,
        table,
        [samples[row] for row in overview(table) if row in samples],
        [_shown(table, bundle, choice, samples[choice.row]) for choice in choices if choice.row in samples],
        findings,
    )


def frame_scores(table: Table) -> list[FrameScore]:
    """A run's frames as charts draw them."""
    presence, applied = table.by_key("presence"), table.by_key("applied")

    def number(name: str, row: int) -> float | None:
        value = float(table.numbers[name][row])
        return None if math.isnan(value) else value

    return [
        FrameScore(
            time_s=float(table.numbers["time_s"][row]),
            latency_ms=number("latency_ms", row),
            miou_raw=number("miou_raw", row),
            miou=number("miou", row),
            psnr_degraded=number("psnr_degraded", row),
            psnr_restored=number("psnr_restored", row),
            disagreement=number("disagreement", row),
            flicker_raw=number("flicker_raw", row),
            flicker=number("flicker", row),
            lost=bool(table.texts["status"][row] != "processed"),
            presence={name: value for name in presence if (value := number(f"presence.{name}", row)) is not None},
            applied={name: value for name in applied if (value := number(f"applied.{name}", row)) is not None},
            familiarity=number("familiarity", row),
            restored=table.numbers["restoration_ran"][row] == 1,
        )
        for row in range(len(table))
    ]


def _shown(table: Table, bundle: Bundle, choice: Choice, sample: Sample) -> Shown:
    ious = class_ious(table.of(np.arange(len(table)) == choice.row))
    names = [c.name for c, iou in zip(bundle.classes, ious[0], strict=False) if not math.isnan(iou)]
    conditions = [name for name, rows in conditions_in(table).items() if rows[choice.row]]
    scores = {
        label: min(value, PSNR_CAP) if name.startswith("psnr") else value
        for name, label in SHOWN_SCORES.items()
        if not math.isnan(value := float(table.numbers[name][choice.row]))
    }
    return Shown(f"{choice.why}: {sample.title}", sample, tuple(conditions), tuple(names), scores)


def tell_warnings(table: Table, cameras: Sequence[Topics], findings: Findings) -> None:
    """What frames warn of, once for each kind, with how many they are, and what scores do not rest on."""
    found: Counter[str] = Counter()
    first: dict[str, int] = {}
    for frame, warning in _warnings(table):
        found[warning] += 1
        first.setdefault(warning, frame)
    for chosen in cameras:
        camera = camera_of(chosen.image)
        of_camera = table.of(table.texts["camera"] == camera)
        scores = of_camera.numbers
        _tell_references(of_camera, "mask", chosen.reference_mask, (scores["miou_raw"], scores["miou"]), findings)
        _tell_references(of_camera, "image", chosen.reference_image, (scores["psnr_degraded"],), findings)
    for warning, count in found.items():
        where = f"frame {first[warning]}" + (f" and {count - 1} more" if count > 1 else "")
        findings.warnings.append(f"{where}: {warning}")


def _tell_references(
    table: Table, kind: str, topic: str | None, scores: Sequence[NDArray[np.float64]], findings: Findings
) -> None:
    """References of a camera that cannot be used make the results incomplete where they are many of those there are;
    frames without one are counted where others have one."""
    used = int(np.any(~np.isnan(scores), axis=0).sum())
    unusable = sum(warning.partition(": ")[0] in (topic, f"reference {kind}") for _, warning in _warnings(table))
    there, processed = used + unusable, int((table.texts["status"] == "processed").sum())
    if not there:
        return
    camera = table.texts["camera"][0]
    if unusable:
        findings.note(f"{unusable} of {there} reference {kind}s of {camera} cannot be used", used / there)
    if there < processed:
        findings.warnings.append(f"only {there} of {processed} frames of {camera} have a reference {kind}")


def _warnings(table: Table) -> Iterator[tuple[int, str]]:
    """With the number of the frame that warns."""
    for frame, text in zip(table.whole["frame"].tolist(), table.texts["warnings"].tolist(), strict=True):
        for warning in filter(None, text.split("\n")):
            yield frame, warning


def _samples(
    recording: Recording,
    chosen: Topics,
    wanted: Collection[int],
    outputs_of: OutputsOf,
    folders: Folders | None,
) -> dict[int, Sample]:
    """Pictures of frames, by their numbers: the recording is read again, which are the best is known only now."""
    samples: dict[int, Sample] = {}
    for found in find_frames(recording, chosen, Findings()):
        if found.index not in wanted:
            continue
        frame = decode_frame(recording, chosen, found, folders)
        outputs = outputs_of(frame) if frame.image is not None else None
        if frame.image is not None and outputs is not None:
            samples[found.index] = Sample(
                title=found.title,
                image=frame.image,
                mask_raw=outputs.mask_raw,
                mask=outputs.mask,
                restored=outputs.restored,
                reference_image=_fitting(frame.reference_image, frame.image.shape[:2]),
                reference_mask=_fitting(frame.reference_mask, frame.image.shape[:2]),
            )
        if len(samples) == len(wanted):
            break
    return samples


def _fitting(reference: Any, size: tuple[int, ...]) -> Any:
    """A reference of another size was not scored, and is not shown."""
    return reference if reference is not None and reference.shape[:2] == size else None
