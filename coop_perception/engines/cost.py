"""What a precision costs: a bundle's outputs in it against those in FP32, on frames it was not calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coop_perception.contracts import Bundle
from coop_perception.engines.frame_pass import Image, Run, outputs_of
from coop_perception.metrics import mean_psnr, psnr

LEAST_AGREEMENT = 0.99
LEAST_PSNR = 35.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Shares of pixels whose class is the same, and PSNR of restored frames in dB; FP32 is the reference."""

    mask_raw: float
    mask: float
    worst_mask: float
    """Of `mask`, in a single frame."""
    restored_psnr: float

    def excessive(self) -> bool:
        return min(self.mask_raw, self.mask) < LEAST_AGREEMENT or self.restored_psnr < LEAST_PSNR


def precision_cost(bundle: Bundle, exact: Run, found: Run, frames: Sequence[Image]) -> Cost:
    """The cost over all three networks, one after the other.

    Args:
        bundle: whose networks these are.
        exact, found: run them in FP32, and in the precision.
        frames: uint8 [h,w,3] RGB.
    """
    same: dict[str, list[float]] = {"mask_raw": [], "mask": []}
    restored = []
    for frame in frames:
        a, b = (outputs_of(bundle, frame, run) for run in (exact, found))
        for name, shares in same.items():
            shares.append(float(np.mean(a[name] == b[name])))
        restored.append(psnr(*(np.asarray(values["restored"][0], np.uint8) for values in (a, b))))
    return Cost(float(np.mean(same["mask_raw"])), float(np.mean(same["mask"])), min(same["mask"]), mean_psnr(restored))
