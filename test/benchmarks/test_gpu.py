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
    """uint8 [N,4,6,2] → 3x3 convolution to 5 channels → 2x2 deconvolution to 3 → product with 12x7."""
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
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 4, 6, 2])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, ["N", 3, 8, 7])],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


PRODUCTS = 5 * 24 * 18 + 5 * 24 * 12 + 3 * 8 * 7 * 12
"""Multiplications for one image."""


def test_with_a_fast_memory_only_arithmetic_counts(benchmark: Any) -> None:
    found = benchmark.roofline_ms(graph(), 3, 4, gigabytes=1e12, teraflops=1.0)
    assert found == pytest.approx(3 * 2 * PRODUCTS / 1e9)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_with_fast_arithmetic_only_memory_counts(benchmark: Any, itemsize: int) -> None:
    found = benchmark.roofline_ms(graph(), 3, itemsize, gigabytes=1.0, teraflops=1e12)
    activations = (48 + 120) + (120 + 288) + (288 + 168)
    weights = 90 + 60 + 84
    assert found == pytest.approx((3 * activations + weights) * itemsize / 1e6)


def test_each_layer_is_bound_by_what_takes_longer(benchmark: Any) -> None:
    both = benchmark.roofline_ms(graph(), 1, 4, gigabytes=1.0, teraflops=2.5e-3)
    memory = benchmark.roofline_ms(graph(), 1, 4, gigabytes=1.0, teraflops=1e12)
    arithmetic = benchmark.roofline_ms(graph(), 1, 4, gigabytes=1e12, teraflops=2.5e-3)
    assert max(memory, arithmetic) < both < memory + arithmetic


def test_inputs_have_the_graphs_types_and_shapes(benchmark: Any) -> None:
    feeds = benchmark.random_inputs(graph(), 2)
    assert feeds["image"].dtype == np.uint8
    assert feeds["image"].shape == (2, 4, 6, 2)


def test_figures_are_of_the_median_and_failures_are_shown(benchmark: Any) -> None:
    case = {"width": 480, "height": 360, "batch": 4, "precision": "fp16", "network": "segmenter", "runner": "torch"}
    good = benchmark.figures([1.0, 2.0, 90.0], batch=4, least=0.5)
    assert good == {"ms": 2.0, "p95": 81.2, "p99": 88.24, "fps": 2000.0, "roofline": 25.0}

    def fails() -> list[float]:
        raise RuntimeError("out of memory\nmany more lines")

    bad = benchmark.figures(benchmark.timed(fails), batch=4, least=0.5)
    assert bad == {"error": "out of memory"}
    console = Console(width=200, record=True)
    console.print(benchmark.table("A card", [{**case, **good}, {**case, **bad}]))
    text = console.export_text()
    assert "480x360" in text
    assert "25.0" in text
    assert "out of memory" in text


def test_without_a_card_one_line_says_so(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = benchmark.why_not()
    if reason is None:
        pytest.skip("this machine has a GPU that PyTorch can use")
    monkeypatch.chdir(tmp_path)
    benchmark.main()
    assert capsys.readouterr().out == f"gpu: nothing is timed, {reason}\n"
    assert list(tmp_path.iterdir()) == []
