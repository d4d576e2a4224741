"""Segmenters as people have them, SegFormer and one of DeepLabv3's shape, in a bundle that the vehicle's side runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from coop_training import export
from coop_training.onnx_graphs import export_graph, save_graph
from smoke_run import HEIGHT, WIDTH, run
from torch import Tensor, nn
from torch.export import Dim
from toy_bundle import open_pipeline

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.model.pipeline import OUTPUTS
from coop_perception.sample_scene.drive import SampleDrive

NAMES = [c.name for c in CAMVID_CLASSES]
FRAME = SampleDrive(2, WIDTH, HEIGHT).frame(5).image


def bundle_of(random_export: Path, segmenter: Path, adapter: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = segmenter.parent / "bundle"
    own = ("--segmenter", segmenter, "--adapter", adapter)
    assert run(export.main, "--bundle", random_export / "random", *own, "--out", out) == 0, capsys.readouterr().err
    return out


def check(bundle: Path, logits: Tensor) -> None:
    """mask_raw is the network's, and all stages run on it."""
    full = F.interpolate(logits.softmax(1), size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False)
    (result,) = open_pipeline(bundle).run([FRAME], OUTPUTS)
    assert result.restored is not None
    assert (result.mask_raw == full[0].argmax(0).numpy()).mean() > 0.999


def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    pixels = torch.from_numpy(FRAME.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_segformer(random_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import transformers
    from coop_training.adapters.segformer import convert

    torch.manual_seed(0)
    small = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 16}
    config = transformers.SegformerConfig(**small, initializer_range=0.3, id2label=dict(enumerate(NAMES)))
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    network.save_pretrained(tmp_path / "checkpoint")
    segmenter = tmp_path / "segformer.onnx"
    adapter = convert(tmp_path / "checkpoint", segmenter)
    with torch.no_grad():
        logits = network(normalised(*IMAGENET)).logits
    check(bundle_of(random_export, segmenter, adapter, capsys), logits)


class DeepLabv3(nn.Module):
    """Its shape: stride 8, dilated convolutions side by side and the image's mean, an auxiliary output."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 12, 24, 48)
        steps = pairwise(widths)
        self.trunk = nn.Sequential(*(layer for a, b in steps for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())))
        self.branches = nn.ModuleList(nn.Conv2d(48, 16, 3, 1, dilation, dilation) for dilation in (1, 2, 4))
        self.whole = nn.Conv2d(48, 16, 1)
        self.classify, self.auxiliary = nn.Conv2d(64, len(NAMES), 1), nn.Conv2d(48, len(NAMES), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        size = features.shape[2:]
        whole = F.interpolate(self.whole(features.mean((2, 3), keepdim=True)), size=size, mode="bilinear")
        parts = torch.cat([*(branch(features) for branch in self.branches), whole], 1).relu()
        out, auxiliary = self.classify(parts), self.auxiliary(features)
        return tuple(F.interpolate(y, size=x.shape[2:], mode="bilinear") for y in (out, auxiliary))


def test_deeplabv3(random_export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network = DeepLabv3().eval()
    segmenter, adapter = tmp_path / "deeplabv3.onnx", tmp_path / "adapter.yaml"
    example = torch.zeros(2, 3, HEIGHT, WIDTH)
    any_size = dict.fromkeys((0, 2, 3), Dim.DYNAMIC)
    save_graph(export_graph(network, (example,), {"input": any_size}, ("out", "aux")), segmenter)
    description = {
        "input": {"mean": list(IMAGENET[0]), "std": list(IMAGENET[1])},
        "output": {"kind": "logits", "name": "out"},
        "names": NAMES,
        "classes": {name: name for name in NAMES},
    }
    adapter.write_text(yaml.safe_dump(description))
    with torch.no_grad():
        logits = network(normalised(*IMAGENET))[0]
    check(bundle_of(random_export, segmenter, adapter, capsys), logits)
