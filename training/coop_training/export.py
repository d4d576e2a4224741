"""coop-export: a checkpoint becomes a model bundle, each graph checked against PyTorch."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from rich.console import Console

from coop_perception.bundle import CONTRACTS, FORMAT_VERSION, MANIFEST, Contract, load_bundle, sha256
from coop_perception.classes import IGNORE_ID
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.pipeline import Pipeline
from coop_perception.sample_drive import SampleDrive
from coop_training.checkpoint import CheckpointError, load_weights, read_facts
from coop_training.config import TrainConfig
from coop_training.graphs import GRAPHS
from coop_training.model import Cooperative

MASK_AGREEMENT = 0.999
SAME_PIXELS = 0.999
HALVED_FROM = 1024
"""Weights of at least this many elements are stored as float16: half the bundle, and what FP16 engines read anyway."""


class ExportError(RuntimeError):
    """A graph that does not do what its network does; the message gives the figures."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="coop-export", description=__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="a stage's .safetensors, as coop-train writes it"
    )
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory, replaced if it exists")
    parser.add_argument("--figures", type=Path, help="YAML of measured figures to put into the manifest")
    arguments = parser.parse_args()
    try:
        export(arguments.checkpoint, arguments.out, arguments.figures)
    except (ExportError, CheckpointError, OSError, yaml.YAMLError) as error:
        print(f"coop-export: {error}", file=sys.stderr)
        return 1
    return 0


def export(checkpoint: Path, out: Path, figures: Path | None = None) -> None:
    """Write the bundle `out` from a checkpoint.

    Raises:
        ExportError: the checkpoint has no usable configuration, `out` is no bundle to replace, or a graph's results
            differ from PyTorch's by more than rounding.
        CheckpointError: the checkpoint cannot be read, or lacks a network.
        OSError: the bundle cannot be written.
    """
    console = Console(stderr=True)
    out = out.resolve()
    if out.exists() and not (out / MANIFEST).is_file():
        raise ExportError(f"{out}: exists and is no bundle, so it is not replaced; choose another --out")
    facts = read_facts(checkpoint)
    if "config" not in facts:
        raise ExportError(f"{checkpoint}: holds no configuration; give a stage's checkpoint, <stage>.safetensors")
    try:
        config = TrainConfig.model_validate_json(facts["config"])
    except ValidationError as error:
        raise ExportError(f"{checkpoint}: its configuration is of another version: {error}") from error
    model = Cooperative(config)
    load_weights(checkpoint, model.deployed())
    model.eval()
    halve_weights(model)

    temporary = out.with_name(out.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    networks: dict[str, Any] = {}
    frames = check_frames(config)
    for name, contract in CONTRACTS.items():
        graph = GRAPHS[name](model, config.height, config.width).eval()
        path = temporary / f"{name}.onnx"
        inputs = example_inputs(model, contract, frames)
        export_graph(graph, contract, inputs, path)
        agreement = compare(graph, contract, inputs, path)
        console.print(f"{name}: {path.stat().st_size / 1e6:.1f} MB, {agreement}")
        networks[name] = {
            "file": path.name,
            "sha256": sha256(path),
            "inputs": list(contract.inputs),
            "outputs": list(contract.outputs),
        }
    manifest = {
        "format": FORMAT_VERSION,
        "name": out.name,
        "classes": [{"id": c.id, "name": c.name, "rgb": list(c.rgb)} for c in config.data.class_list.classes],
        "ignore_id": IGNORE_ID,
        "input": {"height": config.height, "width": config.width},
        "conditions": ["clear", *config.conditions],
        "networks": networks,
        "training": {
            "stage": facts["stage"],
            "commit": facts.get("commit", "unknown"),
            "config": json.loads(config.model_dump_json()),
            "stages": json.loads(facts.get("record", "{}")).get("stages", {}),
        },
        "figures": yaml.safe_load(figures.read_text()) if figures else {},
        "licence": {"weights": config.licence, "data": config.data_licence},
    }
    (temporary / MANIFEST).write_text(yaml.safe_dump(manifest, sort_keys=False, width=120, default_flow_style=None))
    Pipeline(load_bundle(temporary)).warm_up()
    replaced = out.with_name(out.name + ".replaced")
    if out.exists():
        out.rename(replaced)
    temporary.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)
    console.print(f"{out}: {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")


def halve_weights(model: Cooperative) -> None:
    """Round large weights to float16's grid, in place: PyTorch and graphs then compute with nearly the same numbers.

    Nearly, as the exporter folds the segmenter's batch normalisations into them, and these products are rounded too.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() >= HALVED_FROM:
                parameter.copy_(parameter.half().float())


def check_frames(config: TrainConfig) -> NDArray[np.uint8]:
    """Two frames of a sample drive, one clear, one under the first condition. uint8 [2,H,W,3]."""
    drive = SampleDrive(1, config.width, config.height)
    frame = drive.frame(0)
    adverse = frame.image
    if config.conditions:
        condition = config.conditions[0]
        level = len(CONDITIONS[condition].levels)
        adverse = degrade(frame.image, condition, level, seed=0, depth=frame.depth, intrinsics=drive.intrinsics)
    return np.stack([frame.image, adverse])


def example_inputs(model: Cooperative, contract: Contract, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, ...]:
    """The graph's inputs for the frames: the image, and where it takes one, the segmentation or the refined one."""
    image = torch.from_numpy(frames)
    if len(contract.inputs) == 1:
        return (image,)
    with torch.inference_mode():
        probabilities = GRAPHS["segmenter"](model, *frames.shape[1:3]).eval()(image)[0]
        if "refined_probabilities" in contract.inputs:  # which may be of another size
            probabilities = GRAPHS["refinement"](model, *frames.shape[1:3]).eval()(image, probabilities)[0]
    return image, probabilities.clone()


def export_graph(graph: torch.nn.Module, contract: Contract, inputs: tuple[torch.Tensor, ...], path: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.onnx.export(
        graph,
        inputs,
        dynamo=True,
        input_names=list(contract.inputs),
        output_names=list(contract.outputs),
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    store_weights_halved(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def store_weights_halved(proto: onnx.ModelProto) -> None:
    """Replace large float32 initializers by float16 ones with a Cast behind, which runtimes fold away at load."""
    for tensor in list(proto.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < HALVED_FROM:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + "_fp16")
        proto.graph.initializer.remove(tensor)
        proto.graph.initializer.append(half)
        proto.graph.node.insert(
            0, helper.make_node("Cast", [half.name], [name], name=name + "_cast", to=TensorProto.FLOAT)
        )


def compare(graph: torch.nn.Module, contract: Contract, inputs: tuple[torch.Tensor, ...], path: Path) -> str:
    """Run the written graph beside PyTorch; a line with the figures.

    Raises:
        ExportError: masks agree in fewer than 99.9 % of pixels, restored images within one grey level in fewer, or
            another output is off by more than 2 %.
    """
    with torch.inference_mode():
        result = graph(*inputs)
    expected = dict(zip(contract.outputs, result if isinstance(result, tuple) else (result,), strict=True))
    feeds = {name: value.numpy() for name, value in zip(contract.inputs, inputs, strict=True)}
    found = OnnxRuntimeEngine(path).run(feeds, contract.outputs)
    report = []
    for name, tensor in expected.items():
        ours, theirs = found[name].astype(np.float32), tensor.numpy().astype(np.float32)
        if name.startswith("mask"):
            agreement, least = float((ours == theirs).mean()), MASK_AGREEMENT
        elif tensor.dtype == torch.uint8:
            agreement, least = float((np.abs(ours - theirs) <= 1).mean()), SAME_PIXELS
        else:
            agreement, least = float((np.abs(ours - theirs) <= 0.02).mean()), SAME_PIXELS
        if agreement < least:
            raise ExportError(f"{path}: {name} agrees with PyTorch in {agreement:.4%}, expected {least:.1%}")
        report.append(f"{name} {agreement:.3%}")
    return ", ".join(report)


if __name__ == "__main__":
    sys.exit(main())
