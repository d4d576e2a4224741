"""A user's ONNX segmenter by its description: what must come out is computed here in NumPy from the description."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import yaml
from coop_training.adapters import AdapterError, OnnxSegmenter, load_adapter
from coop_training.adapters.description import class_table
from coop_training.adapters.surroundings import EVEN
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, parser

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID, SemanticClass

HEIGHT, WIDTH = 24, 32
CLASSES = tuple(SemanticClass(i, name, (i, i, i)) for i, name in enumerate(("Sky", "Road", "Car", "Tree")))
RGB = {0: "Sky", 1: "Road", 2: "Car"}
"""Of a network whose scores are the image's channels."""


def description(folder: Path, graph: str | onnx.ModelProto, **fields: Any) -> Path:
    """Write a network, in ONNX's text form or whole, and its description."""
    onnx.save(parser.parse_model(graph) if isinstance(graph, str) else graph, folder / "network.onnx")
    path = folder / "segmenter.yaml"
    path.write_text(yaml.safe_dump({"onnx": "network.onnx", "output": {"kind": "logits"}, "classes": RGB, **fields}))
    return path


def model(signature: str, body: str, opset: int = 17, functions: str = "") -> str:
    imports = f'"": {opset}' + (', "local": 1' if functions else "")
    return f"<ir_version: 8, opset_import: [{imports}]> network {signature} {{ {body} }} {functions}"


PLAIN = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "y = Identity(x)")


def segmenter(path: Path, height: int = HEIGHT, width: int = WIDTH) -> OnnxSegmenter:
    return OnnxSegmenter(path, CLASSES, height, width)


def frames(count: int = 3, height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def segment(path: Path, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """By the graph as a bundle has it."""
    proto = segmenter(path).graph()
    onnx.checker.check_model(proto, full_check=True)
    session = ort.InferenceSession(proto.SerializeToString())
    probabilities, mask = session.run(["probabilities", "mask_raw"], {"image": image})
    assert probabilities.dtype == np.float32
    assert mask.dtype == np.uint8
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    return probabilities, mask


def quarter(probabilities: NDArray[Any]) -> NDArray[Any]:
    """As refinement takes them, of frames of HEIGHT x WIDTH."""
    size = (HEIGHT // 4, WIDTH // 4)
    tensor = torch.from_numpy(np.asarray(probabilities, np.float32))
    return torch.nn.functional.interpolate(tensor, size=size, mode="bilinear").numpy()


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float", {"scale": 1, "mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}),
        ("float", {"scale": 255, "mean": [100.0, 110.0, 120.0]}),
        ("float16", {"scale": 1, "std": [0.5, 0.5, 0.5]}),
        ("uint8", {"scale": 255}),
    ],
)
def test_what_the_network_is_given(
    tmp_path: Path, layout: str, channels: str, dtype: str, values: dict[str, Any]
) -> None:
    shape = "N,3,h,w" if layout == "NCHW" else "N,h,w,3"
    body = "z = Cast<to=1>(x) s = Constant<value_float=0.02>() y = Mul(z, s)" if dtype == "uint8" else "y = Identity(x)"
    kind = "float" if dtype == "uint8" else dtype
    path = description(
        tmp_path,
        model(f"({dtype}[{shape}] x) => ({kind}[{shape}] y)", body),
        input={"layout": layout, "channels": channels, **values},
        output={"kind": "logits", "layout": layout},
    )
    image = frames()
    pixels = image[..., ::-1] if channels == "bgr" else image
    x = (pixels * (values["scale"] / 255) - values.get("mean", 0)) / values.get("std", 1)
    logits = x.transpose(0, 3, 1, 2) * (0.02 if dtype == "uint8" else 1)
    probabilities, mask = segment(path, image)
    np.testing.assert_allclose(
        probabilities[:, :3], quarter(softmax(logits)), atol=1e-2 if dtype == "float16" else 1e-5
    )
    assert not probabilities[:, 3].any()
    assert (mask == logits.argmax(1)).mean() > (0.99 if dtype == "float16" else 0.9999)


def test_probabilities_are_taken_as_such(tmp_path: Path) -> None:
    scaled = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "a = ReduceL1<axes=[1]>(x) y = Div(x, a)")
    image = frames() // 2 + 64
    probabilities, mask = segment(description(tmp_path, scaled, output={"kind": "probabilities"}), image)
    shares = image / image.sum(3, keepdims=True)
    np.testing.assert_allclose(probabilities[:, :3], quarter(shares.transpose(0, 3, 1, 2)), atol=1e-5)
    assert (mask == shares.argmax(3)).mean() > 0.999


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.dictionaries(st.integers(0, 6), st.integers(0, 3), min_size=1),
    kind=st.sampled_from(["logits", "probabilities"]),
)
def test_classes_are_merged_as_probabilities(tmp_path: Path, table: dict[int, int], kind: str) -> None:
    """Whatever goes where: the sum over theirs, given that it is one of those that go anywhere."""
    weights = np.random.default_rng(1).normal(0, 3, (7, 3, 1, 1)).astype(np.float32)
    body = "z = Conv(x, w) y = " + ("Identity(z)" if kind == "logits" else "Softmax<axis=1>(z)")
    proto = parser.parse_model(model("(float[N,3,h,w] x) => (float[N,7,h,w] y)", body))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    classes = {theirs: CLASSES[ours].name for theirs, ours in table.items()}
    image = frames(2)
    probabilities, mask = segment(description(tmp_path, proto, output={"kind": kind}, classes=classes), image)
    theirs = softmax(np.einsum("nhwc,kc->nkhw", image / 255, weights[:, :, 0, 0]))
    expected = np.zeros((2, 4, HEIGHT, WIDTH))
    for number, ours in table.items():
        expected[:, ours] += theirs[:, number]
    if kind == "probabilities":
        expected += EVEN  # all but even, where next to nothing is left
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, quarter(expected), atol=1e-4)
    assert set(np.unique(mask)) <= set(table.values())


LABELS = {
    "int64 [N,h,w]": "int64[N,h,w] y) | y = ArgMax<axis=1, keepdims=0>(x)",
    "int64 [N,1,h,w]": "int64[N,1,h,w] y) | y = ArgMax<axis=1>(x)",
    "uint8 [N,h,w,1]": "uint8[N,h,w,1] y) | a = Transpose<perm=[0,2,3,1]>(x) b = ArgMax<axis=3>(a) y = Cast<to=2>(b)",
    "int32 [N,h,w]": "int32[N,h,w] y) | a = ArgMax<axis=1, keepdims=0>(x) y = Cast<to=6>(a)",
    "float [N,h,w]": "float[N,h,w] y) | a = ArgMax<axis=1, keepdims=0>(x) y = Cast<to=1>(a)",
}


@pytest.mark.parametrize("form", LABELS)
def test_label_maps(tmp_path: Path, form: str) -> None:
    """mask_raw is the map itself; probabilities are shares in cells of 4x4, even where there is no label."""
    output, body = LABELS[form].split("|")
    path = description(
        tmp_path,
        model(f"(float[N,3,h,w] x) => ({output}", body),
        output={"kind": "labels", "layout": "NHWC" if "w,1" in form else "NCHW"},
        classes={0: "Tree", 1: "Car"},  # 2 goes nowhere
    )
    image = frames()
    probabilities, mask = segment(path, image)
    expected = np.array([3, 2, IGNORE_ID])[image.argmax(3)]
    np.testing.assert_array_equal(mask, expected)
    assert probabilities.shape == (3, 4, HEIGHT // 4, WIDTH // 4)
    cell = expected[0, 4:8, 8:12]
    shares = np.array([(cell == c).mean() for c in range(4)])
    np.testing.assert_allclose(probabilities[0, :, 1, 2], 0.9 * shares + (1 - 0.9 * shares.sum()) / 4, atol=1e-6)


def test_label_ids_that_nothing_is_said_about(tmp_path: Path) -> None:
    """Below, between and above those that the description names."""
    body = "a = ReduceMax<axes=[1]>(x) b = Constant<value_float=200.0>() c = Sub(a, b) y = Cast<to=7>(c)"
    graph = model("(float[N,3,h,w] x) => (int64[N,1,h,w] y)", body)
    path = description(tmp_path, graph, input={"scale": 255}, output={"kind": "labels"}, classes={0: "Sky", 4: "Car"})
    image = frames()
    ids = image.max(3).astype(int) - 200
    assert set(np.unique(ids)) >= {-1, 0, 2, 4, 5}
    _, mask = segment(path, image)
    np.testing.assert_array_equal(mask, np.where(ids == 0, 0, np.where(ids == 4, 2, IGNORE_ID)))


@pytest.mark.parametrize("kind", ["logits", "labels"])
@pytest.mark.parametrize("size", [(24, 32), (36, 48), (24, 64), (48, 32)])
def test_a_network_of_one_size_in_a_graph_of_any(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    """An edge comes out where it went in, whatever the image's size and aspect ratio are."""
    output, body = (
        ("int64[1,12,16] y", "y = ArgMax<axis=1, keepdims=0>(x)")
        if kind == "labels"
        else ("float[1,3,12,16] y", "s = Constant<value_float=99.0>() y = Mul(x, s)")
    )
    path = description(tmp_path, model(f"(float[1,3,12,16] x) => ({output})", body), output={"kind": kind})
    height, width = size
    image = np.zeros((2, height, width, 3), np.uint8)
    edge, column = height // 3, width * 5 // 8
    image[:, :edge, :, 0] = image[:, edge:, :column, 1] = image[:, edge:, column:, 2] = 255
    probabilities, mask = segment(path, image)
    np.testing.assert_array_equal(mask, image.argmax(3))
    assert probabilities.shape == (2, 4, height // 4, width // 4)


def test_fixed_batch_is_made_dynamic(tmp_path: Path) -> None:
    proto = parser.parse_model(
        model("(float[1,3,24,32] x) => (float[1,3,12,16] y)", "z = Conv<strides=[2,2]>(x, w) y = Softmax<axis=1>(z)")
    )
    weights = np.random.default_rng(1).normal(size=(3, 3, 1, 1)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 12, 16]))
    path, image = description(tmp_path, proto, output={"kind": "probabilities"}), frames(5)
    together, _ = segment(path, image)
    for index in range(5):
        np.testing.assert_allclose(segment(path, image[index : index + 1])[0][0], together[index], atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "s = Constant<value_ints=[1,3,24,32]>() y = Reshape(x, s)",  # fails on two
        "s = Constant<value_ints=[1,-1,24,32]>() r = Reshape(x, s) a = Constant<value_ints=[0]>() "
        "b = Constant<value_ints=[3]>() c = Constant<value_ints=[1]>() y = Slice(r, a, b, c)",  # forgets the second
    ],
)
def test_batch_that_cannot_be_made_dynamic(tmp_path: Path, body: str) -> None:
    path = description(tmp_path, model("(float[1,3,24,32] x) => (float[1,3,24,32] y)", body))
    with pytest.raises(AdapterError, match=r"network\.onnx: with a dynamic batch, .* export it so .*dynamic_shapes"):
        segmenter(path)


def test_label_maps_of_a_batch_must_be_the_same_to_the_id(tmp_path: Path) -> None:
    """Ids of 200 and 201 are no nearer to each other than any two."""
    body = (
        "a = ReduceMax<axes=[1]>(x) b = Constant<value_float=200.0>() c = Max(a, b) d = Cast<to=7>(c) "
        "s = Shape<start=0, end=1>(x) y = Add(d, s)"
    )
    graph = model("(float[N,3,h,w] x) => (int64[N,1,h,w] y)", body)
    with pytest.raises(AdapterError, match=r"agrees with images one by one in 0\.0%"):
        segmenter(description(tmp_path, graph, output={"kind": "labels"}))


def test_older_operators_are_converted(tmp_path: Path) -> None:
    """Softmax below opset 13 goes over all axes from its own on: kept so, it differs from softmax over classes."""
    graph = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "a = Softmax<axis=1>(x) s = Shape(x) y = Mul(a, k)", 11)
    proto = parser.parse_model(graph)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e3, np.float32), "k"))
    image = frames(2)
    x = image.transpose(0, 3, 1, 2) / 255
    flat = softmax(x.reshape(2, -1)).reshape(x.shape) * 1e3
    probabilities, _ = segment(description(tmp_path, proto), image)
    np.testing.assert_allclose(probabilities[:, :3], quarter(softmax(flat)), atol=1e-5)


def test_operators_too_new(tmp_path: Path) -> None:
    graph = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "y = Swish(x)", 24)
    with pytest.raises(AdapterError, match=r"network\.onnx: .*opset 24.*export it with opset_version=18"):
        segmenter(description(tmp_path, graph))


def test_functions_other_outputs_and_any_names(tmp_path: Path) -> None:
    """The names are those of the bundle's own tensors; what only another output needs is left out."""
    function = '<domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }'
    proto = parser.parse_model(
        model(
            "(float[N,3,h,w] image) => (float[N,3,h,w] mask_raw, float[N,9,h,w] probabilities)",
            "mask_raw = local.twice(image) probabilities = Conv(image, auxiliary)",
            functions=function,
        )
    )
    auxiliary = np.zeros((9, 3, 1, 1), np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(auxiliary, "auxiliary"))
    path = description(tmp_path, proto, output={"kind": "logits", "name": "mask_raw"})
    image = frames()
    probabilities, _ = segment(path, image)
    expected = softmax(image.transpose(0, 3, 1, 2) / 255 * 2)
    np.testing.assert_allclose(probabilities[:, :3], quarter(expected), atol=1e-5)
    graph = segmenter(path).graph().graph
    assert not [tensor.name for tensor in graph.initializer if "auxiliary" in tensor.name]


@pytest.mark.parametrize("dtype", ["float", "uint8"])
def test_bytes_are_at_the_ends_only(tmp_path: Path, dtype: str) -> None:
    """TensorRT takes bytes into casts, gives them from casts, and has none in between."""
    body = "a = Cast<to=1>(x) b = ArgMax<axis=1>(a) y = Cast<to=2>(b)"
    path = description(
        tmp_path,
        model(f"({dtype}[N,3,h,w] x) => (uint8[N,1,h,w] y)", body),
        input={"scale": 255},
        output={"kind": "labels"},
    )
    proto = onnx.shape_inference.infer_shapes(segmenter(path).graph())
    assert not [v.name for v in proto.graph.value_info if v.type.tensor_type.elem_type == TensorProto.UINT8]
    producers = {name: node.op_type for node in proto.graph.node for name in node.output}
    assert producers["mask_raw"] == "Cast"
    assert {node.op_type for node in proto.graph.node if "image" in node.input} == {"Cast"}


def test_stands_in_for_the_trained_segmenter(tmp_path: Path) -> None:
    network = segmenter(description(tmp_path, PLAIN, classes={0: "Sky", 1: "Road", 2: "Road"}))
    assert not list(network.parameters())
    assert not network.state_dict()
    image = frames()
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.from_numpy(image).permute(0, 3, 1, 2) / 255)
    assert logits.shape == (3, 4, HEIGHT // 4, WIDTH // 4)
    assert not logits.requires_grad
    assert logits.isfinite().all()
    probabilities, _ = segment(tmp_path / "segmenter.yaml", image)
    np.testing.assert_allclose(logits.softmax(1).numpy(), probabilities, atol=1e-5)
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.segment(torch.from_numpy(image))[0].numpy(), probabilities)


def test_crops_are_seen_at_the_scale_of_frames(tmp_path: Path) -> None:
    """Fed at twice the frame's size; a crop of a quarter of it is fed at twice its own, in steps of 32."""
    tells_size = model(  # the logs of height, width and 1
        "(float[N,3,h,w] x) => (float[N,3,h,w] y)",
        "a = Shape<start=2, end=4>(x) b = Cast<to=1>(a) one = Constant<value_floats=[1.0]>() c = Concat<axis=0>(b, one)"
        " d = Log(c) shape = Constant<value_ints=[1,3,1,1]>() e = Reshape(d, shape) zero = Sub(x, x) y = Add(zero, e)",
    )

    def fed(network: OnnxSegmenter, height: int, width: int) -> list[int]:
        probabilities, _ = network.segment(torch.zeros(1, height, width, 3, dtype=torch.uint8))
        told = probabilities[0, :, 0, 0]
        return [round(float(side / told[2])) for side in told[:2]]

    network = segmenter(description(tmp_path, tells_size, input={"size": [128, 192]}), 64, 96)
    assert fed(network, 64, 96) == [128, 192]
    assert fed(network, 32, 48) == [64, 96]
    assert fed(network, 64, 128) == [128, 192]  # a whole frame of another aspect ratio
    assert fed(segmenter(description(tmp_path, tells_size), 64, 96), 20, 28) == [20, 28]


def test_crops_for_a_network_of_one_size(tmp_path: Path) -> None:
    network = segmenter(description(tmp_path, PLAIN.replace("h,w", "24,32")))
    with pytest.raises(AdapterError, match=r"network\.onnx: takes 24x32 alone.*no crop of 12x16; set data\.crop"):
        network(torch.zeros(1, 3, 12, 16))


ONE = "(float[N,3,h,w] x) => (float[N,1,h,w] y)"
BRIGHTNESS = model(ONE, "y = ReduceMean<axes=[1]>(x)")
LOGIT = model(
    ONE,
    "a = ReduceMean<axes=[1]>(x) b = Constant<value_float=0.25>() c = Sub(a, b) "
    "d = Constant<value_float=9.0>() y = Mul(c, d)",
)
SOFT = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "y = Softmax<axis=1>(x)")
INFINITE = model("(float[N,3,h,w] x) => (float[N,3,h,w] y)", "a = Sub(x, x) y = Div(x, a)")


@pytest.mark.parametrize(("graph", "kind", "threshold"), [(BRIGHTNESS, "probabilities", 0.5), (LOGIT, "logits", 0.25)])
def test_one_channel_is_the_score_of_one_class(tmp_path: Path, graph: str, kind: str, threshold: float) -> None:
    fields = {"output": {"kind": kind, "background": "Tree"}, "classes": {0: "Car"}}
    image = frames()
    probabilities, mask = segment(description(tmp_path, graph, **fields), image)
    brightness = image.mean(3) / 255
    decided = np.abs(brightness - threshold) > 1e-3
    np.testing.assert_array_equal(mask[decided], np.where(brightness > threshold, 2, 3)[decided])
    assert (probabilities[:, :2] <= EVEN).all()


TWO_INPUTS = model("(float[N,3,h,w] x, float[N,3,h,w] z) => (float[N,3,h,w] y)", "y = Add(x, z)")
TWO_OUTPUTS = model("(float[N,3,h,w] x) => (float[N,3,h,w] y, float[N,3,h,w] z)", "y = Neg(x) z = Abs(x)")
DOUBLE = model("(double[N,3,h,w] x) => (double[N,3,h,w] y)", "y = Identity(x)")
BYTES = model("(uint8[N,3,h,w] x) => (float[N,3,h,w] y)", "y = Cast<to=1>(x)")
FLAT = model("(float[N,3,h,w] x) => (float[N,k] y)", "y = Flatten(x)")
FIXED = PLAIN.replace("h,w", "24,32")
PICKY = model("(float[N,3,h,w] x) => (float[1,3,16,16] y)", "s = Constant<value_ints=[1,3,16,16]>() y = Reshape(x, s)")


@pytest.mark.parametrize(
    ("graph", "fields", "says"),
    [
        (PLAIN, {"output": {"kind": "scores"}}, r"segmenter\.yaml: output\.kind: Input should be"),
        (PLAIN, {"colour": 1}, r"segmenter\.yaml: colour: there is no such field"),
        (PLAIN, {"input": {"std": [1, 1, 0]}}, r"segmenter\.yaml: input\.std\.2: Input should be greater than 0"),
        (PLAIN, {"classes": {}}, r"segmenter\.yaml: classes: "),
        (PLAIN, {"classes": {0: "Sea"}}, r"segmenter\.yaml: classes: 0: the bundle has no class 'Sea'; it has Sky"),
        (PLAIN, {"classes": {"sky": "Sky"}}, r"segmenter\.yaml: classes: 'sky' is 0 times among the network's `names`"),
        (PLAIN, {"names": ["a", "a", "b"], "classes": {"a": "Sky"}}, "'a' is 2 times .* write its id"),
        (PLAIN, {"names": ["a", "b", "c"], "classes": {"a": "Sky", 0: "Car"}}, "classes: id 0 is there twice"),
        (PLAIN, {"classes": {-1: "Sky"}}, "classes: id -1 is negative"),
        (PLAIN, {"classes": {3: "Sky"}}, r"classes go up to id 3, but the network gives \[2, 3, 24, 32\]"),
        (PLAIN, {"names": ["a", "b"], "classes": {"a": "Sky"}}, r"names are 2, but .* which are 3 classes"),
        (PLAIN, {"output": {"kind": "labels"}}, r"output\.kind is labels, but the network gives \[2, 3, 24, 32\]"),
        (PLAIN, {"output": {"kind": "logits", "name": "z"}}, r"network\.onnx: has no output 'z', .* but y"),
        (FIXED, {"input": {"layout": "NHWC"}}, r"network\.onnx: input 'x' has shape .* but input\.layout is NHWC"),
        (PLAIN, {"input": {"layout": "NHWC"}}, r"network\.onnx: input 'x' has shape .* but input\.layout is NHWC"),
        (PLAIN, {"onnx": "absent.onnx"}, r"absent\.onnx: cannot be read as ONNX"),
        (FLAT, {}, r"the network gives \[2, 2304\], not \[N, C, h, w\]"),
        (BRIGHTNESS, {"classes": {0: "Car"}}, r"one channel: .* Say in output\.background"),
        (LOGIT, {"classes": {0: "Car"}}, r"one channel: .* Say in output\.background"),
        (LOGIT, {"classes": {1: "Car"}, "output": {"kind": "logits", "background": "Sky"}}, "classes has ids .1."),
        (LOGIT, {"classes": {0: "Car"}, "output": {"kind": "logits", "background": "Sea"}}, "no class 'Sea'"),
        (PLAIN, {"classes": {0: "Car"}, "output": {"kind": "logits", "background": "Sky"}}, "networks of one channel"),
        (
            LOGIT,
            {"classes": {0: "Car"}, "output": {"kind": "probabilities", "background": "Sky"}},
            "output.kind: logits",
        ),
        (
            PLAIN.replace("Identity", "Neg"),
            {"output": {"kind": "probabilities"}},
            "values of -1 to .* output.kind: logits",
        ),
        (
            BRIGHTNESS,
            {"classes": {0: "Car"}, "output": {"kind": "logits", "background": "Sky"}},
            r"sigmoid is in it already; say output\.kind: probabilities",
        ),
        (SOFT, {}, r"softmax is in it already; say output\.kind: probabilities"),
        (BRIGHTNESS, {"output": {"kind": "labels"}}, "values of .* that are no ids"),
        (INFINITE, {}, r"network\.onnx: gives infinite values"),
        (TWO_INPUTS, {}, r"network\.onnx: has inputs \['x', 'z'\], expected one"),
        (TWO_OUTPUTS, {}, r"network\.onnx: has outputs y, z; say in output\.name"),
        (DOUBLE, {}, r"network\.onnx: input 'x' is DOUBLE, expected one of FLOAT"),
        (BYTES, {}, r"network\.onnx: input 'x' takes bytes: set input\.scale to 255"),
        (FIXED, {"input": {"size": [32, 32]}}, r"network\.onnx: takes images of 24x32, and input\.size is 32x32"),
        (PICKY, {}, r"network\.onnx: fails on float32 \[1, 3, 24, 32\] .*input\.size"),
    ],
)
def test_descriptions_that_cannot_be(tmp_path: Path, graph: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(AdapterError, match=says):
        segmenter(description(tmp_path, graph, **fields))


@pytest.mark.parametrize("text", ["", "- a", "{", "\x00"])
def test_descriptions_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "segmenter.yaml"
    path.write_text(text)
    with pytest.raises(AdapterError, match=r"segmenter\.yaml"):
        load_adapter(path)


def test_file_that_is_no_onnx(tmp_path: Path) -> None:
    path = description(tmp_path, PLAIN)
    (tmp_path / "network.onnx").write_bytes(b"no network")
    with pytest.raises(AdapterError, match=r"network\.onnx: cannot be read as ONNX"):
        segmenter(path)


def test_shipped_descriptions() -> None:
    """Cityscapes' classes go to every one of CamVid's, VOC's to themselves."""
    folder = Path(__file__).parents[1] / "configs" / "adapters"
    path = folder / "segformer_cityscapes.yaml"
    table = class_table(path, load_adapter(path), CAMVID_CLASSES)
    assert sorted(table) == list(range(19))
    assert set(table.values()) == {c.id for c in CAMVID_CLASSES}
    path = folder / "deeplabv3_voc.yaml"
    adapter = load_adapter(path)
    voc = [SemanticClass(i, name, (i, i, i)) for i, name in enumerate(adapter.names)]
    assert class_table(path, adapter, voc) == {i: i for i in range(21)}
