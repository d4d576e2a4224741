"""One frame's row: what its outputs are worth against its references, and what can be said without."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import IGNORE_ID
from coop_perception.evaluation import no_reference
from coop_perception.evaluation.conditions import Estimated, by_estimated_name
from coop_perception.evaluation.evaluation import Frame
from coop_perception.evaluation.rows import Row, row_of
from coop_perception.metrics import confidence_counts, confusion_matrix, psnr, segmentation_scores, ssim

Pixels = NDArray[np.uint8]
LONGEST_STEP_S = 1.0
"""Between two frames whose masks are compared: what lies further apart shows another scene."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was made of a frame, at its own size: masks and confidence uint8 [H,W], restored uint8 [H,W,3] RGB."""

    mask_raw: Pixels | None
    mask: Pixels | None
    confidence: Pixels | None
    restored: Pixels | None
    conditions: Estimated | None
    latency_ms: float | None
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Before:
    """What the next frame is compared with."""

    time_s: float
    grey: Pixels
    mask_raw: Pixels | None
    mask: Pixels | None


def before(frame: Frame, outputs: Outputs) -> Before:
    assert frame.image is not None
    return Before(frame.found.time_s, _grey(frame.image), outputs.mask_raw, outputs.mask)


def score(camera: str, frame: Frame, outputs: Outputs, earlier: Before | None, classes: int) -> Row:
    """The row of a frame that was processed. A reference that does not fit is no error: the row says it.

    Args:
        camera: its name.
        frame: with its image.
        outputs: what was made of it.
        earlier: the frame before it; None where there is none.
        classes: how many there are.
    """
    assert frame.image is not None
    row = row_of(camera, frame.found, "processed")
    row.warnings += frame.warnings
    row.latency_ms, row.stages_ms = outputs.latency_ms, dict(outputs.stages_ms)
    row.height, row.width = map(float, frame.image.shape[:2])
    if outputs.conditions is not None:
        for name, value in outputs.conditions.columns().items():
            setattr(row, name, value)
        if frame.applied is not None:
            row.applied = by_estimated_name(frame.applied, outputs.conditions.names)
    _masks(row, frame, outputs, classes)
    _images(row, frame, outputs)
    _alone(row, frame, outputs, earlier)
    return row


def _masks(row: Row, frame: Frame, outputs: Outputs, classes: int) -> None:
    reference = frame.reference_mask
    if reference is None:
        return
    try:
        raw, refined = (
            None if mask is None else confusion_matrix(reference, mask, classes)
            for mask in (outputs.mask_raw, outputs.mask)
        )
    except ValueError as error:
        row.warnings.append(f"reference mask: {error}")
        return
    if (reference == IGNORE_ID).all():
        row.warnings.append("reference mask: no pixel is of a class, all are 255")
    for name, matrix in (("raw", raw), ("", refined)):
        if matrix is None or not matrix.any():
            continue
        suffix = name and f"_{name}"
        setattr(row, f"confusion{suffix}", matrix.ravel().tolist())
        setattr(row, f"miou{suffix}", segmentation_scores(matrix).miou)
    if row.confusion and outputs.mask is not None and outputs.confidence is not None:
        row.confidences = confidence_counts(reference, outputs.mask, outputs.confidence).ravel().tolist()


def _images(row: Row, frame: Frame, outputs: Outputs) -> None:
    image, restored, reference = frame.image, outputs.restored, frame.reference_image
    if image is None or reference is None:
        return
    try:
        row.psnr_degraded, row.ssim_degraded = psnr(reference, image), ssim(reference, image)
        if _left_as_it_was(image, restored):
            row.psnr_restored, row.ssim_restored = row.psnr_degraded, row.ssim_degraded
        elif restored is not None:
            row.psnr_restored, row.ssim_restored = psnr(reference, restored), ssim(reference, restored)
    except ValueError as error:
        row.warnings.append(f"reference image: {error}")
        row.psnr_degraded = row.psnr_restored = row.ssim_degraded = row.ssim_restored = None


def _alone(row: Row, frame: Frame, outputs: Outputs, earlier: Before | None) -> None:
    assert frame.image is not None
    if outputs.mask_raw is not None and outputs.mask is not None:
        row.disagreement = no_reference.disagreement(outputs.mask_raw, outputs.mask)
    if outputs.confidence is not None:
        row.confidence = float(cv2.mean(outputs.confidence)[0] / 255)
    grey = _grey(frame.image)
    row.sharpness, row.contrast, row.noise = _of_grey(grey)
    if _left_as_it_was(frame.image, outputs.restored):
        row.sharpness_restored, row.contrast_restored, row.noise_restored = row.sharpness, row.contrast, row.noise
    elif outputs.restored is not None:
        restored = _of_grey(_grey(outputs.restored))
        row.sharpness_restored, row.contrast_restored, row.noise_restored = restored
    if earlier is None or earlier.grey.shape != grey.shape:
        return
    if not 0 < frame.found.time_s - earlier.time_s <= LONGEST_STEP_S:
        return
    motion = no_reference.Motion(earlier.grey, grey)
    if outputs.mask_raw is not None and earlier.mask_raw is not None:
        row.flicker_raw = motion.flicker(earlier.mask_raw, outputs.mask_raw)
    if outputs.mask is not None and earlier.mask is not None:
        row.flicker = motion.flicker(earlier.mask, outputs.mask)


def _left_as_it_was(image: Pixels, restored: Pixels | None) -> bool:
    """Whether the restored image is the input: most are where nothing is present, and scores take long."""
    return restored is image or (restored is not None and np.array_equal(restored, image))


def _of_grey(grey: Pixels) -> tuple[float, float, float]:
    """Sharpness, contrast and noise."""
    return no_reference.sharpness(grey), no_reference.contrast(grey), no_reference.noise(grey)


def _grey(image: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
