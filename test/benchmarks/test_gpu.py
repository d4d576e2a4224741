"""What of benchmarks/gpu.py needs no GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from toy_bundle import CLASSES, CONDITIONS, SENSOR

from coop_perception.contracts import InputSizes

SIZES = InputSizes(height=352, smallest=128, largest=2048, sensor=SENSOR)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def graph() -> onnx.ModelProto:
    """uint8 [N,H,W,2], as of 4x6 → 3x3 convolution to 5 channels → 2x2 deconvolution to 3 → product with 12x7."""
    weights = {"w": (5, 2, 3, 3), "d": (5, 3, 2, 2), "m": (12, 7)}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["conv", "d"], ["wide"], strides=[2, 2]),
        helper.make_node("MatMul", ["wide", "m"], ["product"]),
    ]
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", "H", "W", 2])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["N", 3, "h", 7])],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def images(batch: int) -> dict[str, np.ndarray]:
    return {"image": np.zeros((batch, 4, 6, 2), np.uint8)}


PRODUCTS = 5 * 24 * 18 + 5 * 24 * 12 + 3 * 8 * 7 * 12
"""Multiplications for one image."""


def test_with_a_fast_memory_only_arithmetic_counts(benchmark: Any) -> None:
    found = benchmark.roofline_ms(graph(), images(3), 4, gigabytes=1e12, teraflops=1.0)
    assert found == pytest.approx(3 * 2 * PRODUCTS / 1e9)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_with_fast_arithmetic_only_memory_counts(benchmark: Any, itemsize: int) -> None:
    found = benchmark.roofline_ms(graph(), images(3), itemsize, gigabytes=1.0, teraflops=1e12)
    activations = (48 + 120) + (120 + 288) + (288 + 168)
    weights = 90 + 60 + 84
    assert found == pytest.approx((3 * activations + weights) * itemsize / 1e6)


def test_each_layer_is_bound_by_what_takes_longer(benchmark: Any) -> None:
    both = benchmark.roofline_ms(graph(), images(1), 4, gigabytes=1.0, teraflops=2.5e-3)
    memory = benchmark.roofline_ms(graph(), images(1), 4, gigabytes=1.0, teraflops=1e12)
    arithmetic = benchmark.roofline_ms(graph(), images(1), 4, gigabytes=1e12, teraflops=2.5e-3)
    assert max(memory, arithmetic) < both < memory + arithmetic


def test_inputs_have_the_sizes_that_a_frame_gives(benchmark: Any, bundle: Path) -> None:
    shapes = {}
    for name in ("refinement", "restoration"):
        feeds = benchmark.random_inputs(onnx.load(bundle / f"{name}.onnx"), 2, (720, 1280), SIZES)
        shapes |= {key: array.shape for key, array in feeds.items()}
    assert shapes == {
        "frame": (2, 720, 1280, 3),
        "image": (2, 352, 640, 3),
        "sensor": (2, SENSOR, SENSOR, 3),
        "probabilities": (2, CLASSES, 88, 160),
        "refined_probabilities": (2, CLASSES, 88, 160),
        "presence": (2, len(CONDITIONS)),
        "strength": (2, len(CONDITIONS)),
        "familiarity": (2,),
    }


def test_figures_are_of_the_median_and_failures_are_shown(benchmark: Any) -> None:
    case = {"width": 640, "height": 480, "batch": 4, "precision": "fp16", "network": "segmenter", "runner": "torch"}
    good = benchmark.figures([1.0, 2.0, 90.0], batch=4, least=0.5)
    assert good == {"ms": 2.0, "p95": 81.2, "p99": 88.24, "fps": 2000.0, "roofline": 25.0}

    def fails() -> list[float]:
        raise RuntimeError("out of memory\nmany more lines")

    bad = benchmark.figures(benchmark.timed(fails), batch=4, least=0.5)
    assert bad == {"error": "out of memory"}
    console = Console(width=200, record=True)
    console.print(benchmark.table("A card", [{**case, **good}, {**case, **bad}]))
    text = console.export_text()
    assert "640x480" in text
    assert "25.0" in text
    assert "out of memory" in text


def test_without_a_card_one_line_says_so(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = benchmark.why_not() or "as if there were none"
    monkeypatch.setattr(benchmark, "why_not", lambda: reason)
    monkeypatch.chdir(tmp_path)
    benchmark.main()
    assert capsys.readouterr().out == f"gpu: nothing is timed, {reason}\n"
    assert list(tmp_path.iterdir()) == []
