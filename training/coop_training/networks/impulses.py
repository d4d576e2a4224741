"""Undoing impulse noise: what differs from the median of its neighbours as impulses do."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed

PASSES = 2
"""Further ones, each of which goes by what the one before has filled in. Without any, what is left of an error is on
training frames twice as much, and hardly less with a third."""
_MEDIAN_WEIGHT = 0.05
"""Against 1 of a neighbour that is no impulse: what stands in where all of them are."""


class ImpulseRemoval(nn.Module):
    """Replaces a value by what its surroundings tell, the more surely the further off and the more extreme it is.

    How surely is a logistic function of the value's distance from the median and of whether it is the least or the
    greatest there is, with coefficients from the embedding (a switching median filter; Sun and Neuvo, 1994). Almost
    identity at the start.

    Args:
        constant_hue: whether `filled` takes a value's place, or the median, which smooths noise besides.

    Inputs: image [N,3,H,W] in 0..1; embedding [N,EMBEDDING]. Output: image [N,3,H,W].
    """

    def __init__(self, constant_hue: bool) -> None:
        super().__init__()
        self.constant_hue = constant_hue
        self.coefficients = zeroed(nn.Linear(EMBEDDING, 3))
        nn.init.constant_(self.coefficients.bias[:1], -7.0)

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        median = median_of_medians(image)
        # 1 at 0 and 255 of 255, 0 from two grey levels away.
        extreme = F.relu(1 - 128 * image * (1 - image))
        always, far, ends = self.coefficients(embedding)[:, :, None, None].split(1, 1)
        hit = torch.sigmoid(always + 10 * far * (median - image).abs() + ends * extreme)
        return filled(image, hit, median) if self.constant_hue else image + hit * (median - image)


def filled(image: Tensor, hit: Tensor, median: Tensor) -> Tensor:
    """The image with each value, as far as it is hit (0..1), replaced by the mean of its four neighbours plus that by
    which the pixel's other channels exceed the mean of theirs: one channel has the detail of another, as colours
    change less than brightness does (constant hue, Cok, 1987). [N,C,H,W] each → [N,C,H,W]."""
    trust = 1 - hit
    # At first the neighbours may be impulses themselves.
    mean = (_around(trust * image) + _MEDIAN_WEIGHT * median) / (_around(trust) + _MEDIAN_WEIGHT)
    result = image + hit * (mean + _detail_of_others(image - mean, trust) - image)
    for _ in range(PASSES):
        mean = _around(result) / 4
        result = image + hit * (mean + _detail_of_others(result - mean, trust) - image)
    return result


def _around(x: Tensor) -> Tensor:
    """Sum of the four neighbours; borders repeated."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return across + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]


def _detail_of_others(detail: Tensor, trust: Tensor) -> Tensor:
    """Mean detail of a pixel's other channels, each as far as it is trusted."""
    trusted = detail * trust
    of_others, number = (x.sum(1, keepdim=True) - x for x in (trusted, trust))
    return of_others / (number + _MEDIAN_WEIGHT)


def median_of_medians(image: Tensor) -> Tensor:
    """Of each 3x3 neighbourhood the median of its columns' medians: nearly its median, for a fifth of the comparisons.

    [N,C,H,W] → same; borders repeated.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    columns = _median(padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :])
    return _median(columns[..., :-2], columns[..., 1:-1], columns[..., 2:])


def _median(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
