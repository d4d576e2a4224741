"""A bundle whose networks do something so simple that tests know what must come out.

Of the scene view, which is the frame itself where that has the networks' size: mask_raw is its red channel, mask its
green, confidence its blue; `fog` is present with probability mean(red)/255, `rain` with mean(blue)/255, both with
strength mean(green)/255. Familiarity is mean(green)/255 of the sensor view. restored is the inverted frame where any
presence is 0.2 or more, else the frame.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.contracts import CONTRACTS, STAGES
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import FORMAT_VERSION, MANIFEST, load_bundle, sha256
from coop_perception.model.pipeline import Pipeline

HEIGHT, WIDTH = 32, 64
SENSOR = 32
CLASSES = len(CAMVID_CLASSES)
CONDITIONS = ("fog", "rain")


def write_toy_bundle(directory: Path, height: int = HEIGHT) -> Path:
    """Write it and return `directory`. height: of the networks' image, a multiple of 32."""
    directory.mkdir(parents=True)
    networks = {}
    for name, contract in CONTRACTS.items():
        path = directory / f"{name}.onnx"
        onnx.save(_graph(name), path)
        networks[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "inputs": list(contract.inputs),
            "outputs": list(contract.outputs),
        }
    manifest: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "name": "toy",
        "classes": [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in CAMVID_CLASSES],
        "ignore_id": IGNORE_ID,
        "input": {"height": height, "smallest": 32, "largest": 2048, "sensor": SENSOR},
        "conditions": list(CONDITIONS),
        "networks": networks,
    }
    (directory / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return directory


def open_pipeline(directory: Path, backend: str = "onnxruntime") -> Pipeline:
    """Of this bundle or another."""
    bundle = load_bundle(directory)
    return Pipeline(bundle, load_engines(bundle, STAGES, EngineSettings(backend)))


def edit_manifest(directory: Path, **changes: Any) -> None:
    """Replace top-level fields of a bundle's manifest; None removes one."""
    manifest = yaml.safe_load((directory / MANIFEST).read_text())
    for key, value in changes.items():
        if value is None:
            del manifest[key]
        else:
            manifest[key] = value
    (directory / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))


def rewrite_network(directory: Path, name: str, proto: onnx.ModelProto) -> None:
    """Put another graph in a network's place, its checksum included."""
    manifest = yaml.safe_load((directory / MANIFEST).read_text())
    path = directory / manifest["networks"][name]["file"]
    onnx.save(proto, path)
    manifest["networks"][name]["sha256"] = sha256(path)
    (directory / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))


def put_weights_beside(directory: Path) -> Path:
    """Have the segmenter take a factor of its mask, which is 1, from a file that the manifest lists; returns that."""
    weights = directory / "weights.bin"
    model = onnx.load(directory / "segmenter.onnx")
    factor = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "factor")
    set_external_data(factor, weights.name)
    model.graph.initializer.append(factor)
    (cast,) = (node for node in model.graph.node if "mask_raw" in node.output)
    product = helper.make_node("Mul", [cast.input[0], factor.name], ["product"])
    cast.input[0] = "product"
    model.graph.node.insert(list(model.graph.node).index(cast), product)
    rewrite_network(directory, "segmenter", model)
    edit_manifest(directory, weights={"file": weights.name, "sha256": sha256(weights)})
    return weights


def _graph(name: str) -> onnx.ModelProto:
    contract = CONTRACTS[name]
    of_image: tuple[int, list[Any]] = (TensorProto.UINT8, ["N", "H", "W", 3])
    of_pixels: tuple[int, list[Any]] = (TensorProto.UINT8, ["N", "H", "W"])
    of_conditions: tuple[int, list[Any]] = (TensorProto.FLOAT, ["N", len(CONDITIONS)])
    shapes: dict[str, tuple[int, list[Any]]] = {
        "image": of_image,
        "sensor": (TensorProto.UINT8, ["N", SENSOR, SENSOR, 3]),
        "frame": (TensorProto.UINT8, ["N", "h", "w", 3]),
        "probabilities": (TensorProto.FLOAT, ["N", CLASSES, "H/4", "W/4"]),
        "refined_probabilities": (TensorProto.FLOAT, ["N", CLASSES, "H/4", "W/4"]),
        "mask_raw": of_pixels,
        "mask": of_pixels,
        "confidence": of_pixels,
        "presence": of_conditions,
        "strength": of_conditions,
        "familiarity": (TensorProto.FLOAT, ["N"]),
        "restored": (TensorProto.UINT8, ["N", "h", "w", 3]),
    }
    constants = {
        "full": np.array(255, np.float32),
        "two": np.array(2, np.float32),
        "least": np.array(0.2, np.float32),
        "below_all": np.array(-1, np.float32),
        "tiles": np.array([1, CLASSES, 1, 1], np.int64),
        "as_image": np.array([-1, 1, 1, 1], np.int64),
        "axes12": np.array([1, 2], np.int64),
        "axes123": np.array([1, 2, 3], np.int64),
        "axis1": np.array([1], np.int64),
        **{f"channel{c}": np.array(c, np.int64) for c in range(3)},
    }
    node = helper.make_node
    nodes: list[onnx.NodeProto] = []
    if "image" in contract.inputs:
        nodes.append(node("Cast", ["image"], ["float"], to=TensorProto.FLOAT))
        for c in range(3):
            nodes.append(node("Gather", ["float", f"channel{c}"], [f"plane{c}"], axis=3))
            nodes.append(node("ReduceMean", [f"plane{c}", "axes12"], [f"mean{c}"], keepdims=0))
            nodes.append(node("Div", [f"mean{c}", "full"], [f"share{c}"]))
            nodes.append(node("Unsqueeze", [f"share{c}", "axis1"], [f"column{c}"]))
    if name == "segmenter":
        nodes += [
            node("Unsqueeze", ["plane0", "axis1"], ["as_map"]),
            node("AveragePool", ["as_map"], ["quarter"], kernel_shape=[4, 4], strides=[4, 4]),
            node("Tile", ["quarter", "tiles"], ["probabilities"]),
        ]
    if name == "refinement":
        nodes += [
            node("Cast", ["sensor"], ["pixels"], to=TensorProto.FLOAT),
            node("Gather", ["pixels", "channel1"], ["green"], axis=3),
            node("ReduceMean", ["green", "axes12"], ["mean_green"], keepdims=0),
            node("Div", ["mean_green", "full"], ["familiarity"]),
            node("Identity", ["probabilities"], ["refined_probabilities"]),
            node("Concat", ["column0", "column2"], ["presence"], axis=1),
            node("Concat", ["column1", "column1"], ["strength"], axis=1),
        ]
    if name == "restoration":
        nodes += [
            node("ReduceMax", ["presence", "axis1"], ["most"], keepdims=0),
            node("GreaterOrEqual", ["most", "least"], ["there"]),
            # True, of all the other inputs: none may be left out.
            node("ReduceMean", ["refined_probabilities", "axes123"], ["mean_refined"], keepdims=0),
            node("ReduceMean", ["strength", "axis1"], ["mean_strength"], keepdims=0),
            node("Sum", ["mean_refined", "mean_strength", "familiarity", "share0"], ["others"]),
            node("Greater", ["others", "below_all"], ["sane"]),
            node("And", ["there", "sane"], ["inverts"]),
            node("Cast", ["inverts"], ["share"], to=TensorProto.FLOAT),
            node("Reshape", ["share", "as_image"], ["weight"]),
            node("Cast", ["frame"], ["given"], to=TensorProto.FLOAT),
            node("Mul", ["given", "two"], ["doubled"]),
            node("Sub", ["full", "doubled"], ["change"]),
            node("Mul", ["weight", "change"], ["weighted"]),
            node("Add", ["given", "weighted"], ["result"]),
            node("Cast", ["result"], ["restored"], to=TensorProto.UINT8),
        ]
    for output, plane in (("mask_raw", 0), ("mask", 1), ("confidence", 2)):
        nodes.append(node("Cast", [f"plane{plane}"], [output], to=TensorProto.UINT8))
    graph = helper.make_graph(
        _leading_to({*contract.outputs}, nodes),
        name,
        [helper.make_tensor_value_info(n, *shapes[n]) for n in contract.inputs],
        [helper.make_tensor_value_info(n, *shapes[n]) for n in contract.outputs],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _leading_to(needed: set[str], nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """TensorRT takes no uint8 tensor that is not an output."""
    kept = []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed = needed | set(node.input)
            kept.append(node)
    return kept[::-1]


def never_ending() -> onnx.ModelProto:
    """A restoration network that loads, and never ends when it is run."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["carried", "carried"], ["next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    whole = _graph("restoration")
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Loop", ["", "true", "pixels"], ["looped"], body=body),
        helper.make_node("Cast", ["looped"], ["restored"], to=TensorProto.UINT8),
    ]
    true = numpy_helper.from_array(np.array(True), "true")
    graph = helper.make_graph(nodes, "restoration", whole.graph.input, whole.graph.output, [true])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
