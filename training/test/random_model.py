"""Networks with random weights, which a broken graph cannot agree with by chance, and the bundle of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from coop_training.checkpoint import save_weights
from coop_training.config import InputConfig, StageConfig, StagesConfig, TrainConfig
from coop_training.export_check import check_views
from coop_training.model import Cooperative
from coop_training.pixels import to_float
from torch import nn

STAGE = StageConfig(steps=1)
CONFIG = TrainConfig(
    name="random",
    input=InputConfig(height=96, smallest=64, largest=1024, sensor=64),
    conditions=("gaussian_noise", "fog"),
    stages=StagesConfig(segmenter=STAGE, refinement=STAGE, restoration=STAGE, joint=STAGE),
    licence="of the weights",
)
RECORD = {"config": {}, "stages": {"joint": {"hours": 1.5, "device": "cpu", "versions": {"torch": "2.13.0"}}}}


def random_model() -> Cooperative:
    """As if trained: masks depend on the image in every layer, and refinement and restoration are no identity."""
    torch.manual_seed(0)
    model = Cooperative(CONFIG)
    model.refinement.start_from(model.segmenter)
    for name, parameter in model.named_parameters():
        if not parameter.any():
            small = "restoration" in name or "familiar" in name  # it is to trust, or restoration would change nothing
            nn.init.normal_(parameter, std=0.05 if small else 0.2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.2)
    model.eval()
    views = check_views(CONFIG.conditions, CONFIG.input.sizes)
    image = to_float(torch.from_numpy(views[0]["image"]))
    spread(model.segmenter.classify, lambda: model.segmenter(image))
    spread(model.refinement.correction, lambda: model.refinement(image, model.segmenter(image).softmax(1)))
    return model


@torch.no_grad()
def spread(layer: nn.Conv2d, run: Callable[[], object]) -> None:
    """Let a layer's outputs have mean 0 and standard deviation 3, channel by channel, in a network run on a frame."""
    found: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: found.append(output))
    run()
    handle.remove()
    std, mean = torch.std_mean(found[0], (0, 2, 3))
    layer.weight *= (3 / std)[:, None, None, None]
    layer.bias.copy_((layer.bias - mean) * 3 / std)


def save_random_model(path: Path) -> None:
    facts = {"stage": "joint", "commit": "abc", "config": CONFIG.model_dump_json()}
    save_weights(path, random_model().parts(), {**facts, "record": json.dumps(RECORD)})
