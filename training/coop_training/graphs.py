"""The networks as deployed: bytes in, bytes out. Cast, resize, softmax, argmax, clamp and rounding are in the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.model import Cooperative


def to_float(image: Tensor) -> Tensor:
    """uint8 [N,H,W,3] RGB → float [N,3,H,W] in 0..1."""
    return image.permute(0, 3, 1, 2).float() / 255


def to_bytes(image: Tensor) -> Tensor:
    """float [N,3,H,W] in about 0..1 → uint8 [N,H,W,3]; clamped and rounded before the cast, which would wrap."""
    return (image.permute(0, 2, 3, 1) * 255).clamp(0, 255).round().to(torch.uint8)


def to_mask(probabilities: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """float [N,C,h,w] → mask and confidence uint8 [N,H,W] (255 = certain), from bilinearly upsampled probabilities."""
    full = F.interpolate(probabilities, size=(height, width), mode="bilinear", align_corners=False)
    confidence, mask = full.max(1)
    return mask.to(torch.uint8), (confidence * 255).clamp(0, 255).round().to(torch.uint8)


class _Graph(nn.Module):
    def __init__(self, model: Cooperative, height: int, width: int) -> None:
        super().__init__()
        self.model, self.height, self.width = model, height, width


class SegmenterGraph(_Graph):
    """image → probabilities, mask_raw."""

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.model.segmenter(to_float(image)).softmax(1)
        return probabilities, to_mask(probabilities, self.height, self.width)[0]


class RefinementGraph(_Graph):
    """image, probabilities → refined_probabilities, mask, confidence, condition, strength."""

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        logits, condition, strength = self.model.refinement(to_float(image), probabilities)
        refined = logits.softmax(1)
        return refined, *to_mask(refined, self.height, self.width), condition.softmax(1), strength


class RestorationGraph(_Graph):
    """image, refined_probabilities → restored."""

    def forward(self, image: Tensor, refined_probabilities: Tensor) -> Tensor:
        return to_bytes(self.model.restoration(to_float(image), refined_probabilities)[0])


class CooperativeGraph(_Graph):
    """image → mask_raw, mask, confidence, restored, condition, strength: the three in one."""

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x = to_float(image)
        probabilities = self.model.segmenter(x).softmax(1)
        logits, condition, strength = self.model.refinement(x, probabilities)
        refined = logits.softmax(1)
        restored = to_bytes(self.model.restoration(x, refined)[0])
        mask_raw = to_mask(probabilities, self.height, self.width)[0]
        return mask_raw, *to_mask(refined, self.height, self.width), restored, condition.softmax(1), strength


GRAPHS: dict[str, type[_Graph]] = {
    "segmenter": SegmenterGraph,
    "refinement": RefinementGraph,
    "restoration": RestorationGraph,
    "cooperative": CooperativeGraph,
}
"""By name in the bundle."""
