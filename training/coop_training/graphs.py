"""The networks as deployed: bytes in, bytes out. Cast, softmax, argmax, clamp and rounding are in the graph."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional as F

from coop_perception.contracts import CONTRACTS, QUARTER, STRIDE
from coop_training.adapters import OnnxSegmenter
from coop_training.model import Cooperative
from coop_training.networks.estimate import Estimate
from coop_training.onnx_graphs import Axes, export_graph, store_weights_halved
from coop_training.pixels import level, to_float, to_mask


class _Graph(nn.Module):
    """Inputs and outputs as `coop_perception.contracts.CONTRACTS` has them."""

    def __init__(self, model: Cooperative) -> None:
        super().__init__()
        self.model = model


class SegmenterGraph(_Graph):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.model.segmenter, OnnxSegmenter):
            return self.model.segmenter.segment(image)
        probabilities = self.model.segmenter(to_float(image)).softmax(1)
        return probabilities, to_mask(probabilities, QUARTER)[0]


class RefinementGraph(_Graph):
    def forward(self, image: Tensor, probabilities: Tensor, sensor: Tensor) -> tuple[Tensor, ...]:
        refined, estimate = self.model.refine(to_float(image), probabilities, to_float(sensor))
        mask, probability = to_mask(refined, self.model.stride)
        confidence = level(255 * self.model.calibration(probability, estimate.presence))
        if self.model.stride < QUARTER:
            refined = F.avg_pool2d(refined, QUARTER // self.model.stride)
        return refined, mask, confidence, estimate.presence, estimate.strength, estimate.familiarity


class RestorationGraph(_Graph):
    def forward(
        self,
        frame: Tensor,
        image: Tensor,
        refined_probabilities: Tensor,
        presence: Tensor,
        strength: Tensor,
        familiarity: Tensor,
    ) -> Tensor:
        given = to_float(frame)
        estimate = Estimate(presence, strength, familiarity)
        change = self.model.change(given, to_float(image), refined_probabilities, estimate)
        # Added to the bytes, which any precision holds: where nothing changes, the frame comes out as it went in.
        return level(frame.float() + 255 * change.permute(0, 2, 3, 1))


GRAPHS: dict[str, type[_Graph]] = {
    "segmenter": SegmenterGraph,
    "refinement": RefinementGraph,
    "restoration": RestorationGraph,
}
"""By name in the bundle."""


def _axes() -> dict[str, Axes]:
    batch, rows, columns = (Dim(name, min=1, max=256) for name in ("batch", "rows", "columns"))
    each = {0: batch}
    image = {0: batch, 1: STRIDE * rows, 2: STRIDE * columns}
    quarter = {0: batch, 2: STRIDE // QUARTER * rows, 3: STRIDE // QUARTER * columns}
    return {
        "frame": {0: batch, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC},
        "image": image,
        "sensor": each,
        **dict.fromkeys(("probabilities", "refined_probabilities"), quarter),
        **dict.fromkeys(("presence", "strength", "familiarity"), each),
    }


AXES = _axes()
"""Of the graphs' inputs, those that are dynamic."""


def export_graphs(model: Cooperative, sensor: int) -> dict[str, onnx.ModelProto]:
    """The graphs of a bundle, by name, with weights stored as float16, which `halve_weights` has made them fit for.

    Args:
        model: in evaluation mode, on the CPU.
        sensor: side of the sensor view, in pixels.
    """
    graphs: dict[str, onnx.ModelProto] = {}
    given = example(model, sensor)
    for name, contract in CONTRACTS.items():
        if name == "segmenter" and isinstance(model.segmenter, OnnxSegmenter):
            graphs[name] = model.segmenter.graph()
            continue
        network = GRAPHS[name](model).eval()
        axes = {key: AXES[key] for key in contract.inputs}
        graphs[name] = export_graph(network, [given[key] for key in contract.inputs], axes, contract.outputs)
        store_weights_halved(graphs[name], [weight for weight, _ in network.named_parameters()])
    return graphs


def example(model: Cooperative, sensor: int) -> dict[str, Tensor]:
    """Inputs to trace graphs with: no two axes that may differ are equally long, and no two inputs share memory, which
    would make one of them."""
    batch, (height, width) = 2, (4 * STRIDE, 5 * STRIDE)
    pixels = {
        "frame": (batch, 151, 213, 3),
        "image": (batch, height, width, 3),
        "sensor": (batch, sensor, sensor, 3),
    }
    numbers = {
        **dict.fromkeys(
            ("probabilities", "refined_probabilities"), (batch, model.classes, height // QUARTER, width // QUARTER)
        ),
        **dict.fromkeys(("presence", "strength"), (batch, model.conditions)),
        "familiarity": (batch,),
    }
    return {
        **{name: torch.zeros(shape, dtype=torch.uint8) for name, shape in pixels.items()},
        **{name: torch.full(shape, 0.5) for name, shape in numbers.items()},
    }
