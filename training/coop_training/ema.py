"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Moving average of networks' weights: less noisy than the last step's, which restoration gains most from.

    After step t (from 0) the average moves by 1 - min(decay, (1 + t) / (10 + t)) towards the weights: it forgets the
    first, bad ones soon (the schedule of TensorFlow's `ExponentialMovingAverage`). Running statistics are averaged too;
    integers (counters) are copied.

    Args:
        networks: by name; the average starts as a copy of their weights.
        decay: 0 (no averaging) to below 1.
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.networks, self.decay = networks, decay
        self.weights = {
            name: {key: tensor.clone() for key, tensor in network.state_dict().items()}
            for name, network in networks.items()
        }
        """Averaged state by network's name."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the networks' weights as step `step` left them."""
        away = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, network in self.networks.items():
            state = network.state_dict()
            floats = [key for key, tensor in state.items() if tensor.is_floating_point()]
            averages = self.weights[name]
            torch._foreach_lerp_([averages[key] for key in floats], [state[key] for key in floats], away)
            for key in state.keys() - floats:
                averages[key].copy_(state[key])

    def apply(self) -> None:
        """Give the networks the averaged weights."""
        for name, network in self.networks.items():
            network.load_state_dict(self.weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within, the networks have the averaged weights."""
        own = {
            name: {key: tensor.clone() for key, tensor in network.state_dict().items()}
            for name, network in self.networks.items()
        }
        self.apply()
        try:
            yield
        finally:
            for name, network in self.networks.items():
                network.load_state_dict(own[name])

    def load(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from averages saved earlier, of the same networks."""
        for name, averages in self.weights.items():
            for key, tensor in averages.items():
                tensor.copy_(weights[name][key])
