"""coop-export: a checkpoint becomes a model bundle, each graph checked against PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from rich.console import Console

from coop_perception.arguments import command_parser
from coop_perception.classes import IGNORE_ID, SemanticClass
from coop_perception.commands.build_engines import compute_capabilities
from coop_perception.contracts import CONTRACTS
from coop_perception.documents import DocumentError, parse_json, read_yaml
from coop_perception.engines import EngineError
from coop_perception.engines.ahead import build_engines
from coop_perception.engines.files import handed_over
from coop_perception.engines.precisions import PRECISIONS
from coop_perception.exit_codes import CANNOT, DONE, interrupted
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import FORMAT_VERSION, BundleError, load_bundle
from coop_perception.shown import LONGEST_MESSAGE, plain
from coop_training.adapters import AdapterError, OnnxSegmenter
from coop_training.bundle_writing import check_replaceable, described, new_bundle, write_graphs, write_manifest
from coop_training.checkpoint import CheckpointError, load_weights, read_facts
from coop_training.config import TrainConfig
from coop_training.exchange import exchange_segmenter
from coop_training.export_check import (
    ExportError,
    Values,
    agreement,
    check_views,
    in_words,
    listed_images,
    trained_images,
)
from coop_training.graphs import GRAPHS, export_graphs
from coop_training.model import Cooperative
from coop_training.onnx_graphs import fold_normalisations, halve_weights
from coop_training.problems import problems

ENGINES = "tensorrt_rtx"
"""What builds engines for GPUs that are elsewhere."""
FAILURES = (
    ExportError,
    AdapterError,
    BundleError,
    CheckpointError,
    DatasetError,
    EngineError,
    OSError,
    DocumentError,
)
"""What ends the command with one line."""


def main() -> int:
    parser = command_parser(
        "coop-export", __doc__, "coop-export --checkpoint out/train/street/restoration.safetensors --out models/mine"
    )
    given = parser.add_argument_group("what it is made of")
    source = given.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--checkpoint", metavar="FILE", type=Path, help="a stage's .safetensors, as coop-train writes it"
    )
    source.add_argument("--bundle", metavar="DIR", type=Path, help="a bundle whose other networks stay: with --adapter")
    given.add_argument(
        "--adapter",
        metavar="FILE",
        type=Path,
        help="YAML description of your own segmenter, which takes the reference one's place",
    )
    given.add_argument(
        "--segmenter", metavar="FILE", type=Path, help="its ONNX file (default: the one that the description names)"
    )
    given.add_argument(
        "--images",
        metavar="DIR",
        type=Path,
        help="folder of images to check the graphs on (default: what was trained on, else a sample drive)",
    )
    written = parser.add_argument_group("what is written")
    written.add_argument("--out", metavar="DIR", type=Path, required=True, help="the bundle's directory")
    written.add_argument("--force", action="store_true", help="replace a bundle at --out")
    written.add_argument(
        "--figures", metavar="FILE", type=Path, help="YAML of measured figures to put into the manifest"
    )
    written.add_argument(
        "--engines",
        metavar="X.Y,...",
        type=compute_capabilities,
        default=(),
        help="also build engines for GPUs of these compute capabilities, as 8.9,12.0, into <out>.engines",
    )
    written.add_argument("--engine-precision", choices=PRECISIONS, default="fp16", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.segmenter and not arguments.adapter:
        parser.error(f"--segmenter {arguments.segmenter} needs --adapter, the YAML file that describes it")
    if arguments.bundle and not arguments.adapter:
        parser.error(f"--bundle {arguments.bundle} needs --adapter, the YAML file that describes your segmenter")
    own = (arguments.adapter, arguments.segmenter) if arguments.adapter else None
    try:
        if arguments.bundle:
            assert own is not None  # --bundle needs --adapter
            exchange_segmenter(
                arguments.bundle, arguments.out, *own, arguments.images, arguments.figures, arguments.force
            )
        else:
            export(arguments.checkpoint, arguments.out, own, arguments.images, arguments.figures, arguments.force)
        if arguments.engines:
            bundle, directory = load_bundle(arguments.out), handed_over(arguments.out)
            build_engines(
                bundle, ENGINES, arguments.engines, arguments.engine_precision, directory, calibration=arguments.images
            )
    except FAILURES as error:
        print(f"coop-export: {plain(error, LONGEST_MESSAGE)}", file=sys.stderr)
        return CANNOT
    except KeyboardInterrupt:
        return interrupted("coop-export", "files that are whole are kept")
    return DONE


def export(
    checkpoint: Path,
    out: Path,
    segmenter: tuple[Path, Path | None] | None = None,
    images: Path | None = None,
    figures: Path | None = None,
    force: bool = False,
) -> None:
    """Write the bundle `out` from a checkpoint.

    Args:
        checkpoint: a stage's.
        out: the bundle's directory.
        segmenter: description of a user's segmenter, instead of the one trained with, and its ONNX file, if that is not
            the one that the description names.
        images: folder of images to check the graphs on.
        figures: YAML for the manifest.
        force: whether a bundle at `out` may be replaced.

    Raises:
        ExportError: the checkpoint has no usable configuration, `out` exists and cannot or must not be replaced, or a
            graph's results differ from PyTorch's by more than rounding.
        AdapterError: the user's segmenter cannot be used as it is described.
        CheckpointError: the checkpoint cannot be read, or lacks a network.
        DatasetError: there are no images in `images`.
        DocumentError: `figures` or the checkpoint's record cannot be read.
        OSError: the bundle cannot be written.
    """
    console = Console(stderr=True, markup=False)
    out = out.resolve()
    check_replaceable(out, force)
    facts = read_facts(checkpoint)
    if "config" not in facts or "steps" in facts:  # steps: progress to be resumed from, its weights not averaged yet
        raise ExportError(f"{checkpoint}: is no result of a stage; give one's, <stage>.safetensors")
    try:
        config = TrainConfig.model_validate_json(facts["config"])
    except ValidationError as error:
        raise ExportError(f"{checkpoint}: its configuration is of another version: {problems(error)}") from error
    # One that takes its segmenter's place needs nothing of the description trained with, which may be gone.
    made = config if segmenter is None else config.model_copy(update={"segmenter": None})
    model, classes = Cooperative(made), config.data.class_list.classes
    if segmenter is not None:
        model.segmenter = OnnxSegmenter(segmenter[0], classes, *config.input.image, segmenter[1])
    load_weights(checkpoint, model.deployed())
    model.eval()
    reads = listed_images(images) if images else trained_images(config)
    views = check_views(config.conditions, config.input.sizes, reads)
    source = (images or config.data.root) if reads else "a sample drive"
    console.print(f"compared with PyTorch on {len(views)} frames of {source}")
    trained = results(model, views)
    fold_normalisations(model)
    halve_weights(model)
    stored = results(model, views)
    console.print(f"weights in float16 beside those trained: {in_words(agreement(stored, trained))}")

    with new_bundle(out, force, console) as directory:
        networks = write_graphs(export_graphs(model, config.input.sensor), both(views, stored), directory, console)
        own = {"segmenter": described(model.segmenter)} if isinstance(model.segmenter, OnnxSegmenter) else {}
        manifest = {
            "format": FORMAT_VERSION,
            "name": out.name,
            "classes": [class_entry(c) for c in classes],
            "ignore_id": IGNORE_ID,
            "input": config.input.model_dump(),
            "conditions": list(config.conditions),
            "networks": networks,
            "training": {
                "stage": facts["stage"],
                "commit": facts.get("commit", "unknown"),
                "config": config.model_dump(mode="json"),
                "stages": parse_json(facts.get("record", "{}"), f"{checkpoint}: its record").get("stages", {}),
                **own,
            },
            "figures": read_yaml(figures) if figures else {},
            "licence": {"weights": config.licence, "data": config.data_licence},
        }
        write_manifest(directory, manifest)


def class_entry(semantic_class: SemanticClass) -> dict[str, Any]:
    """A class in a manifest, as `parse_classes` reads it."""
    entry = asdict(semantic_class)
    return {key: list(value) if key == "rgb" else value for key, value in entry.items() if value is not None}


@torch.no_grad()
def results(model: Cooperative, views: Sequence[Values]) -> list[dict[str, NDArray[np.generic]]]:
    """What the networks, by PyTorch, make of frames, each in turn: all outputs of `CONTRACTS`."""
    graphs = {name: GRAPHS[name](model).eval() for name in CONTRACTS}
    found = []
    for view in views:
        values = {name: torch.from_numpy(value) for name, value in view.items()}
        for name, contract in CONTRACTS.items():
            given = graphs[name](*(values[key] for key in contract.inputs))
            values |= zip(contract.outputs, given if isinstance(given, tuple) else (given,), strict=True)
        found.append({name: value.numpy() for name, value in values.items() if name not in view})
    return found


def both(views: Sequence[Values], found: Sequence[Values]) -> list[Values]:
    return [{**view, **outputs} for view, outputs in zip(views, found, strict=True)]


if __name__ == "__main__":
    sys.exit(main())
