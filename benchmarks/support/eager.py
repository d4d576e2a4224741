"""A bundle's networks in eager PyTorch, as they were before they were exported."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from coop_training.config import TrainConfig
from coop_training.graphs import GRAPHS
from coop_training.model import Cooperative
from numpy.typing import NDArray
from torch import Tensor, nn

from coop_perception.contracts import CONTRACTS, Bundle, network_size
from coop_perception.views import scene_view, sensor_view


def eager_networks(bundle: Bundle) -> Mapping[str, nn.Module]:
    """By name in the bundle: from its training's configuration, FP32, with as many threads as there are cores.

    The weights are random: a bundle has none that PyTorch could load, and how long a convolution takes does not depend
    on them.
    """
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = Cooperative(TrainConfig.model_validate(bundle.facts["training"]["config"])).eval()
    return {name: graph(model).eval() for name, graph in GRAPHS.items()}


def eager_pass(bundle: Bundle) -> Callable[[NDArray[np.uint8]], dict[str, NDArray[np.generic]]]:
    """Every tensor of a frame's way through the networks, one after the other, as one writes it first."""
    networks = eager_networks(bundle)

    def run(frame: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        image = scene_view(frame, network_size(bundle.input, *frame.shape[:2]))
        sensor = sensor_view(frame, bundle.input.sensor)
        views = {"frame": frame, "image": image, "sensor": sensor}
        values: dict[str, Tensor] = {name: torch.from_numpy(array)[None] for name, array in views.items()}
        with torch.no_grad():
            for name, contract in CONTRACTS.items():
                found = networks[name](*(values[key] for key in contract.inputs))
                values |= zip(contract.outputs, found if isinstance(found, tuple) else (found,), strict=True)
        return {name: value.numpy() for name, value in values.items()}

    return run
