"""The networks' time on an NVIDIA GPU, against what the card could do at best, to out/bench/gpu.json.

Timed are the bundle's three graphs, at sizes of frames and batches of 1 and 4, in FP32 (without TF32) and FP16, as a
CUDA graph of PyTorch's (FP16: autocast; random weights, for time does not depend on them), through ONNX Runtime's CUDA
provider, and through TensorRT or TensorRT for RTX where they are installed and take the card. Inputs and outputs stay
on the GPU, and for TensorRT are also copied, as the product does: the quotient is the share of bare enqueue time. A
time is the median of single runs, from the call to the end of the GPU's work.

Roofline: the sum over convolutions and matrix products of the longer of the time for their arithmetic, at the matrix
rate, and that for reading their inputs and weights and writing their result once, at the copy bandwidth; both are
measured on the card beforehand. All other operations count nothing, as if fused. 100 % is out of reach.
"""

from __future__ import annotations

import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from coop_perception.contracts import CONTRACTS, QUARTER, InputSizes, network_size
from coop_perception.engines import EngineError
from coop_perception.engines.cuda import gpu
from coop_perception.engines.onnxruntime import ort
from coop_perception.metrics import percentiles
from coop_perception.model.bundle import load_bundle

BUNDLE, OUT = Path("models/street"), Path("out/bench/gpu.json")
SIZES = ((480, 360), (1024, 512), (1920, 1080))
"""Widths and heights of frames."""
BATCHES = (1, 4)
PRECISIONS = {"fp32": 4, "fp16": 2}
"""Bytes of a number."""
WARM_UP, REPEATS = 10, 50
A_CASE_S = 45.0
"""That a case may take, its engines' building included."""
MATRIX = 8192
COPIED = 1 << 30

Run = Callable[[], object]


def main() -> None:
    reason = why_not()
    if reason:
        print(f"gpu: nothing is timed, {reason}")
        return
    result = measure()
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    Console().print(table(result["gpu"], result["results"]))


def measure(left: Callable[[], float] = lambda: math.inf) -> dict[str, Any]:
    """All figures; `left`: seconds that there are for it, of which cases that are not begun cost none."""
    import torch
    from support.eager import eager_networks

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    card, limits = torch.cuda.get_device_name(), measure_card()
    bundle, results = load_bundle(BUNDLE), []
    modules = eager_networks(bundle)
    graphs = {name: onnx.load(network.path) for name, network in bundle.networks.items()}
    with Progress() as progress:
        task = progress.add_task("gpu", total=len(SIZES) * len(BATCHES) * len(PRECISIONS) * len(CONTRACTS))
        for width, height in SIZES:
            for batch, precision, name in ((b, p, n) for b in BATCHES for p in PRECISIONS for n in CONTRACTS):
                if left() < A_CASE_S:
                    continue
                feeds = random_inputs(graphs[name], batch, (height, width), bundle.input)
                least = roofline_ms(
                    graphs[name], feeds, PRECISIONS[precision], limits["copy_gb_s"], limits[f"{precision}_tflop_s"]
                )
                for runner, times in runners(modules[name], graphs[name], name, feeds, precision, bundle.input):
                    case = {"width": width, "height": height, "batch": batch, "precision": precision}
                    results.append({**case, "network": name, "runner": runner, **figures(times, batch, least)})
                progress.advance(task)
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "onnxruntime": ort.__version__}
    return {"gpu": card, "versions": versions, "measured": limits, "repeats": REPEATS, "results": results}


def why_not() -> str | None:
    """Why nothing can be timed here; None if it can."""
    try:
        import torch

        if torch.cuda.is_available():
            return None
        gpu()
    except (ImportError, EngineError) as error:
        return str(error)
    return f"PyTorch {torch.__version__} was built without CUDA"


def measure_card() -> dict[str, float]:
    """Bytes read and written by a copy, GB/s, and the rate of a matrix product, TFLOP/s, in each precision."""
    import torch

    def ms(work: Run) -> float:
        return statistics.median(times_of(lambda: (work(), torch.cuda.synchronize())))

    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    limits = {"copy_gb_s": 2 * COPIED / ms(lambda: target.copy_(source)) / 1e6}
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        a, b = torch.randn(2, MATRIX, MATRIX, dtype=dtype, device="cuda")
        limits[f"{precision}_tflop_s"] = 2 * MATRIX**3 / ms(lambda a=a, b=b: a @ b) / 1e9
    return limits


def random_inputs(
    graph: onnx.ModelProto, batch: int, frame: tuple[int, int], sizes: InputSizes
) -> dict[str, np.ndarray]:
    """Inputs of a graph by name, for frames of a size: random bytes, and halves."""
    image = network_size(sizes, *frame)
    feeds = {}
    for value in graph.graph.input:
        height, width = frame if value.name == "frame" else image
        if "probabilities" in value.name:
            height, width = height // QUARTER, width // QUARTER
        sides = iter((height, width))
        _, *rest = (d.dim_value for d in value.type.tensor_type.shape.dim)
        shape = (batch, *(size or next(sides) for size in rest))
        if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8:
            feeds[value.name] = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        else:
            feeds[value.name] = np.full(shape, 0.5, np.float32)
    return feeds


def runners(
    module: Any,
    graph: onnx.ModelProto,
    name: str,
    feeds: dict[str, np.ndarray],
    precision: str,
    sizes: InputSizes,
) -> Iterator[tuple[str, list[float] | str]]:
    """Milliseconds of each run by every runner there is, or why it failed."""
    yield "torch CUDA graph", timed(lambda: times_of(torch_graph(module, feeds, precision)))
    if "CUDAExecutionProvider" in ort.get_available_providers():
        yield "onnxruntime CUDA", timed(lambda: times_of(onnxruntime_cuda(graph, feeds, precision)))
    for backend in ("tensorrt", "tensorrt_rtx"):
        try:
            __import__(backend)
        except (ImportError, OSError, RuntimeError):  # not there, or a library of it or the driver is not
            continue
        yield from tensorrt_times(backend, graph, name, feeds, precision, sizes).items()


def timed(work: Callable[[], list[float]]) -> list[float] | str:
    try:
        return work()
    except Exception as error:  # of four libraries: one that fails is a result, and the others are still timed
        return first_line(error)


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def torch_graph(module: Any, feeds: dict[str, np.ndarray], precision: str) -> Run:
    """Replays a captured forward pass."""
    import torch

    network = copy.deepcopy(module).cuda().to(memory_format=torch.channels_last)
    if precision == "fp16":  # else autocast would convert the weights in every pass
        for layer in network.modules():
            if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Linear)):
                layer.half()
    inputs = [torch.from_numpy(array).cuda() for array in feeds.values()]
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.no_grad(), torch.autocast("cuda", torch.float16, precision == "fp16", cache_enabled=False):
        with torch.cuda.stream(stream):
            for _ in range(3):  # libraries choose their kernels in the first runs, which cannot be captured
                network(*inputs)
        stream.synchronize()
        with torch.cuda.graph(graph):
            outputs = network(*inputs)

    def run(_held: object = (network, inputs, outputs)) -> None:
        graph.replay()
        torch.cuda.synchronize()

    return run


def onnx_of(graph: onnx.ModelProto, precision: str) -> bytes:
    if precision == "fp32":
        return graph.SerializeToString()
    from coop_perception.engines.half import to_half

    return to_half(copy.deepcopy(graph))[0].SerializeToString()


def onnxruntime_cuda(graph: onnx.ModelProto, feeds: dict[str, np.ndarray], precision: str) -> Run:
    """Runs a session with its inputs and outputs on the GPU, and waits for it."""
    providers = [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    session = ort.InferenceSession(onnx_of(graph, precision), providers=providers)
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise RuntimeError("ONNX Runtime cannot load its CUDA provider: its CUDA or cuDNN libraries are missing")
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def tensorrt_times(
    backend: str,
    graph: onnx.ModelProto,
    name: str,
    feeds: dict[str, np.ndarray],
    precision: str,
    sizes: InputSizes,
) -> dict[str, list[float] | str]:
    """Builds an engine and runs it as the product does, without and with the copies from and to the host."""
    from coop_perception.engines.build import build
    from coop_perception.engines.modules import tensorrt_module
    from coop_perception.engines.profiles import profiles
    from coop_perception.engines.tensorrt import load

    whole = f"{backend}, copies included"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{name}.engine")
        batch = len(next(iter(feeds.values())))
        try:
            module, ranges = tensorrt_module(backend), partial(profiles, sizes=sizes, max_batch=batch)
            path.write_bytes(build(module, path, onnx_of(graph, precision), gpu().compute_capability, ranges).data)
            engine = load({name: path}, backend, precision, print)[name]
        except Exception as error:
            return {backend: first_line(error)}
        try:
            placed = {key: engine.place(key, array) for key, array in feeds.items()}
            given = engine.run(placed, tuple(engine.outputs))
            into = {key: engine.allocate(key, array.shape) for key, array in given.items()}
            engine.prepare()
            return {
                backend: timed(lambda: times_of(lambda: engine.run(placed, tuple(into), into))),
                whole: timed(lambda: times_of(lambda: engine.run(feeds, tuple(into)))),
            }
        finally:
            engine.close()


def times_of(run: Run) -> list[float]:
    """Milliseconds of each run, which waits for its results."""
    for _ in range(WARM_UP):
        run()
    times = [time.perf_counter()]
    for _ in range(REPEATS):
        run()
        times.append(time.perf_counter())
    return [1e3 * float(t) for t in np.diff(times)]


def roofline_ms(
    graph: onnx.ModelProto, feeds: Mapping[str, np.ndarray], itemsize: int, gigabytes: float, teraflops: float
) -> float:
    """The least time of a graph (see above) for these inputs, at a bandwidth in GB/s and a rate in TFLOP/s, numbers
    being `itemsize`."""
    inferred = onnx.shape_inference.infer_shapes(sized(graph, feeds), strict_mode=True, data_prop=True).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
    shapes |= {tensor.name: list(tensor.dims) for tensor in inferred.initializer}
    total = 0.0
    for node in inferred.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        given, weight, made = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
        if node.op_type == "Conv":
            products = math.prod(made) * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            products = math.prod(given) * math.prod(weight[1:])
        else:
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            products = math.prod(made) * given[0 if transposed else -1]
        numbers = sum(math.prod(shapes[name]) for name in (*node.input, *node.output) if name)
        total += max(2 * products / (teraflops * 1e9), numbers * itemsize / (gigabytes * 1e6))
    return total


def sized(graph: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The graph for inputs of these sizes alone: what only says sizes is computed, by ONNX Runtime, and gone."""
    model = copy.deepcopy(graph)
    del model.graph.value_info[:]  # where sizes are still open
    for value in model.graph.input:
        for dimension, size in zip(value.type.tensor_type.shape.dim, feeds[value.name].shape, strict=True):
            dimension.dim_value = size
    for value in model.graph.output:
        for dimension in value.type.tensor_type.shape.dim:
            dimension.Clear()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as directory:
        options.optimized_model_filepath = str(Path(directory, "sized.onnx"))
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def figures(times: list[float] | str, batch: int, least: float) -> dict[str, float | str]:
    """Of one case; `roofline` is the share of the least time, in percent."""
    if isinstance(times, str):
        return {"error": times}
    ms = statistics.median(times)
    _, p95, p99 = percentiles(times)
    tail = {"p95": round(p95, 4), "p99": round(p99, 4)}
    return {"ms": round(ms, 4), **tail, "fps": round(1e3 * batch / ms, 1), "roofline": round(100 * least / ms, 1)}


def table(card: str, results: list[dict[str, Any]]) -> Table:
    shown = Table("size", "batch", "precision", "network", "runner", "ms", "fps", "% of roofline", title=card)
    for r in results:
        case = (f"{r['width']}x{r['height']}", str(r["batch"]), r["precision"], r["network"], r["runner"])
        shown.add_row(*case, *([r["error"]] if "error" in r else map(str, (r["ms"], r["fps"], r["roofline"]))))
    return shown


if __name__ == "__main__":
    main()
