"""SN-PatchGAN: shape, receptive locality, and the bound that spectral normalisation gives."""

from __future__ import annotations

import pytest
import torch
from coop_training.model import VARIANTS
from coop_training.networks.cost import cost
from coop_training.networks.discriminator import Discriminator
from torch import nn


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("height", "width"), [(128, 192), (72, 88), (30, 17)])
def test_one_score_vector_per_patch(height: int, width: int) -> None:
    scores = Discriminator(5, (4, 4, 4, 4, 4, 6))(torch.rand(2, 5, height, width))
    assert scores.shape == (2, 6, -(-height // 64), -(-width // 64))


def test_paper_widths_are_yu_et_als() -> None:
    network = Discriminator(3, VARIANTS["paper"].widths)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 256, 256, 256]
    assert {(c.kernel_size, c.stride) for c in convolutions} == {((5, 5), (2, 2))}


def test_weights_have_spectral_norm_one() -> None:
    network = Discriminator(3, (8, 8, 8, 8, 8, 8))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.parametrizations.weight.original, std=3.0)
    for _ in range(50):  # training mode: each pass is a step of the power iteration
        network(torch.rand(1, 3, 64, 64))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            largest = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2).item()
            assert largest == pytest.approx(1, rel=0.02)


def test_evaluation_does_not_move_the_estimate() -> None:
    network = Discriminator(3, (4, 4, 4, 4, 4, 4)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network(torch.rand(1, 3, 64, 64))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_scores_are_float32_under_autocast() -> None:
    network, x = Discriminator(3, (4, 4, 4, 4, 4, 4)).eval(), torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        scores = network(x)
    torch.testing.assert_close(scores, network(x))


def test_narrow_one_costs_a_tenth() -> None:
    image = torch.empty(1, 3, 512, 1024)
    narrow, wide = (cost(Discriminator(3, VARIANTS[name].widths), (image,)) for name in ("fast", "paper"))
    assert narrow.macs < 0.1 * wide.macs
