"""FP16 graphs: what stays float32, and whether what float16 loses is seen."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coop_perception.engines.calibration import cpu_session
from coop_perception.engines.half import beyond_half, rounded, to_half

X = np.array([[0.1, 3.0, 300.0, 1000.0]], np.float32)


def model(*nodes: tuple[str, str, list[str], str], **constants: float) -> onnx.ModelProto:
    """A graph x → y of nodes (name, operator, inputs, output)."""
    graph = helper.make_graph(
        [helper.make_node(kind, given, [result], name=name) for name, kind, given, result in nodes],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(proto: onnx.ModelProto, x: np.ndarray = X) -> np.ndarray:
    return np.asarray(cpu_session(proto.SerializeToString()).run(["y"], {"x": x})[0])


def squares() -> onnx.ModelProto:
    """|x| the long way: the square of 1000 is too large for float16, that of 0.001 too small."""
    return model(
        ("twice", "Add", ["x", "x"], "a"),
        ("square", "Mul", ["a", "a"], "b"),
        ("quarter", "Mul", ["b", "share"], "c"),
        ("root", "Sqrt", ["c"], "d"),
        ("less", "Sub", ["d", "one"], "e"),
        ("more", "Add", ["e", "one"], "y"),
        share=0.25,
        one=1.0,
    )


class TestBeyondHalf:
    def test_what_overflows_is_named_with_its_neighbours(self) -> None:
        assert beyond_half(squares(), [{"x": X}]) == {"square", "quarter", "root"}

    def test_so_is_what_comes_near_to_it(self) -> None:
        assert "square" in beyond_half(squares(), [{"x": np.full((1, 4), 60.0, np.float32)}])

    def test_and_what_is_too_small(self) -> None:
        assert {"square", "quarter"} <= beyond_half(squares(), [{"x": np.full((1, 4), 1e-4, np.float32)}])

    def test_values_in_range_name_nothing(self) -> None:
        assert beyond_half(squares(), [{"x": np.ones((1, 4), np.float32)}]) == set()

    def test_every_feed_counts(self) -> None:
        assert beyond_half(squares(), [{"x": np.ones((1, 4), np.float32)}, {"x": X}])

    @pytest.mark.parametrize("constant", [1e-9, 1e9])
    def test_constants_that_do_not_fit_name_what_takes_them(self, constant: float) -> None:
        graph = model(("less", "Min", ["x", "limit"], "a"), ("same", "Neg", ["a"], "y"), limit=constant)
        assert "less" in beyond_half(graph, [{"x": np.ones((1, 4), np.float32)}])


class TestToHalf:
    def test_ends_stay_float32_and_the_inside_is_half(self) -> None:
        half, full = to_half(squares())
        assert {value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)} == {
            TensorProto.FLOAT
        }
        assert {tensor.data_type for tensor in half.graph.initializer} == {TensorProto.FLOAT16}
        assert full == 1  # the root, whose kind stays

    def test_what_it_is_told_stays_float32(self) -> None:
        half, full = to_half(squares(), {"square", "quarter"})
        assert full == 3
        np.testing.assert_allclose(run(rounded(half)), X, rtol=2e-3, atol=1e-3)

    def test_where_pixels_are_read_stays_float32(self) -> None:
        """Of a row of 4,096 pixels half's digits would not tell one from the next."""
        width = 4096
        places = np.stack([np.linspace(-1, 1, width), np.zeros(width)], -1).astype(np.float32)[None, None]
        nodes = [
            helper.make_node("Mul", ["x", "one"], ["row"], name="row"),
            helper.make_node("Add", ["places", "offset"], ["there"], name="there"),
            helper.make_node("GridSample", ["row", "there"], ["read"], name="read", align_corners=1),
            helper.make_node("Mul", ["read", "one"], ["y"], name="last"),
        ]
        shape = [1, 1, 1, width]
        constants = {"one": np.float32(1), "offset": np.zeros(2, np.float32), "places": places}
        graph = helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        half, full = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
        assert full == 2  # the sum, and what reads by it
        x = (np.arange(width) % 2).astype(np.float32).reshape(shape)
        np.testing.assert_allclose(run(rounded(half), x), x, atol=0.01)

    def test_measured_and_converted_it_keeps_its_results(self) -> None:
        half, _ = to_half(squares(), beyond_half(squares(), [{"x": X}]))
        np.testing.assert_allclose(run(rounded(half)), X, rtol=2e-3, atol=1e-3)


class TestRounded:
    def test_shows_the_overflow_that_onnx_runtime_hides(self) -> None:
        half, _ = to_half(squares())
        assert np.isfinite(run(half)).all()
        np.testing.assert_array_equal(np.isinf(run(rounded(half)))[0], [False, False, True, True])

    def test_rounds_every_result(self) -> None:
        half, _ = to_half(model(("less", "Sub", ["x", "one"], "a"), ("more", "Add", ["a", "one"], "y"), one=1.0))
        exact = ((X.astype(np.float16) - np.float16(1)) + np.float16(1)).astype(np.float32)
        np.testing.assert_array_equal(run(rounded(half)), exact)
