"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from coop_training.ema import WeightAverage
from torch import nn


def network() -> nn.BatchNorm1d:
    """One weight, one bias, two running statistics and a counter."""
    return nn.BatchNorm1d(1)


def test_the_first_steps_are_soon_forgotten_and_later_ones_slowly() -> None:
    net = network()
    average = WeightAverage({"net": net}, 0.9)
    expected = float(net.weight.item())
    for step in range(200):
        value = float(step % 7)
        nn.init.constant_(net.weight, value)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.weights["net"]["weight"].item() == pytest.approx(expected, rel=1e-5)


def test_running_statistics_are_averaged_and_counters_copied() -> None:
    net = network()
    average = WeightAverage({"net": net}, 0.5)
    net.running_mean.fill_(1.0)
    net.num_batches_tracked.fill_(5)
    average.update(100)
    assert average.weights["net"]["running_mean"].item() == pytest.approx(0.5)
    assert average.weights["net"]["num_batches_tracked"].item() == 5


def test_without_decay_it_is_the_weights() -> None:
    net = network()
    average = WeightAverage({"net": net}, 0.0)
    nn.init.constant_(net.weight, 0.3)
    average.update(0)
    assert torch.equal(average.weights["net"]["weight"], net.weight)


def test_applied_and_loaded() -> None:
    net = network()
    average = WeightAverage({"net": net}, 0.999)
    nn.init.constant_(net.weight, 8.0)
    average.update(0)
    other = WeightAverage({"net": network()}, 0.999)
    other.load(average.weights)
    other.apply()
    assert other.networks["net"].weight.item() == pytest.approx(0.1 * 1 + 0.9 * 8)
    assert net.weight.item() == 8.0  # the average is apart from what is trained
    with average.applied():
        assert net.weight.item() == pytest.approx(0.1 * 1 + 0.9 * 8)
    assert net.weight.item() == 8.0
