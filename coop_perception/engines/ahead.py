"""A bundle's engines ahead of time, with progress, a table of the files, and what the precision costs."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Column, Table
from rich.text import Text

from coop_perception.contracts import CONTRACTS, Bundle
from coop_perception.engines import EngineError
from coop_perception.engines.backends import BACKENDS, MAX_BATCH, ON_CPU, TENSORRT
from coop_perception.engines.calibration import with_onnxruntime
from coop_perception.engines.cost import LEAST_AGREEMENT, LEAST_PSNR, precision_cost
from coop_perception.engines.cuda import Gpu, gpu
from coop_perception.engines.files import ensure, facts
from coop_perception.engines.precisions import Graphs
from coop_perception.shown import plain


def build_engines(
    bundle: Bundle,
    backend: str,
    capabilities: Collection[str],
    precision: str,
    out: Path | None,
    max_batch: int = MAX_BATCH,
    calibration: Path | None = None,
) -> None:
    """All networks of a bundle, with progress, a table of the files and what the precision costs.

    Args:
        bundle: checked.
        backend: tensorrt, tensorrt_rtx, onnxruntime or openvino.
        capabilities: compute capabilities to build for; none: that of the GPU here.
        precision: one of PRECISIONS.
        out: directory of the engines; None: the cache.
        max_batch: the most frames of one run.
        calibration: folder of images; None: sample drives.

    Raises:
        EngineError, DatasetError: as `ensure`.
    """
    console = Console(stderr=True, markup=False)
    if backend in ON_CPU and precision != "int8":
        console.print(f"{backend} loads the bundle's ONNX files as they are: nothing needs building for {precision}")
        return
    if backend in TENSORRT and precision not in BACKENDS[backend]:
        raise EngineError(f"precision is {precision!r}, backend {backend} has {', '.join(BACKENDS[backend])}")
    targets: list[Gpu | str | None] = list(capabilities)
    if backend in ON_CPU:
        if capabilities:
            raise EngineError(f"{backend}'s files are for CPUs; leave --compute-capability out")
        targets = [None]
    say = partial(console.print, highlight=False, soft_wrap=True)
    graphs = Graphs(bundle, precision, backend in TENSORRT, calibration)
    table = Table("graph", "for", Column("file", overflow="fold"), "MB", "seconds", "FP32 nodes")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for target in targets or [_this_gpu()]:
            words = plain(target.name if isinstance(target, Gpu) else target or "CPU", 80)
            for name in CONTRACTS:
                task = progress.add_task(escape(f"{name} for {words}"), total=None)
                advance = partial(_advance, progress, task, escape(f"{name} for {words}"))
                file = ensure(bundle, [name], backend, target, precision, out, say, max_batch, graphs, advance)[name]
                progress.remove_task(task)
                known = facts(file)
                kept = "" if known["float32_nodes"] is None else str(known["float32_nodes"])
                size, seconds = f"{known['size'] / 1e6:.1f}", f"{known['build_seconds']:.1f}"
                table.add_row(name, words, file.name, size, seconds, kept)
    console.print(table)
    say(f"in {file.parent}")
    if precision != "fp32":
        _report_cost(graphs, console)


def _this_gpu() -> Gpu:
    try:
        return gpu()
    except EngineError as error:
        raise EngineError(f"{error}; name the GPU to build for with --compute-capability") from error


def _advance(progress: Progress, task: TaskID, what: str, phase: str, done: int, steps: int) -> None:
    progress.update(task, description=f"{what}: {phase}", completed=done, total=steps)


def _report_cost(graphs: Graphs, console: Console) -> None:
    bundle, frames = graphs.bundle, graphs.frames.checking
    exact = with_onnxruntime({name: network.path for name, network in bundle.networks.items()})
    found = with_onnxruntime({name: graphs.on_a_cpu(name) for name in CONTRACTS})
    cost = precision_cost(bundle, exact, found, frames)
    table = Table("mask_raw", "mask", "worst mask", "restored", title=f"{graphs.precision} against FP32")
    table.add_row(f"{cost.mask_raw:.3%}", f"{cost.mask:.3%}", f"{cost.worst_mask:.3%}", f"{cost.restored_psnr:.1f} dB")
    console.print(table)
    console.print(
        f"shares of pixels of the same class and PSNR on {len(frames)} frames, computed by the converted ONNX graphs "
        "in ONNX Runtime on this CPU, not by the engines",
        soft_wrap=True,
    )
    if cost.excessive():
        console.print(
            Text("warning", "yellow"),
            f": {graphs.precision}: masks agree in {min(cost.mask_raw, cost.mask):.2%} of pixels (expected "
            f"{LEAST_AGREEMENT:.0%}), restored frames to {cost.restored_psnr:.1f} dB (expected {LEAST_PSNR:g})",
            sep="",
            soft_wrap=True,
        )
