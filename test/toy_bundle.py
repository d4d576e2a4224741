"""A bundle whose networks do something so simple that tests know what must come out.

mask_raw is the frame's red channel, mask its green, confidence its blue; restored is the inverted frame; condition says
`fog` with probability mean(red)/255 and clear with the rest; strength is mean(green)/255.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.contracts import CONTRACTS, STAGES
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.model.bundle import FORMAT_VERSION, MANIFEST, load_bundle, sha256
from coop_perception.model.pipeline import Pipeline

HEIGHT, WIDTH = 24, 32
CLASSES = len(CAMVID_CLASSES)
CONDITIONS = ("clear", "fog")


def write_toy_bundle(directory: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """Write it and return `directory`."""
    directory.mkdir(parents=True)
    networks = {}
    for name, contract in CONTRACTS.items():
        path = directory / f"{name}.onnx"
        onnx.save(_graph(name, height, width), path)
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
        "input": {"height": height, "width": width},
        "conditions": list(CONDITIONS),
        "networks": networks,
    }
    (directory / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False))
    return directory


def open_pipeline(directory: Path, backend: str = "onnxruntime", networks: Collection[str] = STAGES) -> Pipeline:
    """Of this bundle or another."""
    bundle = load_bundle(directory)
    return Pipeline(bundle, load_engines(bundle, networks, EngineSettings(backend)))


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


def _graph(name: str, height: int, width: int) -> onnx.ModelProto:
    contract = CONTRACTS[name]
    shapes: dict[str, tuple[int, list[Any]]] = {
        "image": (TensorProto.UINT8, ["N", height, width, 3]),
        "probabilities": (TensorProto.FLOAT, ["N", CLASSES, height, width]),
        "refined_probabilities": (TensorProto.FLOAT, ["N", CLASSES, height, width]),
        "mask_raw": (TensorProto.UINT8, ["N", height, width]),
        "mask": (TensorProto.UINT8, ["N", height, width]),
        "confidence": (TensorProto.UINT8, ["N", height, width]),
        "restored": (TensorProto.UINT8, ["N", height, width, 3]),
        "condition": (TensorProto.FLOAT, ["N", len(CONDITIONS)]),
        "strength": (TensorProto.FLOAT, ["N"]),
    }
    constants = {
        "axes_mean": np.array([1, 2], np.int64),
        "full": np.array(255, np.float32),
        "tiles": np.array([1, CLASSES, 1, 1], np.int64),
        **{f"channel{c}": np.array(c, np.int64) for c in range(3)},
        "axis1": np.array([1], np.int64),
        "one": np.array(1, np.float32),
    }
    nodes = [helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT)]
    for c in range(3):
        nodes.append(helper.make_node("Gather", ["float", f"channel{c}"], [f"plane{c}"], axis=3))
        nodes.append(helper.make_node("ReduceMean", [f"plane{c}", "axes_mean"], [f"mean{c}"], keepdims=0))
        nodes.append(helper.make_node("Div", [f"mean{c}", "full"], [f"share{c}"]))
    nodes += [
        helper.make_node("Sub", ["full", "float"], ["inverted"]),
        helper.make_node("Cast", ["inverted"], ["restored"], to=TensorProto.UINT8),
        helper.make_node("Sub", ["one", "share0"], ["clear"]),
        helper.make_node("Unsqueeze", ["clear", "axis1"], ["clear1"]),
        helper.make_node("Unsqueeze", ["share0", "axis1"], ["fog1"]),
        helper.make_node("Concat", ["clear1", "fog1"], ["condition"], axis=1),
        helper.make_node("Identity", ["share1"], ["strength"]),
        helper.make_node("Unsqueeze", ["plane0", "axis1"], ["plane0c"]),
    ]
    for output, plane in (("mask_raw", 0), ("mask", 1), ("confidence", 2)):
        nodes.append(helper.make_node("Cast", [f"plane{plane}"], [output], to=TensorProto.UINT8))
    if "probabilities" in contract.inputs or "refined_probabilities" in contract.inputs:
        given = contract.inputs[1]
        nodes.append(
            helper.make_node("Identity", [given], ["refined" if name == "restoration" else "refined_probabilities"])
        )
    else:
        nodes.append(helper.make_node("Tile", ["plane0c", "tiles"], ["probabilities"]))
    graph = helper.make_graph(
        _leading_to({*contract.outputs, "refined"}, nodes),
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
    whole = _graph("restoration", HEIGHT, WIDTH)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Loop", ["", "true", "pixels"], ["looped"], body=body),
        helper.make_node("Cast", ["looped"], ["restored"], to=TensorProto.UINT8),
    ]
    true = numpy_helper.from_array(np.array(True), "true")
    graph = helper.make_graph(nodes, "restoration", whole.graph.input, whole.graph.output, [true])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
