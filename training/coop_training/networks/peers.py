"""What cooperation is measured against, in the refinement's place: other ways from a degraded image to a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from coop_training.networks.segmenter import Segmenter


class RestoreThenSegment(nn.Module):
    """Cleans the image first, then runs the existing segmenter on it.

    Inputs, outputs: as `Refinement`; probabilities are ignored. It has no weights of its own: the two networks are
    those that the model has already.
    """

    def __init__(self, segmenter: nn.Module, restoration: nn.Module) -> None:
        super().__init__()
        self.networks = (segmenter, restoration)  # a tuple: not registered, or they would be saved twice

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        segmenter, restoration = self.networks
        restored, condition, strength = restoration(image, torch.full_like(probabilities, 1 / probabilities.shape[1]))
        return segmenter(restored.clamp(0, 1)), condition, strength


class RobustSegmenter(nn.Module):
    """The existing segmenter, trained further on degraded images.

    Inputs, outputs: as `Refinement`; probabilities are ignored, and the condition and strength are all zero.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.segmenter = Segmenter(classes)
        self.conditions = conditions

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nothing = image.new_zeros(image.shape[0], self.conditions + 1)
        return self.segmenter(image), nothing[:, 1:], nothing[:, 0]
