"""All that can be run on the NVIDIA GPU that is here, in at most eight minutes, to out/bench/gpu_bringup.json and .md.

First the CUDA layer, through the product's own code: results of changing sizes and outputs, captures beside what other
threads do, waiting, memory, errors. There a TensorRT made of copying kernels (PyTorch's or CuPy's) stands in for the
real one, so that what must come out is known and no package is missed. Then each backend that is installed: a bundle's
masks against the CPU's. Then the times of `benchmarks/gpu.py`, as far as the minutes go. Each part runs in processes of
its own, which are ended where they take too long, and is written into both files as soon as it is done.

Where neither PyTorch with CUDA nor CuPy is installed, as on a vehicle, the backends alone are tried.

With `--cpu` on a pretended GPU, whose times mean nothing: that the checks themselves work. Ends with 1 where a check
failed. Without a GPU, and without `--cpu`, it says so and does nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from support.gpu_checks import CHECKS, STICKY, Place, apart, broken, outcome, times
from support.kernels import kernels
from support.stand_in_tensorrt import stand_in

from coop_perception.contracts import CONTRACTS
from coop_perception.engines import EngineError
from coop_perception.engines.backends import BACKENDS, MAX_BATCH, ON_CPU
from coop_perception.engines.cuda import call, gpu, memory_in_use
from coop_perception.engines.frame_pass import outputs_of, with_engines
from coop_perception.engines.loading import EngineSettings, installed, load_file
from coop_perception.engines.modules import cpu_module
from coop_perception.model.bundle import load_bundle
from coop_perception.model.loading import load_pipeline
from coop_perception.model.pipeline import Pipeline
from coop_perception.resources import default_bundle
from coop_perception.sample_scene.drive import SampleDrive

OUT = Path("out/bench")
MINUTES = 8.0
RESERVED_S = 120.0
"""Of the minutes, for the networks' times."""
WRITTEN_S = 10.0
"""Within which a process that measures has said what it found."""
AGREEMENT = 0.999
"""Least share of pixels whose class is the CPU's, in FP32; in FP16 0.99."""
NO_KERNELS = "for neither PyTorch with CUDA nor CuPy is installed, whose kernels would stand in for TensorRT"
BACKEND, NETWORKS, LAYER = "--only-backend", "--only-networks", "--only-layer"
WHOLE = "every node on the GPU"
PACKAGES = (
    "cuda-bindings",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "onnxruntime-gpu",
    "onnxruntime",
    "torch",
    "cupy-cuda12x",
    "cupy-cuda13x",
)


def backend_masks(backend: str, precision: str) -> dict[str, Any]:
    """A bundle through the product on a backend: masks against the CPU's, times of a batch."""
    frames, bundle = sample_frames(), load_bundle(default_bundle())
    on_cpu = next((one for one in ON_CPU if installed(one)), None)
    if on_cpu is None:
        raise EngineError(f"nothing to compare with: neither of {' and '.join(ON_CPU)} is installed")
    cpu = Pipeline(bundle, {name: load_file(on_cpu, net.path, 0, "fp32") for name, net in bundle.networks.items()})
    reference = [result.mask for result in cpu.run(frames, ("mask",))]
    cpu.close()
    said: list[str] = []
    settings = EngineSettings(backend, precision)
    pipeline = load_pipeline(default_bundle(), settings, said.append)
    try:
        engine = pipeline.engines["segmenter"]
        if not engine.on_gpu:
            raise EngineError(f"it runs on the CPU: {said[-1]}")
        masks = [result.mask for result in pipeline.run(frames, ("mask",))]
        agreement = min(float(np.mean(a == b)) for a, b in zip(masks, reference, strict=True))
        least = AGREEMENT if precision == "fp32" else 0.99
        if agreement < least:
            raise AssertionError(f"masks agree with the CPU's in {agreement:.3%} of pixels, expected {least:.1%}")
        ms = {
            f"batch {n}": times(lambda n=n: pipeline.run(frames[:n], ("mask", "restored")), 50) for n in (1, MAX_BATCH)
        }
        return {"agreement": round(agreement, 6), "device": engine.device, "ms": ms}
    finally:
        pipeline.close()


def sample_frames() -> list[np.ndarray]:
    drive = SampleDrive(0, 640, 480)
    return [drive.frame(20 * index).image for index in range(MAX_BATCH)]


def whole_onnxruntime() -> str:
    """Whether ONNX Runtime runs every node of the bundle's graphs on the GPU."""
    from coop_perception.engines.onnxruntime import OnnxRuntimeEngine, has_cuda

    has_cuda()
    bundle = load_bundle(default_bundle())
    on_cpu = {name: OnnxRuntimeEngine(network.path) for name, network in bundle.networks.items()}
    given = outputs_of(bundle, sample_frames()[0], with_engines(on_cpu))
    for name, contract in CONTRACTS.items():
        shapes = {key: given[key].shape for key in contract.inputs}
        OnnxRuntimeEngine(bundle.networks[name].path, cuda=True, whole=shapes).close()
    return f"every node of {', '.join(CONTRACTS)}"


def check_backends(left: Callable[[], float]) -> dict[str, Any]:
    """Each in a process of its own: one that crashes, or builds for too long, costs itself alone."""
    asked = [
        (backend, precision)
        for backend, precisions in BACKENDS.items()
        for precision in ("fp16", "fp32")  # what is used most first, for minutes may run out
        if backend != "openvino" and precision in precisions and installed(backend)
    ]
    if ("onnxruntime", "fp32") in asked:
        try:
            on_gpu = cpu_module("onnxruntime").has_cuda()
        except EngineError:
            on_gpu = True  # it says why not
        asked = [*asked, ("onnxruntime", WHOLE)] if on_gpu else [one for one in asked if one[0] != "onnxruntime"]
    return {", ".join(one): outcome(lambda one=one: apart([BACKEND, *one], left())) for one in asked}


def network_times(left: Callable[[], float]) -> Any:
    """`benchmarks/gpu.py`'s, as many as the time allows."""
    import gpu as networks

    reason = networks.why_not()
    if reason:
        return reason
    done = outcome(lambda: apart([NETWORKS, f"{left() - WRITTEN_S:.1f}"], left()))
    return done["found"] if done["ok"] else done["error"]


def only_networks(seconds: float) -> Any:
    import gpu as networks

    end = time.monotonic() + seconds
    return networks.measure(lambda: end - time.monotonic())


def facts(place: Place | None) -> dict[str, Any]:
    found, (used, total) = gpu(), memory_in_use()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pass
    return {
        **asdict(found),
        "memory_in_use": used,
        "memory_total": total,
        "cuda_of_driver": call("cudaDriverGetVersion"),
        "cuda_of_runtime": call("cudaRuntimeGetVersion"),
        "kernels": place.kernels.name if place else "nobody",
        "stand_in_for_tensorrt": place is not None,
        "packages": versions,
        "python": platform.python_version(),
    }


def page(result: dict[str, Any]) -> str:
    """Markdown: what was run where, and what came of it."""
    device = result["device"]
    lines = [
        f"# GPU bring-up: {device['name']}",
        "",
        f"Compute capability {device['compute_capability']}, {device['multiprocessors']} multiprocessors, "
        f"{device['memory'] >> 20} MiB, {'integrated, ' if device['integrated'] else ''}driver for CUDA "
        f"{device['cuda_of_driver']}, runtime {device['cuda_of_runtime']}, Python {device['python']}.",
        "",
        f"In the checks of the CUDA layer copying kernels of {device['kernels']} stand in for TensorRT."
        if device["stand_in_for_tensorrt"]
        else f"The CUDA layer was not checked by itself: {NO_KERNELS}.",
        "",
    ]
    if result["pretended"]:
        lines += ["**On a pretended GPU: the checks work; no figure means anything.**", ""]
    lines += ["| check | | seconds | |", "| --- | --- | ---: | --- |"]
    for group in ("checks", "backends"):
        for name, one in result[group].items():
            told = json.dumps(one["found"]) if one["ok"] else one["error"]
            lines.append(
                f"| {name} | {'ok' if one['ok'] else '**failed**'} | {one['seconds']} | {told.replace('|', '/')} |"
            )
    networks = result["networks"]
    if isinstance(networks, str):
        lines += ["", f"The networks were not timed: {networks}."]
    else:
        lines += ["", "| size | batch | precision | network | runner | p50 ms | p95 | p99 | % of roofline |"]
        lines += ["| --- | ---: | --- | --- | --- | ---: | ---: | ---: | ---: |"]
        for r in networks["results"]:
            shown = [r["error"]] if "error" in r else [str(r[key]) for key in ("ms", "p95", "p99", "roofline")]
            case = (f"{r['width']}x{r['height']}", str(r["batch"]), r["precision"], r["network"], r["runner"])
            lines.append("| " + " | ".join([*case, *shown]) + " |")
    return "\n".join(lines) + "\n"


def pretended() -> Place:
    """A GPU that is none, of the tests."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))
    from fake_cuda import FakeCuda

    fake = FakeCuda()
    sys.modules |= fake.modules()
    found = kernels(fake)
    assert found is not None
    return Place(found, fake, sizes=((24, 32), (36, 64), (48, 64)), captures=20, loads=8)


def bring_up(
    place: Place | None, minutes: float, backends: bool, write: Callable[[dict[str, Any]], object] = lambda _: None
) -> dict[str, Any]:
    """All checks; everything that is in the JSON. `place`: None where no kernels stand in; `write` gets what there is
    after each part."""
    end, device = time.monotonic() + 60 * minutes, facts(place)  # a check may break the GPU for this process

    def left() -> float:
        return end - time.monotonic()

    result: dict[str, Any] = {"device": device, "pretended": place is not None and place.fake is not None}
    checks = {} if place is None else check_layer(place) if place.fake is not None else layer_apart(left)
    result |= {"checks": checks, "backends": {}, "networks": "not yet"}
    write(result)
    result["backends"] = check_backends(lambda: left() - RESERVED_S) if backends else {}
    write(result)
    result["networks"] = network_times(left) if backends else "on a pretended GPU"
    write(result)
    return result


def layer_apart(left: Callable[[], float]) -> dict[str, Any]:
    done = outcome(lambda: apart([LAYER], left() - RESERVED_S))
    found: dict[str, Any] = done["found"] if done["ok"] else {"all of the CUDA layer": done}
    return found


def check_layer(place: Place) -> dict[str, Any]:
    """The CUDA layer's own checks, under the stand-in."""
    sys.modules["tensorrt"], real = stand_in(place.kernels, *place.largest), sys.modules.get("tensorrt")
    place.module = sys.modules["tensorrt"]
    checks = {}
    for check in CHECKS:
        place.said.clear()
        name = check.__name__.removeprefix("check_").replace("_", " ")
        checks[name] = outcome(lambda check=check: check(place))
        print(name, json.dumps(checks[name]), flush=True)
    del sys.modules["tensorrt"]
    if real is not None:
        sys.modules["tensorrt"] = real
    return checks


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="on a pretended GPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that it may take (default: %(default)g)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of both files (default: %(default)s)")
    parser.add_argument(STICKY, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(BACKEND, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument(NETWORKS, type=float, help=argparse.SUPPRESS)
    parser.add_argument(LAYER, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only_backend:
        backend, precision = options.only_backend
        print(json.dumps(whole_onnxruntime() if precision == WHOLE else backend_masks(backend, precision)))
        return 0
    if options.only_networks is not None:
        print(json.dumps(only_networks(options.only_networks)))
        return 0
    place: Place | None
    if options.cpu:
        place = pretended()
    else:
        try:
            gpu()
        except EngineError as error:
            print(f"gpu_bringup: nothing is run, {error}; --cpu tries the checks themselves")
            return 0
        found = kernels()
        place = Place(found) if found else None
        if place is None:
            print(f"gpu_bringup: the CUDA layer is not checked by itself, {NO_KERNELS}")
    if place and options.break_the_context:
        place.module = sys.modules["tensorrt"] = stand_in(place.kernels, *place.largest)
        print(json.dumps(broken(place)))
        return 0
    if place and options.only_layer:
        print(json.dumps(check_layer(place)))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)

    def write(result: dict[str, Any]) -> None:
        (options.out / "gpu_bringup.json").write_text(json.dumps(result, indent=2) + "\n")
        (options.out / "gpu_bringup.md").write_text(page(result))

    result = bring_up(place, options.minutes, not options.cpu, write)
    if not result["checks"] and not result["backends"]:
        print("gpu_bringup: nothing was checked: install PyTorch with CUDA or CuPy, or a backend for the GPU")
        return 1
    failed = [name for group in ("checks", "backends") for name, one in result[group].items() if not one["ok"]]
    print(f"{options.out}/gpu_bringup.md: " + (f"failed: {', '.join(failed)}" if failed else "all is well"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
