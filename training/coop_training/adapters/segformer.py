"""A SegFormer checkpoint becomes an ONNX file and its description. Needs the package transformers."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.export import Dim

from coop_perception.arguments import command_parser
from coop_training.adapters.description import AdapterError
from coop_training.onnx_graphs import export_graph, save_graph

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
"""Of ImageNet, as published SegFormers were trained with."""


class _Logits(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(pixels).logits


def main() -> int:
    parser = command_parser(
        "python -m coop_training.adapters.segformer",
        __doc__,
        "python -m coop_training.adapters.segformer --checkpoint segformer-b0/ --out out/segformer.onnx",
    )
    parser.add_argument(
        "--checkpoint", metavar="DIR", type=Path, required=True, help="folder with config.json and model.safetensors"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, required=True, help="ONNX file to write; its description goes beside it"
    )
    parser.add_argument("--licence", metavar="TEXT", default="", help="of the weights, for the description")
    arguments = parser.parse_args()
    try:
        print(convert(arguments.checkpoint, arguments.out, arguments.licence))
    except (AdapterError, OSError) as error:
        print(f"segformer: {error}", file=sys.stderr)
        return 1
    return 0


def convert(checkpoint: Path, out: Path, licence: str = "") -> Path:
    """Write the network to `out`, for any batch and size, and its description beside it; returns the latter's path.

    The description's classes are the network's own, one to one: change what they go to for a bundle with others.

    Args:
        checkpoint: folder, as transformers saves a model.
        out: the ONNX file.
        licence: of the weights.

    Raises:
        AdapterError: transformers is missing, the checkpoint is no whole SegFormer, or there is such a file already.
        OSError: a file cannot be written.
    """
    description = out.with_suffix(".yaml")
    for path in (description, out):
        if path.exists():
            raise AdapterError(f"{path}: exists, and may have been edited; remove it, or choose another --out")
    network = _load(checkpoint)
    pixels, any_size = torch.zeros(2, 3, 64, 96), dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_graph(export_graph(_Logits(network).eval(), (pixels,), {"pixels": any_size}, ("logits",)), out)
    labels = network.config.id2label
    names = [labels[number] for number in range(len(labels))]
    keys = names if len(set(names)) == len(names) else range(len(names))
    fields = {
        "onnx": out.name,
        "input": {"mean": MEAN, "std": STD},
        "output": {"kind": "logits"},
        "names": names,
        "classes": dict(zip(keys, names, strict=True)),
        "licence": licence,
    }
    description.write_text(yaml.safe_dump(fields, sort_keys=False, width=120))
    return description


def _load(checkpoint: Path) -> nn.Module:
    try:
        from transformers import SegformerForSemanticSegmentation
        from transformers.utils import logging
    except ImportError as error:
        raise AdapterError(f"transformers cannot be imported ({error}); pip install transformers") from error
    if not (checkpoint / "config.json").is_file():
        raise AdapterError(f"{checkpoint}: holds no config.json; give a folder as save_pretrained writes it")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        network, report = SegformerForSemanticSegmentation.from_pretrained(
            checkpoint, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise AdapterError(f"{checkpoint}: cannot be loaded as a SegFormer: {error}") from error
    missing = [*report["missing_keys"], *report["mismatched_keys"]]
    if missing:
        raise AdapterError(
            f"{checkpoint}: is no SegFormer that segments: it lacks {len(missing)} of its weights, such as {missing[0]}"
        )
    return network


if __name__ == "__main__":
    sys.exit(main())
