"""Which CPU backend runs a bundle faster on this machine: measured once, then remembered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from coop_perception.contracts import STAGES, Bundle, network_size
from coop_perception.engines import Engine, EngineError, remembered
from coop_perception.engines.cpu import cpu_name, usable_cores
from coop_perception.engines.frame_pass import SIZE, outputs_of, with_engines
from coop_perception.engines.modules import cpu_module
from coop_perception.sample_scene.drive import SampleDrive

REFERENCE, OTHER = "onnxruntime", "openvino"
MASK_AGREEMENT = 0.999
RUNS = 5
"""Of each backend, in turn; the fastest counts, as what else the machine does only ever adds."""


def faster_on_cpu(
    bundle: Bundle,
    threads: int,
    directory: Path,
    load: Callable[[str, Path, int, str], Engine],
    network_height: int = 0,
) -> tuple[str, str]:
    """The faster of REFERENCE and OTHER in FP32 with equal masks, and why, in words.

    Args:
        bundle: whose networks are to be run.
        threads: of one run; 0: one per core.
        directory: that remembers it. One that cannot be written to is no error: then it is measured again.
        load: makes an engine of backend, file, threads and precision.
        network_height: of the networks' image, in pixels; 0: the bundle's.

    Raises:
        EngineError: one of the two does not load at all, or REFERENCE cannot run the bundle.
    """
    facts = {
        "networks": {name: network.sha256 for name, network in bundle.networks.items()},
        "cpu": cpu_name(),
        "threads": threads or usable_cores(),
        "image": list(network_size(bundle.input, *SIZE, network_height)),
        "versions": {name: cpu_module(name).VERSION for name in (REFERENCE, OTHER)},
    }
    file = remembered.place(directory, "cpu", facts)
    known = _read(file)
    if known:
        return known["backend"], f"{known['why']} (from {file})"
    backend, why = _measure(bundle, threads, load, network_height)
    return backend, f"{why}, {remembered.remember(file, {**facts, 'backend': backend, 'why': why})}"


def _measure(
    bundle: Bundle, threads: int, load: Callable[[str, Path, int, str], Engine], network_height: int
) -> tuple[str, str]:
    engines: dict[str, dict[str, Engine]] = {REFERENCE: {}, OTHER: {}}
    seconds, masks = dict.fromkeys(engines, float("inf")), {}
    frame = SampleDrive(0, *SIZE[::-1]).frame(0).image  # a street, as masks of noise are a matter of rounding
    try:
        for name, networks in engines.items():
            for stage in STAGES:
                networks[stage] = load(name, bundle.networks[stage].path, threads, "fp32")
        for _ in range(RUNS):
            for name, networks in engines.items():
                begun = time.perf_counter()
                masks[name] = outputs_of(bundle, frame, with_engines(networks), network_height)["mask"]
                seconds[name] = min(seconds[name], time.perf_counter() - begun)
    except EngineError as error:
        if name == REFERENCE:
            raise
        return REFERENCE, f"{OTHER} cannot run the bundle ({error})"
    finally:
        for networks in engines.values():
            for engine in networks.values():
                engine.close()
    same = float((masks[REFERENCE] == masks[OTHER]).mean())
    if same < MASK_AGREEMENT:
        return REFERENCE, f"{OTHER}'s masks agree in {same:.2%} of the pixels only"
    best, slower = sorted(seconds, key=seconds.__getitem__)
    return best, f"{seconds[slower] / seconds[best]:.2f} times as fast as {slower} here"


def _read(file: Path) -> Mapping[str, str] | None:
    known = remembered.read(file) or {}
    fits = known.get("backend") in (REFERENCE, OTHER) and isinstance(known.get("why"), str)
    return known if fits else None
