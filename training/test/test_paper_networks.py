"""The paper's generators: contract, what is normalised away and what is not, and what networks cost."""

from __future__ import annotations

import pytest
import torch
from coop_training.config import TrainConfig
from coop_training.model import Cooperative
from coop_training.networks.cost import Cost, cost
from coop_training.networks.estimate import Estimate
from coop_training.networks.paper import Generator, PaperRefinement, PaperRestoration
from coop_training.summary import deployed_costs
from torch import nn

CLASSES, CONDITIONS = 11, 2


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def known() -> Estimate:
    ones = torch.ones(1, CONDITIONS)
    return Estimate(ones, ones, ones[:, 0])


def test_contract() -> None:
    image, probabilities = torch.rand(2, 3, 40, 64), torch.rand(2, CLASSES, 10, 16).softmax(1)
    frame = torch.rand(2, 3, 41, 66)
    with torch.inference_mode():
        logits, presence, strength = PaperRefinement(CLASSES, CONDITIONS)(image, probabilities)
        assert logits.shape == (2, CLASSES, 40, 64)
        assert presence.shape == strength.shape == (2, CONDITIONS)
        restored = PaperRestoration(CLASSES, CONDITIONS)(frame, image, logits.softmax(1), known())
        assert restored.shape == frame.shape
        assert 0 <= restored.min() < restored.max() <= 1


def test_both_inputs_count() -> None:
    image, probabilities = torch.rand(1, 3, 32, 32), torch.rand(1, CLASSES, 8, 8).softmax(1)
    refinement, restoration = PaperRefinement(CLASSES, CONDITIONS), PaperRestoration(CLASSES, CONDITIONS)
    with torch.inference_mode():
        for results in (
            [refinement(x, p)[0] for x, p in ((image, probabilities), (1 - image, probabilities))],
            [refinement(x, p)[0] for x, p in ((image, probabilities), (image, probabilities.flip(1)))],
            [restoration(x, image, p, known()) for x, p in ((image, probabilities), (1 - image, probabilities))],
            [restoration(x, image, p, known()) for x, p in ((image, probabilities), (image, probabilities.flip(1)))],
        ):
            assert not torch.allclose(*results, atol=1e-4)


def test_generator_is_edgeconnects() -> None:
    """10.77 million parameters where EdgeConnect has 4 inputs and 3 outputs; normalised per image."""
    generator = Generator(1, 3)
    assert sum(parameter.numel() for parameter in generator.parameters()) == 10_774_595
    assert sum(isinstance(module, nn.InstanceNorm2d) for module in generator.modules()) == 5 + 2 * 8
    assert sum(isinstance(m, nn.Conv2d) and m.dilation == (2, 2) for m in generator.modules()) == 8
    generator.double()  # kernels sum in another order for another number of images
    image, probabilities = torch.rand(2, 3, 16, 16).double(), torch.rand(2, 1, 4, 4).double()
    with torch.inference_mode():
        torch.testing.assert_close(generator(image, probabilities)[0][:1], generator(image[:1], probabilities[:1])[0])


def test_condition_head_sees_brightness_and_contrast() -> None:
    """Which instance normalisation takes from the generator itself."""
    refinement, image = PaperRefinement(2, CONDITIONS), torch.rand(1, 3, 16, 16)
    probabilities = torch.full((1, 2, 4, 4), 0.5)
    with torch.inference_mode():
        estimates = [refinement(x, probabilities)[1] for x in (image, image + 0.3, 0.5 + (image - 0.5) / 2)]
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
    config = TrainConfig(name="test", variant="paper", stages={"segmenter": {"steps": 1}})
    model = Cooperative(config)
    model.refinement, model.restoration = PaperRefinement(classes, CONDITIONS), PaperRestoration(classes, CONDITIONS)
    model.classes, model.conditions = classes, CONDITIONS
    costs = deployed_costs(model)
    total = (costs["refinement"].macs + costs["restoration"].macs) / 1e9
    assert total == pytest.approx(gmacs, rel=0.005)
    assert total == pytest.approx(838, rel=0.04)
