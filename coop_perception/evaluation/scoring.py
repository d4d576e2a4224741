"""Scores of a recording's frames, pooled into what `summary.json` holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import SemanticClass
from coop_perception.evaluation.report.frames import FrameScore, Sample
from coop_perception.metrics import confusion_matrix, mean_psnr, psnr, segmentation_scores, ssim

Pixels = NDArray[np.uint8]


class ScoringError(ValueError):
    """References that cannot be scored against; the message says what was found."""


@dataclass(slots=True)
class Scores:
    """Accumulates frames. Scores pool the confusion matrix over all frames; PSNR and SSIM are means over frames."""

    classes: Sequence[SemanticClass]
    matrices: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    image_scores: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    series: list[FrameScore] = field(default_factory=list)

    def add(self, sample: Sample, time_s: float, latency_ms: float | None) -> None:
        """Score one frame against whatever references it has.

        Raises:
            ScoringError: a reference is of another size than the image, or holds an id that is no class.
        """
        miou: dict[str, float | None] = {}
        for name, mask in (("mask_raw", sample.mask_raw), ("mask", sample.mask)):
            miou[name] = self._score_mask(name, sample, mask)
        image_psnr: dict[str, float | None] = {}
        for name, image in (("image_degraded", sample.image), ("image_restored", sample.restored)):
            image_psnr[name] = self._score_image(name, sample, image)
        self.series.append(
            FrameScore(
                time_s=time_s,
                latency_ms=latency_ms,
                miou_raw=miou["mask_raw"],
                miou=miou["mask"],
                psnr_degraded=image_psnr["image_degraded"],
                psnr_restored=image_psnr["image_restored"],
            )
        )

    def summary(self) -> dict[str, Any]:
        """`mask_raw`, `mask` and `image_degraded`, `image_restored`, each where there were references for it."""
        result: dict[str, Any] = {}
        for name, matrix in self.matrices.items():
            if matrix.sum() == 0:
                continue
            scores = segmentation_scores(matrix)
            result[name] = {
                "pa": scores.pa,
                "mpa": scores.mpa,
                "miou": scores.miou,
                "fwiou": scores.fwiou,
                "iou": {c.name: iou for c, iou in zip(self.classes, scores.iou, strict=True)},
            }
        for name, values in self.image_scores.items():
            result[name] = {
                "psnr": mean_psnr([value for value, _ in values]),
                "ssim": float(np.mean([value for _, value in values])),
            }
        return result

    def _score_mask(self, name: str, sample: Sample, mask: Pixels | None) -> float | None:
        if mask is None or sample.reference_mask is None:
            return None
        try:
            matrix = confusion_matrix(sample.reference_mask, mask, len(self.classes))
        except ValueError as error:
            raise ScoringError(f"{sample.title}: reference mask: {error}") from error
        self.matrices[name] = self.matrices.get(name, np.zeros_like(matrix)) + matrix
        return segmentation_scores(matrix).miou if matrix.sum() else None

    def _score_image(self, name: str, sample: Sample, image: Pixels | None) -> float | None:
        if image is None or sample.reference_image is None:
            return None
        try:
            scores = (psnr(sample.reference_image, image), ssim(sample.reference_image, image))
        except ValueError as error:
            raise ScoringError(f"{sample.title}: reference image: {error}") from error
        self.image_scores.setdefault(name, []).append(scores)
        return scores[0]


def condition_summary(estimates: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """From (most likely condition, strength) per frame: frames by condition and the mean strength."""
    return {
        "most_likely": dict(Counter(name for name, _ in estimates).most_common()),
        "strength": float(np.mean([strength for _, strength in estimates])),
    }
