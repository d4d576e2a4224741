"""What INT8 costs by the kernels that run it: measured on this machine when it is first loaded here, and refused beyond
what is stated. The same file may be computed otherwise by another processor, or by another version of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from coop_perception.contracts import CONTRACTS, Bundle
from coop_perception.engines import Engine, EngineError, remembered
from coop_perception.engines.calibration import Feed, Image, checking_frames
from coop_perception.engines.cost import LEAST_AGREEMENT, LEAST_PSNR
from coop_perception.engines.cpu import cpu_name
from coop_perception.engines.modules import cpu_module
from coop_perception.metrics import mean_psnr, psnr

MASKS = ("mask_raw", "mask")
RESTORED = "restored"


def check_int8(
    bundle: Bundle,
    engines: Mapping[str, Engine],
    files: Mapping[str, Path],
    directory: Path,
    load_exact: Callable[[Path], Engine],
    say: Callable[[str], object],
) -> None:
    """Compare networks in INT8 with the bundle's own, on sample frames that INT8 was not calibrated on.

    Args:
        bundle: whose networks these are.
        engines: in INT8, of one backend.
        files: what they were loaded from.
        directory: that remembers what was measured. One that cannot be written to is no error: it is measured again.
        load_exact: makes an engine in FP32 of a file of the bundle.
        say: gets a line with the cost.

    Raises:
        EngineError: masks agree, or restored frames are alike, less than is stated.
    """
    backend = next(iter(engines.values())).backend
    facts = {
        "networks": {name: bundle.networks[name].sha256 for name in engines},
        "int8": {name: [file.name, file.stat().st_size, file.stat().st_mtime_ns] for name, file in files.items()},
        "cpu": cpu_name(),
        "backend": [backend, cpu_module(backend).VERSION],
    }
    file = remembered.place(directory, "int8", facts)
    cost = _known(file)
    if cost is None:
        cost = _measure(bundle, engines, load_exact)
        remembered.remember(file, {**facts, "cost": cost})
    words = [f"{name} agrees in {cost[name]:.2%} of the pixels" for name in MASKS if name in cost]
    words += [f"{RESTORED} to {cost[RESTORED]:.1f} dB"] if RESTORED in cost else []
    said = f"int8 by {backend} on {cpu_name()} against fp32: {', '.join(words)}"
    if min((cost[name] for name in MASKS if name in cost), default=1.0) < LEAST_AGREEMENT or (
        cost.get(RESTORED, LEAST_PSNR) < LEAST_PSNR
    ):
        raise EngineError(
            f"{said}; expected {LEAST_AGREEMENT:.0%} and {LEAST_PSNR:g} dB: take precision fp32, or build int8 anew "
            "with images of your own (build_engines --calibration)"
        )
    say(said)


def _known(file: Path) -> dict[str, float] | None:
    cost = (remembered.read(file) or {}).get("cost")
    if not isinstance(cost, dict) or not all(isinstance(value, float) for value in cost.values()):
        return None
    return cost


def _measure(bundle: Bundle, engines: Mapping[str, Engine], load_exact: Callable[[Path], Engine]) -> dict[str, float]:
    """Shares of pixels of the same class, and PSNR in dB, of the outputs that these networks have."""
    frames = checking_frames(bundle)
    exact: dict[str, Engine] = {}
    try:
        for name in engines:
            exact[name] = load_exact(bundle.networks[name].path)
        pairs = [(_outputs(exact, frame), _outputs(engines, frame)) for frame in frames]
    finally:
        for engine in exact.values():
            engine.close()
    cost = {
        name: float(np.mean([np.mean(a[name] == b[name]) for a, b in pairs])) for name in MASKS if name in pairs[0][0]
    }
    if RESTORED in pairs[0][0]:
        cost[RESTORED] = float(mean_psnr([psnr(a[RESTORED], b[RESTORED]) for a, b in pairs]))
    return cost


def _outputs(engines: Mapping[str, Engine], frame: Image) -> dict[str, Image]:
    """What these networks make of a frame, one after the other where each has its inputs from those before."""
    values: Feed = {"image": frame[None]}
    for name, contract in CONTRACTS.items():
        if name in engines and set(contract.inputs) <= values.keys():
            given = {key: values[key] for key in contract.inputs}
            # An output that another network has as well is the later one's.
            values |= engines[name].run(given, contract.outputs)
    wanted: Sequence[str] = (*MASKS, RESTORED)
    return {name: np.asarray(values[name][0], np.uint8) for name in wanted if name in values}
