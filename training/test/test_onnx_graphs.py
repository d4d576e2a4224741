"""ONNX graphs out of networks, and their weights put back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from coop_training.bundle_weights import put_weights
from coop_training.checkpoint import CheckpointError
from coop_training.onnx_graphs import export_graph, save_graph
from torch import Tensor, nn
from torch.export import Dim

from coop_perception.engines.onnxruntime import OnnxRuntimeEngine


class Alike(nn.Module):
    """Layers of equal weights and of biases that are all 0, which an optimiser may merge or leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.pixels = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4))
        for layer in (self.first, self.second, self.third, self.pixels):
            nn.init.eye_(layer.weight) if isinstance(layer, nn.Linear) else nn.init.dirac_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.third((self.second(self.first(x).relu()) * self.scale).relu())
        found: Tensor = self.pixels(y[:, :, None, None])
        return found


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    proto = export_graph(Alike().eval(), [torch.rand(2, 4)], {"x": {0: Dim.DYNAMIC}}, ["y"])
    save_graph(proto, tmp_path / "alike.onnx")
    return tmp_path / "alike.onnx"


def test_each_weight_stays_one_of_its_own(graph: Path) -> None:
    torch.manual_seed(0)
    network = Alike().eval()
    held = {tensor.name for tensor in onnx.load(graph).graph.initializer}
    assert held >= {name for name, _ in network.named_parameters()}
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    save_graph(put_weights(graph, "", network), graph)
    x = torch.randn(3, 4)
    found = OnnxRuntimeEngine(graph).run({"x": x.numpy()}, ["y"])["y"]
    np.testing.assert_allclose(found, network(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_weights_that_a_graph_lacks_are_named(graph: Path) -> None:
    network = Alike()
    network.register_parameter("added", nn.Parameter(torch.zeros(4)))
    with pytest.raises(CheckpointError, match=r"alike.onnx: does not hold added, .* write the bundle anew"):
        put_weights(graph, "", network)
