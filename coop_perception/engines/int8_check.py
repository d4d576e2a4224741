"""What INT8 costs by the kernels that run it: measured on this machine when it is first loaded here, and refused beyond
what is stated. The same file may be computed otherwise by another processor, or by another version of a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from pathlib import Path

from coop_perception.contracts import Bundle
from coop_perception.engines import Engine, EngineError, remembered
from coop_perception.engines.calibration import checking_frames
from coop_perception.engines.cost import LEAST_AGREEMENT, LEAST_PSNR, Cost, precision_cost
from coop_perception.engines.cpu import cpu_name
from coop_perception.engines.frame_pass import with_engines
from coop_perception.engines.modules import cpu_module


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
        engines: in INT8, of one backend; what is not among them runs in FP32.
        files: what they were loaded from.
        directory: that remembers what was measured. One that cannot be written to is no error: it is measured again.
        load_exact: makes an engine in FP32 of a file of the bundle.
        say: gets a line with the cost.

    Raises:
        EngineError: masks agree, or restored frames are alike, less than is stated.
    """
    backend = next(iter(engines.values())).backend
    facts = {
        "networks": {name: network.sha256 for name, network in bundle.networks.items()},
        "int8": {name: [file.name, file.stat().st_size, file.stat().st_mtime_ns] for name, file in files.items()},
        "cpu": cpu_name(),
        "backend": [backend, cpu_module(backend).VERSION],
    }
    file = remembered.place(directory, "int8", facts)
    cost = _known(file)
    if cost is None:
        cost = _measure(bundle, engines, load_exact)
        remembered.remember(file, {**facts, "cost": asdict(cost)})
    said = (
        f"int8 by {backend} on {cpu_name()} against fp32: mask_raw agrees in {cost.mask_raw:.2%} of the pixels, mask "
        f"agrees in {cost.mask:.2%} of the pixels, restored to {cost.restored_psnr:.1f} dB"
    )
    if cost.excessive():
        raise EngineError(
            f"{said}; expected {LEAST_AGREEMENT:.0%} and {LEAST_PSNR:g} dB: take precision fp32, or build int8 anew "
            "with images of your own (build_engines --calibration)"
        )
    say(said)


def _known(file: Path) -> Cost | None:
    found = (remembered.read(file) or {}).get("cost")
    names = [field.name for field in fields(Cost)]
    if not isinstance(found, dict) or not all(isinstance(found.get(name), float) for name in names):
        return None
    return Cost(*(found[name] for name in names))


def _measure(bundle: Bundle, engines: Mapping[str, Engine], load_exact: Callable[[Path], Engine]) -> Cost:
    exact: dict[str, Engine] = {}
    try:
        for name, network in bundle.networks.items():
            exact[name] = load_exact(network.path)
        return precision_cost(bundle, with_engines(exact), with_engines({**exact, **engines}), checking_frames())
    finally:
        for engine in exact.values():
            engine.close()
