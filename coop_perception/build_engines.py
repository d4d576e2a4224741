"""Command `build_engines`: a bundle's networks as engine files, for this machine or a named GPU, ahead of time."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Column, Table

from coop_perception.bundle import CONTRACTS, Bundle, BundleError, load_bundle
from coop_perception.engine_files import ensure, facts
from coop_perception.engines import EngineError
from coop_perception.engines.backends import MAX_BATCH, ON_CPU, TENSORRT
from coop_perception.engines.cuda import Gpu, gpu
from coop_perception.labelled_images import DatasetError
from coop_perception.precision_cost import LEAST_AGREEMENT, LEAST_PSNR, Cost, precision_costs
from coop_perception.precisions import PRECISIONS, Graphs
from coop_perception.resources import default_bundle


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work.
    """
    options = _parser().parse_args(arguments)
    try:
        build_engines(
            load_bundle(options.bundle),
            options.backend,
            options.compute_capability,
            options.precision,
            options.out,
            max_batch=options.max_batch,
            calibration=options.calibration,
        )
    except (BundleError, EngineError, DatasetError, OSError) as error:
        raise SystemExit(f"build_engines: {error}") from error


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
    console = Console(stderr=True)
    if backend in ON_CPU and precision != "int8":
        console.print(f"{backend} loads the bundle's ONNX files as they are: nothing needs building for {precision}")
        return
    targets: list[Gpu | str | None] = list(capabilities)
    if backend in ON_CPU:
        if capabilities:
            raise EngineError(f"{backend}'s files are for CPUs; leave --compute-capability out")
        targets = [None]
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    graphs = Graphs(bundle, precision, backend in TENSORRT, calibration)
    table = Table("graph", "for", Column("file", overflow="fold"), "MB", "seconds", "FP32 nodes")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for target in targets or [_this_gpu()]:
            words = target.name if isinstance(target, Gpu) else target or "CPU"
            for name in CONTRACTS:
                task = progress.add_task(f"{name} for {words}", total=None)
                advance = partial(_advance, progress, task, f"{name} for {words}")
                file = ensure(bundle, [name], backend, target, precision, out, say, max_batch, graphs, advance)[name]
                progress.remove_task(task)
                known = facts(file)
                kept = "" if known["float32_nodes"] is None else str(known["float32_nodes"])
                size, seconds = f"{known['size'] / 1e6:.1f}", f"{known['build_seconds']:.1f}"
                table.add_row(name, words, file.name, size, seconds, kept)
    console.print(table)
    say(f"in {file.parent}")
    if precision != "fp32":
        _report_costs(graphs, console)


def _this_gpu() -> Gpu:
    try:
        return gpu()
    except EngineError as error:
        raise EngineError(f"{error}; name the GPU to build for with --compute-capability") from error


def _advance(progress: Progress, task: TaskID, what: str, phase: str, done: int, steps: int) -> None:
    progress.update(task, description=f"{what}: {phase}", completed=done, total=steps)


def _report_costs(graphs: Graphs, console: Console) -> None:
    frames = graphs.frames.checking
    reference = {name: network.path for name, network in graphs.bundle.networks.items()}
    costs = precision_costs(reference, {name: graphs.graph(name).shown for name in CONTRACTS}, frames)
    table = Table("way", "mask_raw", "mask", "worst mask", "restored", title=f"{graphs.precision} against FP32")
    for way, cost in costs.items():
        table.add_row(
            way, f"{cost.mask_raw:.3%}", f"{cost.mask:.3%}", f"{cost.worst_mask:.3%}", f"{cost.restored_psnr:.1f} dB"
        )
    console.print(table)
    console.print(
        f"shares of pixels of the same class and PSNR on {len(frames)} frames, computed by the converted ONNX graphs "
        "in ONNX Runtime on this CPU, not by the engines",
        soft_wrap=True,
    )
    for way, cost in costs.items():
        if cost.excessive():
            console.print(f"[yellow]warning[/]: {_warning(way, cost, graphs.precision)}", soft_wrap=True)


def _warning(way: str, cost: Cost, precision: str) -> str:
    return (
        f"{precision} ({way}): masks agree in {min(cost.mask_raw, cost.mask):.2%} of pixels "
        f"(expected {LEAST_AGREEMENT:.0%}), restored frames to {cost.restored_psnr:.1f} dB (expected {LEAST_PSNR:g})"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_engines", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="default: %(default)s")
    parser.add_argument("--backend", required=True, choices=(*TENSORRT, *ON_CPU))
    parser.add_argument(
        "--compute-capability",
        type=compute_capabilities,
        default=(),
        help="GPUs to build for, as 8.9 or 8.6,8.9,12.0 (default: the one of this machine)",
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp16", help="default: %(default)s")
    parser.add_argument("--max-batch", type=_positive, default=MAX_BATCH, help="most cameras (default: %(default)s)")
    parser.add_argument(
        "--calibration", type=Path, help="folder of images that the precision is calibrated on (default: sample drives)"
    )
    parser.add_argument("--out", type=Path, help="directory of the engines (default: the cache)")
    return parser


def compute_capabilities(text: str) -> tuple[str, ...]:
    """Comma-separated compute capabilities, as on command lines.

    Raises:
        argparse.ArgumentTypeError: one is not of the form 8.9.
    """
    found = tuple(text.split(","))
    for one in found:
        major, _, minor = one.partition(".")
        if not (major.isdecimal() and minor.isdecimal()):
            raise argparse.ArgumentTypeError(f"compute capability is {one!r}, expected one as 8.9")
    return found


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"is {text!r}, expected a number from 1")
    return int(text)


if __name__ == "__main__":
    main()
