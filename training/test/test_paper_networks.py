"""The paper's generators: contract, what is normalised away and what is not, and what networks cost."""

from __future__ import annotations

import pytest
import torch
from coop_training.networks.cost import Cost, cost
from coop_training.networks.paper import Generator, PaperRefinement, PaperRestoration
from torch import nn

CLASSES, NAMES = 11, ("clear", "fog", "rain")
CONDITIONS = len(NAMES)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_contract() -> None:
    image, probabilities = torch.rand(2, 3, 40, 64), torch.rand(2, CLASSES, 10, 16).softmax(1)
    with torch.inference_mode():
        logits, condition, strength, _ = PaperRefinement(CLASSES, NAMES)(image, probabilities)
        assert logits.shape == (2, CLASSES, 40, 64)
        assert (condition.shape, strength.shape) == ((2, CONDITIONS), (2,))
        restored, condition, strength = PaperRestoration(CLASSES, NAMES)(image, logits.softmax(1))
        assert restored.shape == image.shape
        assert (condition.shape, strength.shape) == ((2, CONDITIONS), (2,))
        assert 0 <= restored.min() < restored.max() <= 1


def test_both_inputs_count() -> None:
    image, probabilities = torch.rand(1, 3, 32, 32), torch.rand(1, CLASSES, 8, 8).softmax(1)
    with torch.inference_mode():
        for network in (PaperRefinement(CLASSES, NAMES), PaperRestoration(CLASSES, NAMES)):
            result = network(image, probabilities)[0]
            assert not torch.allclose(network(1 - image, probabilities)[0], result, atol=1e-4)
            assert not torch.allclose(network(image, probabilities.flip(1))[0], result, atol=1e-4)


def test_generator_is_edgeconnects() -> None:
    """10.77 million parameters where EdgeConnect has 4 inputs and 3 outputs; normalised per image."""
    generator = Generator(1, 3, CONDITIONS)
    own = sum(parameter.numel() for parameter in generator.head.parameters())
    assert sum(parameter.numel() for parameter in generator.parameters()) - own == 10_774_595
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in generator.modules()) == 5 + 2 * 8
    assert sum(isinstance(m, nn.Conv2d) and m.dilation == (2, 2) for m in generator.modules()) == 8
    image, probabilities = torch.rand(2, 3, 16, 16), torch.rand(2, 1, 4, 4)
    with torch.inference_mode():
        torch.testing.assert_close(generator(image, probabilities)[0][:1], generator(image[:1], probabilities[:1])[0])


def test_condition_head_sees_brightness_and_contrast() -> None:
    """Which instance normalisation takes from the generator itself."""
    generator, image = Generator(1, 3, CONDITIONS), torch.rand(1, 3, 16, 16)
    probabilities = torch.ones(1, 1, 4, 4)
    with torch.inference_mode():
        estimates = [generator(x, probabilities)[1] for x in (image, image + 0.3, 0.5 + (image - 0.5) / 2)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (estimates[one] - estimates[other]).abs().max() > 1e-4


def test_cost_of_a_known_network() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 5, 2, 2), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 4, 10))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    parameters = (3 * 25 + 1) * 8 + 2 * 8 + (192 + 1) * 10
    assert cost(network, (torch.rand(2, 3, 12, 8),)) == Cost(parameters, 2 * (3 * 25 * 8 * 6 * 4 + 192 * 10))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("classes", "gmacs"), [(11, 825), (19, 864)])
def test_cost_of_the_pair(classes: int, gmacs: float) -> None:
    """At 512x1024, CamVid's and Cityscapes' classes: about twice 419 GMACs."""
    inputs = torch.empty(1, 3, 512, 1024), torch.empty(1, classes, 128, 256)
    pair = PaperRefinement(classes, NAMES), PaperRestoration(classes, NAMES)
    total = sum(cost(network, inputs).macs for network in pair)
    assert total / 1e9 == pytest.approx(gmacs, rel=0.005)
    assert total / 1e9 == pytest.approx(838, rel=0.04)
