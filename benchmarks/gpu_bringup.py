"""All that can be run on the NVIDIA GPU that is here, in at most eight minutes, to out/bench/gpu_bringup.json and .md.

First the CUDA layer, through the product's own code: results of changing sizes and outputs, captures beside what other
threads do, waiting, memory, errors. There a TensorRT made of copying kernels (PyTorch's or CuPy's) stands in for the
real one, so that what must come out is known and no package is missed. Then each backend that is installed: a bundle's
masks against the CPU's. Then the times of `benchmarks/gpu.py`, as far as the minutes go.

With `--cpu` on a pretended GPU, whose times mean nothing: that the checks themselves work. Ends with 1 where a check
failed. Without a GPU, and without `--cpu`, it says so and does nothing.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.kernels import Kernels, kernels
from support.stand_in_tensorrt import MAX_BATCH, expected, stand_in

from coop_perception.contracts import STAGES
from coop_perception.engines import EngineError
from coop_perception.engines.backends import BACKENDS
from coop_perception.engines.cuda import CudaError, GpuLostError, Resources, Stream, call, gpu, memory_in_use
from coop_perception.engines.exclusive import exclusive
from coop_perception.engines.loading import EngineSettings, installed
from coop_perception.engines.modules import cpu_module
from coop_perception.engines.tensorrt import TensorRtEngine, load
from coop_perception.metrics import percentiles
from coop_perception.model.loading import load_pipeline
from coop_perception.resources import default_bundle
from coop_perception.sample_scene.drive import SampleDrive

OUT = Path("out/bench")
MINUTES = 8.0
BATCHES = 60
LOADS = 20
RESERVED_S = 120.0
"""Of the minutes, for the networks' times."""
CAPTURES = 300
GROWTH = 8 << 20
"""Bytes that memory in use may grow by over the loads: libraries' own."""
AGREEMENT = 0.999
"""Least share of pixels whose class is the CPU's, in FP32; in FP16 0.99."""
STICKY, BACKEND = "--break-the-context", "--only-backend"
WHOLE = "every node on the GPU"
PACKAGES = ("cuda-bindings", "tensorrt", "tensorrt-rtx-cu13", "onnxruntime-gpu", "onnxruntime", "torch", "cupy-cuda12x")


@dataclass
class Place:
    """Where it runs, and how large and how often. fake: the pretended CUDA runtime."""

    kernels: Kernels
    fake: Any = None
    sizes: Sequence[tuple[int, int]] = ((360, 480), (512, 1024), (1080, 1920))
    captures: int = CAPTURES
    loads: int = LOADS
    module: Any = None
    said: list[str] = field(default_factory=list)

    @property
    def largest(self) -> tuple[int, int]:
        return self.sizes[-1]

    @contextmanager
    def engines(self, *names: str) -> Iterator[dict[str, TensorRtEngine]]:
        """The stand-in's networks, loaded by the product."""
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder, name) for name in names}
            for name, path in paths.items():
                path.write_text(name)
            loaded = load(paths, "tensorrt", "fp16", self.said.append)
        try:
            yield loaded
        finally:
            for engine in loaded.values():
                engine.close()

    def feeds(self, batch: int, height: int, width: int, seed: int = 0) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        return {
            "image": random.integers(0, 256, (batch, height // 2, width // 2, 3), dtype=np.uint8),
            "frame": random.integers(0, 256, (batch, height, width, 3), dtype=np.uint8),
            "presence": random.random((batch, 4), np.float32),
        }


def both(engines: dict[str, TensorRtEngine], feeds: dict[str, np.ndarray], wanted: Sequence[str]) -> dict[str, Any]:
    """The two networks one after the other, scores staying on the GPU."""
    image = feeds["image"]
    scores = engines["segmenter"].allocate("scores", (len(image), 2, *image.shape[1:3]))
    placed = engines["segmenter"].place("image", image)
    first = [name for name in wanted if name in ("mask",)]
    found = engines["segmenter"].run({"image": placed}, [*first, "scores"], {"scores": scores})
    rest = {"frame": feeds["frame"], "presence": feeds["presence"], "scores": scores}
    second = [name for name in wanted if name in engines["restoration"].outputs]
    return {**{name: found[name] for name in first}, **engines["restoration"].run(rest, second)}


def check_results(place: Place) -> str:
    """Batches of changing sizes and outputs, prepared for and not, each number against NumPy's."""
    ask = [("mask", "guide", "restored", "level"), ("mask",), ("restored",), ("guide", "level"), ("level", "mask")]
    shapes = [(batch, *size) for size in place.sizes for batch in range(1, MAX_BATCH + 1)]
    with place.engines("segmenter", "restoration") as engines:
        prepared = shapes[: len(shapes) * 2 // 3]
        for shape in prepared:
            both(engines, place.feeds(*shape), ["mask"])
            for engine in engines.values():
                engine.prepare()
        for seed in range(BATCHES):
            batch, height, width = shapes[(7 * seed) % len(shapes)]
            feeds, wanted = place.feeds(batch, height, width, seed), ask[seed % len(ask)]
            found, right = both(engines, feeds, wanted), expected(feeds)
            if set(found) != set(wanted):
                raise AssertionError(f"batch {seed}: asked for {wanted}, got {sorted(found)}")
            for name in wanted:
                np.testing.assert_array_equal(found[name], right[name], err_msg=f"batch {seed}, {name}")
    if place.said:
        raise AssertionError("; ".join(place.said))
    return f"{BATCHES} batches of {len(shapes)} shapes, {len(prepared)} of them as CUDA graphs, every number right"


def check_captures_beside_others(place: Place) -> dict[str, Any]:
    """How many captures are lost while another thread does what loading a bundle does, without `exclusive`; and that
    preparing engines, which tries once more, gets by all the same with the last of them."""
    scratch = call("cudaMalloc", 1 << 20)
    others: dict[str, Callable[[], object]] = {
        "allocate and free": lambda: call("cudaFree", call("cudaMalloc", 1 << 20)),
        "pinned memory": lambda: call("cudaFreeHost", call("cudaMallocHost", 1 << 16)),
        "memset": lambda: call("cudaMemset", scratch, 0, 16),
        "wait for the whole GPU": lambda: call("cudaDeviceSynchronize"),
    }
    if place.fake is not None:
        del others["memset"]
    found: dict[str, Any] = {}
    for name, other in others.items():
        stream, resources = Stream(), Resources()
        device, pinned = resources.device_memory(1 << 16), resources.pinned_memory((1 << 16,), np.uint8)
        lost = 0
        with in_another_thread(other) as refused:
            for _ in range(place.captures):
                try:
                    with exclusive():
                        stream.capture(
                            lambda s=stream, d=device, p=pinned: [s.upload(d, p) for _ in range(20)], resources
                        )
                except CudaError:
                    lost += 1
        resources.close()
        stream.close()
        found[name] = {"captures_lost": lost, "of": place.captures, "refused_there": sorted(set(refused))}
    call("cudaFree", scratch)
    return found


@contextmanager
def in_another_thread(work: Callable[[], object]) -> Iterator[list[str]]:
    """Does it over and over; gives the errors."""
    stop, refused = threading.Event(), list[str]()

    def go_on() -> None:
        while not stop.is_set():
            try:
                work()
            except CudaError as error:
                refused.append(str(error)[:100])

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield refused
    finally:
        stop.set()
        thread.join()


def check_serving_while_loading(place: Place) -> str:
    """One bundle serves in a thread, every number right, while others are loaded, prepared, dropped and closed."""
    feeds = place.feeds(1, *place.sizes[0])
    right = expected(feeds)["restored"]
    wrong: list[str] = []
    with place.engines("segmenter", "restoration") as engines:
        both(engines, feeds, ["restored"])
        for engine in engines.values():
            engine.prepare()
        served = 0

        def serve() -> None:
            nonlocal served
            if not np.array_equal(both(engines, feeds, ["restored"])["restored"], right):
                wrong.append("a frame is wrong")
            served += 1

        with in_another_thread(serve) as refused:
            for _ in range(place.loads // 4):
                with place.engines("segmenter", "restoration") as others:
                    both(others, feeds, ["mask"])
                    for engine in others.values():
                        engine.prepare()
    if refused or wrong or place.said:
        raise AssertionError("; ".join([*refused[:1], *wrong[:1], *place.said]))
    return f"{served} frames during {place.loads // 4} loads"


def check_waiting(place: Place) -> dict[str, float]:
    """While one thread waits for the GPU, Python runs on in another, and the waiting one costs no processor time."""
    feeds, spent = place.feeds(1, *place.sizes[0])["image"], [0.0, 0.0]
    with place.engines("segmenter") as engines:
        place.module.nap_ms = 50.0
        done = threading.Event()

        def wait() -> None:
            begun = time.thread_time(), time.perf_counter()
            for _ in range(5):
                engines["segmenter"].run({"image": feeds}, ["mask"])
            spent[:] = time.thread_time() - begun[0], time.perf_counter() - begun[1]
            done.set()

        thread, ticks = threading.Thread(target=wait), 0
        thread.start()
        while not done.wait(0.001):
            ticks += 1
        thread.join()
        place.module.nap_ms = 0.0
    figures = {"seconds": round(spent[1], 3), "ticks_per_s": round(ticks / spent[1]), "cpu_share": spent[0] / spent[1]}
    if place.fake is None and not (spent[1] > 0.1 and ticks > 300 * spent[1] and spent[0] < 0.2 * spent[1]):
        raise AssertionError(f"Python stood still, or the waiting thread did not sleep: {figures}")
    return figures


def check_memory_after_loads(place: Place) -> str:
    first, grown = 0, 0
    for _ in range(place.loads):
        with place.engines("segmenter", "restoration") as engines:
            both(engines, place.feeds(2, *place.sizes[0]), ["mask"])
            for engine in engines.values():
                engine.prepare()
        gc.collect()
        first = first or memory_in_use()[0]
        grown = memory_in_use()[0] - first
    if grown > GROWTH:
        raise AssertionError(f"{grown >> 20} MiB more than after the first of {place.loads} loads")
    return f"{grown >> 20} MiB more after {place.loads} loads than after the first"


def check_out_of_memory(place: Place) -> str:
    """It is said, and what comes next works."""
    resources = Resources()
    try:
        resources.device_memory(1 << 42)
    except CudaError as error:
        said = str(error)
    else:
        raise AssertionError("4 TiB were given")
    finally:
        resources.close()
    if "MiB of memory on the GPU" not in said:
        raise AssertionError(said)
    feeds = place.feeds(1, *place.sizes[0])
    with place.engines("segmenter") as engines:
        found = engines["segmenter"].run({"image": feeds["image"]}, ["mask"])["mask"]
    np.testing.assert_array_equal(found, expected(feeds)["mask"])
    return said


def check_sticky_error(place: Place) -> str:
    """In a process of its own, whose context breaks: the error is told apart, closing does not hang, and it ends."""
    if place.fake is not None:
        place.fake.error = place.fake.cudaError_t.cudaErrorIllegalAddress
        try:
            return broken(place)
        finally:
            place.fake.error = place.fake.cudaError_t.cudaErrorNotSupported
    said: str = apart([STICKY], 90)
    return said


def broken(place: Place) -> str:
    """What is said after an access to no memory at all."""
    image = place.feeds(1, *place.sizes[0])["image"]
    said = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "segmenter")
        path.write_text("segmenter")
        engine = load({"segmenter": path}, "tensorrt", "fp16", print)["segmenter"]
    engine.run({"image": image}, ["mask"])
    for _ in range(2):
        if place.fake is not None:
            place.fake.fail_at = place.fake.counted + 1
        elif not said:  # 16 TiB behind what is ours
            far = place.kernels.array(Resources().device_memory(64), (1 << 44,), "uint8")[-64:]
            place.kernels.copy(far, far, True, int(Stream()))
        try:
            engine.run({"image": image}, ["mask"])
        except GpuLostError as error:
            said.append(str(error))
    try:
        engine.close()
    except CudaError:
        pass
    if len(said) != 2:
        raise AssertionError(f"{2 - len(said)} of two runs after an illegal access raised no GpuLostError")
    return said[0].partition(": ")[2]


def check_times(place: Place) -> dict[str, Any]:
    """Of the stand-in: a run, its copies included, and the bare graph; milliseconds."""
    found = {}
    with place.engines("segmenter") as engines:
        engine = engines["segmenter"]
        for height, width in place.sizes:
            for batch in (1, MAX_BATCH):
                image = place.feeds(batch, height, width)["image"]
                engine.run({"image": image}, ["mask"])
                engine.prepare()
                placed = engine.place("image", image)
                scores = engine.allocate("scores", (batch, 2, *image.shape[1:3]))
                whole = times(lambda e=engine, i=image: e.run({"image": i}, ["mask"]))
                bare = times(lambda e=engine, i=placed, s=scores: e.run({"image": i}, ["scores"], {"scores": s}))
                share = {"bare_share": round(bare["p50"] / whole["p50"], 3)}
                found[f"{width}x{height}, batch {batch}"] = {**whole, **share}
    return found


def times(work: Callable[[], object], repeats: int = 100) -> dict[str, float]:
    for _ in range(10):
        work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) * 1e3)
    p50, p95, p99 = percentiles(taken)
    return {"p50": round(p50, 4), "p95": round(p95, 4), "p99": round(p99, 4)}


CHECKS: tuple[Callable[[Place], Any], ...] = (
    check_results,
    check_captures_beside_others,
    check_serving_while_loading,
    check_waiting,
    check_memory_after_loads,
    check_out_of_memory,
    check_sticky_error,
    check_times,
)


def outcome(work: Callable[[], Any]) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        result = {"ok": True, "found": work()}
    except Exception as error:  # whatever it is: the other checks are still made
        result = {"ok": False, "error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:600]}
    return {**result, "seconds": round(time.perf_counter() - begun, 1)}


def backend_masks(backend: str, precision: str) -> dict[str, Any]:
    """A bundle through the product on a backend: masks against the CPU's, times of a batch."""
    frames = sample_frames()
    cpu = load_pipeline(default_bundle(), EngineSettings("openvino", "fp32"), False, 1, lambda _: None)
    reference = [result.mask for result in cpu.run(frames, ("mask",))]
    cpu.close()
    said: list[str] = []
    settings = EngineSettings(backend, precision)
    pipeline = load_pipeline(default_bundle(), settings, False, MAX_BATCH, said.append)
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
    drive = SampleDrive()
    return [drive.frame(20 * index).image for index in range(MAX_BATCH)]


def whole_onnxruntime() -> str:
    """Whether ONNX Runtime runs every node of the bundle's graphs on the GPU."""
    from coop_perception.engines.onnxruntime import OnnxRuntimeEngine, has_cuda
    from coop_perception.model.bundle import load_bundle

    has_cuda()
    bundle = load_bundle(default_bundle())
    for name in STAGES:
        OnnxRuntimeEngine(bundle.networks[name].path, cuda=True, whole=True).close()
    return f"every node of {', '.join(STAGES)}"


def check_backends(left: Callable[[], float]) -> dict[str, Any]:
    """Each in a process of its own: one that crashes, or builds for too long, costs itself alone."""
    asked = [
        (backend, precision)
        for backend, precisions in BACKENDS.items()
        for precision in ("fp32", "fp16")
        if backend != "openvino" and precision in precisions and installed(backend)
    ]
    if ("onnxruntime", "fp32") in asked:
        try:
            on_gpu = cpu_module("onnxruntime").has_cuda()
        except EngineError:
            on_gpu = True  # it says why not
        asked = [*asked, ("onnxruntime", WHOLE)] if on_gpu else [one for one in asked if one[0] != "onnxruntime"]
    return {", ".join(one): outcome(lambda one=one: apart([BACKEND, *one], left())) for one in asked}


def apart(arguments: Sequence[str], seconds: float) -> Any:
    """What this script prints with other arguments, as JSON."""
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 1.0), check=False)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"not done in the {seconds:.0f} s that were left") from error
    if done.returncode != 0:
        raise AssertionError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])


def network_times(left: Callable[[], float]) -> Any:
    """`benchmarks/gpu.py`'s, as many as the time allows."""
    import gpu as networks

    reason = networks.why_not()
    return reason or networks.measure(left)


def facts(place: Place) -> dict[str, Any]:
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
        "kernels": place.kernels.name,
        "stand_in_for_tensorrt": True,
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
        f"In the checks of the CUDA layer copying kernels of {device['kernels']} stand in for TensorRT.",
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


def bring_up(place: Place, minutes: float, backends: bool) -> dict[str, Any]:
    """All checks; everything that is in the JSON."""
    end = time.monotonic() + 60 * minutes
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

    def left() -> float:
        return end - time.monotonic()

    result = {"device": facts(place), "pretended": place.fake is not None, "checks": checks}
    result["backends"] = check_backends(lambda: left() - RESERVED_S) if backends else {}
    result["networks"] = network_times(left) if backends else "on a pretended GPU"
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="on a pretended GPU")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that it may take (default: %(default)g)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of both files (default: %(default)s)")
    parser.add_argument(STICKY, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(BACKEND, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only_backend:
        backend, precision = options.only_backend
        print(json.dumps(whole_onnxruntime() if precision == WHOLE else backend_masks(backend, precision)))
        return 0
    if options.cpu:
        place = pretended()
    else:
        try:
            gpu()
        except EngineError as error:
            print(f"gpu_bringup: nothing is run, {error}; --cpu tries the checks themselves")
            return 0
        found = kernels()
        if found is None:
            print("gpu_bringup: neither PyTorch with CUDA nor CuPy is installed, whose kernels the checks need")
            return 1
        place = Place(found)
    if options.break_the_context:
        place.module = sys.modules["tensorrt"] = stand_in(place.kernels, *place.largest)
        print(json.dumps(broken(place)))
        return 0
    result = bring_up(place, options.minutes, backends=not options.cpu)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu_bringup.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "gpu_bringup.md").write_text(page(result))
    failed = [name for group in ("checks", "backends") for name, one in result[group].items() if not one["ok"]]
    print(f"{options.out}/gpu_bringup.md: " + (f"failed: {', '.join(failed)}" if failed else "all is well"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
