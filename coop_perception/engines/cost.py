"""What a precision costs: a bundle's outputs in it against those in FP32, on frames it was not calibrated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coop_perception.contracts import CONTRACTS, FUSED, STAGES
from coop_perception.engines.calibration import Feed, Image, cpu_session
from coop_perception.metrics import mean_psnr, psnr

LEAST_AGREEMENT = 0.99
LEAST_PSNR = 35.0
_SCORED = ("mask_raw", "mask", "restored")
STAGED = "three networks"


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


def precision_costs(
    reference: Mapping[str, Path], graphs: Mapping[str, bytes], frames: Sequence[Image]
) -> dict[str, Cost]:
    """The cost of the cooperative graph, and of the three one after the other. Runs on the CPU.

    Args:
        reference: the bundle's ONNX files by name of the network.
        graphs: the same networks in the precision, as ONNX Runtime's CPU runs them truly.
        frames: uint8 [H,W,3] RGB at the bundle's size.
    """
    exact, found = _outputs(reference, frames), _outputs(graphs, frames)
    return {way: _cost(exact[way], found[way]) for way in exact}


def _outputs(graphs: Mapping[str, Path | bytes], frames: Sequence[Image]) -> dict[str, list[dict[str, Image]]]:
    """mask_raw, mask and restored of each frame, for either way."""
    sessions = {name: cpu_session(graph) for name, graph in graphs.items()}
    outputs: dict[str, list[dict[str, Image]]] = {FUSED: [], STAGED: []}
    for frame in frames:
        for way, networks in ((FUSED, (FUSED,)), (STAGED, STAGES)):
            values: Feed = {"image": frame[None]}
            for name in networks:
                contract = CONTRACTS[name]
                given = {key: values[key] for key in contract.inputs}
                values |= zip(contract.outputs, sessions[name].run(list(contract.outputs), given), strict=True)
            outputs[way].append({name: np.asarray(values[name][0], np.uint8) for name in _SCORED})
    return outputs


def _cost(exact: Sequence[Mapping[str, Image]], found: Sequence[Mapping[str, Image]]) -> Cost:
    pairs = list(zip(exact, found, strict=True))
    same = {name: [float(np.mean(a[name] == b[name])) for a, b in pairs] for name in ("mask_raw", "mask")}
    return Cost(
        mask_raw=float(np.mean(same["mask_raw"])),
        mask=float(np.mean(same["mask"])),
        worst_mask=min(same["mask"]),
        restored_psnr=mean_psnr([psnr(a["restored"], b["restored"]) for a, b in pairs]),
    )
