"""What a precision costs: a bundle's outputs in it against those in FP32, on frames it was not calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, translation
from coop_perception.contracts import Bundle
from coop_perception.engines.frame_pass import Image, Run, outputs_of
from coop_perception.metrics import confusion_matrix, mean_psnr, psnr, segmentation_scores

LEAST_AGREEMENT = 0.99
LEAST_PSNR = 35.0
LITTLE_MIOU, LITTLE_PSNR = 0.3, 45.0
"""Points of mIoU, and dB: what costs less is taken unasked."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Shares of pixels whose class is the same, and PSNR of restored frames in dB; FP32 is the reference."""

    mask_raw: float
    mask: float
    worst_mask: float
    """Of `mask`, in a single frame."""
    restored_psnr: float
    miou_lost: float | None = None
    """Points of mIoU by which masks, raw or refined, are worse than FP32's; None where what is shown is not known."""

    def excessive(self) -> bool:
        return min(self.mask_raw, self.mask) < LEAST_AGREEMENT or self.restored_psnr < LEAST_PSNR

    def little(self) -> bool:
        lost = self.miou_lost
        return lost is not None and lost < LITTLE_MIOU and self.restored_psnr >= LITTLE_PSNR


def precision_cost(
    bundle: Bundle, exact: Run, found: Run, frames: Sequence[Image], shown: Sequence[Image] = ()
) -> Cost:
    """The cost over all three networks, one after the other.

    Args:
        bundle: whose networks these are.
        exact, found: run them in FP32, and in the precision.
        frames: uint8 [h,w,3] RGB.
        shown: uint8 [h,w], ids of CAMVID_CLASSES; none: not known.
    """
    same: dict[str, list[float]] = {"mask_raw": [], "mask": []}
    restored, count, ids = [], len(bundle.classes), translation(CAMVID_CLASSES, bundle.classes)
    pixels = {name: np.zeros((2, count, count + 1), np.int64) for name in same}
    for index, frame in enumerate(frames):
        a, b = (outputs_of(bundle, frame, run) for run in (exact, found))
        for name, shares in same.items():
            shares.append(float(np.mean(a[name] == b[name])))
            if shown:
                height, width = a[name].shape[1:]
                true = ids[cv2.resize(shown[index], (width, height), interpolation=cv2.INTER_NEAREST_EXACT)]
                masks = (values[name][0].astype(np.uint8) for values in (a, b))
                pixels[name] += np.stack([confusion_matrix(true, mask, count, IGNORE_ID) for mask in masks])
        restored.append(psnr(*(np.asarray(values["restored"][0], np.uint8) for values in (a, b))))
    lost = [100 * (_miou(exactly) - _miou(otherwise)) for exactly, otherwise in pixels.values() if exactly.any()]
    return Cost(
        float(np.mean(same["mask_raw"])),
        float(np.mean(same["mask"])),
        min(same["mask"]),
        mean_psnr(restored),
        max(lost, default=None),
    )


def _miou(matrix: NDArray[np.int64]) -> float:
    return segmentation_scores(matrix).miou
