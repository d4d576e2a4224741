"""Undoing impulse noise: what differs from the median of its neighbours as impulses do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed


class ImpulseRemoval(nn.Module):
    """Replaces a value by the median of its neighbourhood, the more surely the further off and the more extreme it is.

    How surely is a logistic function of the value's distance from the median and of whether it is the least or the
    greatest there is, with coefficients from the embedding (a switching median filter; Sun and Neuvo, 1994). Almost
    identity at the start.

    Inputs: image [N,3,H,W] in 0..1; embedding [N,EMBEDDING]. Output: image [N,3,H,W].
    """

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = zeroed(nn.Linear(EMBEDDING, 3))
        nn.init.constant_(self.coefficients.bias[:1], -7.0)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        change = median_of_medians(image) - image
        # 1 at 0 and 255 of 255, 0 from two grey levels away.
        extreme = F.relu(1 - 128 * image * (1 - image))
        always, far, ends = self.coefficients(embedding)[:, :, None, None].split(1, 1)
        return image + change * torch.sigmoid(always + 10 * far * change.abs() + ends * extreme)


def median_of_medians(image: Tensor) -> Tensor:
    """Of each 3x3 neighbourhood the median of its columns' medians: nearly its median, for a fifth of the comparisons.

    [N,C,H,W] → same; borders repeated.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    columns = _median(padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :])
    return _median(columns[..., :-2], columns[..., 1:-1], columns[..., 2:])


def _median(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
