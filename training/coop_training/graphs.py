"""The networks as deployed: bytes in, bytes out. Cast, resize, softmax, argmax, clamp and rounding are in the graph."""

from __future__ import annotations

from torch import Tensor, nn

from coop_training.adapters import OnnxSegmenter
from coop_training.model import Cooperative
from coop_training.pixels import to_bytes, to_float, to_mask


class _Graph(nn.Module):
    def __init__(self, model: Cooperative, height: int, width: int) -> None:
        super().__init__()
        self.model, self.height, self.width = model, height, width


class SegmenterGraph(_Graph):
    """image → probabilities, mask_raw."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self.model.segmenter, OnnxSegmenter):
            return self.model.segmenter.segment(image)
        probabilities = self.model.segmenter(to_float(image)).softmax(1)
        return probabilities, to_mask(probabilities, self.height, self.width)[0]


class RefinementGraph(_Graph):
    """image, probabilities → refined_probabilities, mask, confidence, condition, strength."""

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        refined, estimate = self.model.refine(to_float(image), probabilities)
        published = estimate.weakened()
        return refined, *to_mask(refined, self.height, self.width), published.posterior, published.strength


class RestorationGraph(_Graph):
    """image, refined_probabilities → restored."""

    def forward(self, image: Tensor, refined_probabilities: Tensor) -> Tensor:
        return to_bytes(self.model.restore(to_float(image), refined_probabilities)[0])


class CooperativeGraph(_Graph):
    """image → mask_raw, mask, confidence, restored, condition, strength: the three in one."""

    def __init__(self, model: Cooperative, height: int, width: int) -> None:
        super().__init__(model, height, width)
        self.segmenter = SegmenterGraph(model, height, width)
        self.refinement = RefinementGraph(model, height, width)
        self.restoration = RestorationGraph(model, height, width)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        probabilities, mask_raw = self.segmenter(image)
        refined, mask, confidence, condition, strength = self.refinement(image, probabilities)
        return mask_raw, mask, confidence, self.restoration(image, refined), condition, strength


GRAPHS: dict[str, type[_Graph]] = {
    "segmenter": SegmenterGraph,
    "refinement": RefinementGraph,
    "restoration": RestorationGraph,
    "cooperative": CooperativeGraph,
}
"""By name in the bundle."""
