"""A tiny SegFormer with random weights, saved as transformers does, becomes a segmenter of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from coop_training.adapters import AdapterError, OnnxSegmenter
from coop_training.adapters.segformer import convert

from coop_perception.classes import SemanticClass

NAMES = ("road", "sky", "car")
CLASSES = tuple(SemanticClass(i, name, (i, i, i)) for i, name in enumerate(NAMES))
CONFIG = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [8, 16],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "initializer_range": 0.3,
    "id2label": dict(enumerate(NAMES)),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**CONFIG))
    network.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_gives_what_transformers_gives(checkpoint: Path, tmp_path: Path) -> None:
    description = convert(checkpoint, tmp_path / "segformer.onnx", "Apache-2.0")
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(checkpoint, local_files_only=True).eval()
    segmenter = OnnxSegmenter(description, CLASSES, 96, 128)
    for size in ((96, 128), (64, 96)):  # frames, and crops as training sees them
        image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8))
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        with torch.no_grad():
            expected = network(((image.permute(0, 3, 1, 2) / 255) - mean) / std).logits.softmax(1)
        probabilities, mask = segmenter.segment(image)
        assert expected.std() > 0.05
        torch.testing.assert_close(probabilities, expected, rtol=0, atol=1e-4)
        full = torch.nn.functional.interpolate(expected, size=size, mode="bilinear", align_corners=False)
        assert (mask == full.argmax(1)).float().mean() > 0.999
    assert yaml.safe_load(description.read_text())["licence"] == "Apache-2.0"
    with pytest.raises(AdapterError, match=r"segformer\.yaml: exists"):
        convert(checkpoint, tmp_path / "segformer.onnx")


def test_checkpoints_that_are_none(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"holds no config\.json"):
        convert(tmp_path, tmp_path / "a.onnx")
    encoder = transformers.SegformerModel(transformers.SegformerConfig(**CONFIG))
    encoder.save_pretrained(tmp_path / "encoder")
    with pytest.raises(AdapterError, match=r"encoder: is no SegFormer that segments: it lacks .* decode_head"):
        convert(tmp_path / "encoder", tmp_path / "a.onnx")
    (checkpoint / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(AdapterError, match="checkpoint: cannot be loaded as a SegFormer"):
        convert(checkpoint, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
