"""What gpu_bringup.py checks of the CUDA layer, through the product's own loading and running of engines.

A TensorRT made of copying kernels stands in for the real one, so that what must come out is known.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from support.kernels import Kernels
from support.stand_in_tensorrt import MAX_BATCH, expected

from coop_perception.engines.cuda import CudaError, GpuLostError, Resources, Stream, call, memory_in_use
from coop_perception.engines.exclusive import exclusive
from coop_perception.engines.tensorrt import TensorRtEngine, load
from coop_perception.metrics import percentiles

SCRIPT = Path(__file__).parents[1] / "gpu_bringup.py"
BATCHES = 60
LOADS = 20
CAPTURES = 300
FIRST_S = 60.0
"""How long the first frame of another thread is waited for."""
GROWTH = 8 << 20
"""Bytes that memory in use may grow by over the loads: libraries' own."""
STICKY = "--break-the-context"


@dataclass
class Place:
    """Where it runs, and how large and how often. fake: the pretended CUDA runtime."""

    kernels: Kernels
    fake: Any = None
    sizes: Sequence[tuple[int, int]] = ((480, 640), (720, 1280), (1080, 1920))
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
    """How many captures are lost while another thread does what loading a bundle does, without `exclusive`: a figure to
    know, and no failure. That captures within `exclusive` are not lost is what serving while loading checks."""
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
            except Exception as error:  # the kernels' libraries raise their own, which a thread would end with unseen
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
        served, serving = 0, threading.Event()

        def serve() -> None:
            nonlocal served
            if not np.array_equal(both(engines, feeds, ["restored"])["restored"], right):
                wrong.append("a frame is wrong")
            served += 1
            serving.set()

        with in_another_thread(serve) as refused:
            if not serving.wait(FIRST_S):
                wrong.append(f"no frame was served within {FIRST_S:g} s")
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
        place.module.nap_ms = 200.0  # at the clock that the kernels suppose; the fastest cards' is three times that
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


def apart(arguments: Sequence[str], seconds: float) -> Any:
    """What the script prints with other arguments, as JSON."""
    command = [sys.executable, str(SCRIPT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(seconds, 0.01), check=False)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"not done in the {seconds:.0f} s that were left") from error
    if done.returncode != 0:
        raise AssertionError((done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1])
    return json.loads(done.stdout.splitlines()[-1])
