"""A bundle's networks in eager PyTorch, as they were before they were exported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import torch
from coop_training.config import TrainConfig
from coop_training.graphs import GRAPHS
from coop_training.model import Cooperative
from torch import nn

from coop_perception.contracts import Bundle
from coop_perception.engines.frame_pass import Feed, Image, outputs_of


def eager_networks(bundle: Bundle) -> Mapping[str, nn.Module]:
    """By name in the bundle: from its training's configuration, FP32, with as many threads as there are cores.

    The weights are random: a bundle has none that PyTorch could load, and how long a convolution takes does not depend
    on them.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Cooperative(TrainConfig.model_validate(bundle.facts["training"]["config"])).eval()
    return {name: graph(model).eval() for name, graph in GRAPHS.items()}


def eager_pass(bundle: Bundle) -> Callable[[Image], Feed]:
    """Every tensor of a frame's way through the networks, one after the other, as one writes it first."""
    networks = eager_networks(bundle)

    def run(name: str, given: Feed, wanted: Sequence[str]) -> Feed:
        with torch.no_grad():
            found = networks[name](*map(torch.from_numpy, given.values()))
        outputs = found if isinstance(found, tuple) else (found,)
        return {key: value.numpy() for key, value in zip(wanted, outputs, strict=True)}

    return lambda frame: outputs_of(bundle, frame, run)
