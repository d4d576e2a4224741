"""What INT8 costs and brings by the kernels that run it: measured on this machine when it is first loaded here, and
refused beyond what is stated. The same file may be computed otherwise by another processor, or by another version of a
runtime."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import Bundle
from coop_perception.engines import Engine, EngineError, remembered
from coop_perception.engines.calibration import checking_scenes
from coop_perception.engines.cost import (
    LEAST_AGREEMENT,
    LEAST_PSNR,
    LITTLE_MIOU,
    LITTLE_PSNR,
    Cost,
    precision_cost,
)
from coop_perception.engines.cpu import cpu_name
from coop_perception.engines.frame_pass import Feed, Run, with_engines
from coop_perception.engines.modules import cpu_module


def check_int8(
    bundle: Bundle,
    engines: Mapping[str, Engine],
    files: Mapping[str, Path],
    directory: Path,
    load_exact: Callable[[Path], Engine],
    say: Callable[[str], object],
    unasked: bool = False,
) -> None:
    """Compare networks in INT8 with the bundle's own, on sample frames that INT8 was not calibrated on.

    Args:
        bundle: whose networks these are.
        engines: in INT8, of one backend; what is not among them runs in FP32.
        files: what they were loaded from.
        directory: that remembers what was measured. One that cannot be written to is no error: it is measured again.
        load_exact: makes an engine in FP32 of a file of the bundle.
        say: gets a line with the cost.
        unasked: nobody has asked for INT8.

    Raises:
        EngineError: masks agree, or restored frames are alike, less than is stated; or, unasked, it costs more than a
            little or is not faster.
    """
    backend = next(iter(engines.values())).backend
    facts = {
        "networks": {name: network.sha256 for name, network in bundle.networks.items()},
        "int8": {name: [file.name, file.stat().st_size, file.stat().st_mtime_ns] for name, file in files.items()},
        "cpu": cpu_name(),
        "backend": [backend, cpu_module(backend).VERSION],
    }
    file = remembered.place(directory, "int8", facts)
    known = _known(file)
    cost, faster = known or _measure(bundle, engines, load_exact)
    if known is None:
        remembered.remember(file, {**facts, "cost": asdict(cost), "faster": faster})
    lost = "" if cost.miou_lost is None else f", {cost.miou_lost:+.2f} points of mIoU lost"
    said = (
        f"int8 by {backend} on {cpu_name()} against fp32: mask_raw agrees in {cost.mask_raw:.2%} of the pixels, mask "
        f"agrees in {cost.mask:.2%} of the pixels, restored to {cost.restored_psnr:.1f} dB{lost}; {faster:.2f} times "
        "as fast"
    )
    if cost.excessive():
        raise EngineError(
            f"{said}; expected {LEAST_AGREEMENT:.0%} and {LEAST_PSNR:g} dB: take precision fp32, or build int8 anew "
            "with images of your own (build_engines --calibration)"
        )
    if unasked and not (cost.little() and faster > 1):
        raise EngineError(f"{said}; expected less than {LITTLE_MIOU} points, {LITTLE_PSNR:g} dB, and faster")
    say(said)


def _known(file: Path) -> tuple[Cost, float] | None:
    known = remembered.read(file) or {}
    found, faster = known.get("cost"), known.get("faster")
    names = [field.name for field in fields(Cost)]
    if not isinstance(found, dict) or not isinstance(faster, float):
        return None
    if not all(isinstance(found.get(name), float) or (name, found.get(name)) == ("miou_lost", None) for name in names):
        return None
    return Cost(*(found[name] for name in names)), faster


def _measure(bundle: Bundle, engines: Mapping[str, Engine], load_exact: Callable[[Path], Engine]) -> tuple[Cost, float]:
    """The cost, and how many times as fast INT8 is."""
    exact: dict[str, Engine] = {}
    images, shown = zip(*checking_scenes(), strict=True)
    try:
        for name, network in bundle.networks.items():
            exact[name] = load_exact(network.path)
        in_fp32, in_int8 = _Timed(with_engines(exact)), _Timed(with_engines({**exact, **engines}))
        cost = precision_cost(bundle, in_fp32, in_int8, images, shown)
        return cost, in_fp32.fastest() / in_int8.fastest()
    finally:
        for engine in exact.values():
            engine.close()


class _Timed:
    """Runs networks, and knows how long each took at its fastest, as what else the machine does only ever adds."""

    def __init__(self, run: Run) -> None:
        self._run, self._seconds = run, dict[str, float]()

    def __call__(self, name: str, given: Feed, wanted: Sequence[str]) -> Mapping[str, NDArray[np.generic]]:
        begun = time.perf_counter()
        outputs = self._run(name, given, wanted)
        self._seconds[name] = min(self._seconds.get(name, math.inf), time.perf_counter() - begun)
        return outputs

    def fastest(self) -> float:
        return sum(self._seconds.values())
