"""A bundle's networks in eager PyTorch, as they were before they were exported."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from coop_training.config import TrainConfig
from coop_training.graphs import GRAPHS
from coop_training.model import Cooperative
from torch import nn

from coop_perception.contracts import Bundle


def eager_networks(bundle: Bundle) -> Mapping[str, nn.Module]:
    """By name in the bundle: from its training's configuration, FP32, with as many threads as there are cores.

    The weights are random: a bundle has none that PyTorch could load, and how long a convolution takes does not depend
    on them.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Cooperative(TrainConfig.model_validate(bundle.facts["training"]["config"]))
    return {name: graph(model, bundle.height, bundle.width).eval() for name, graph in GRAPHS.items()}
