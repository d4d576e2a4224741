"""What pixels at the camera's own resolution say of blur, aberration, noise and compression: statistics of a crop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.blocks import quantiles

TILES = 2
"""Tiles of a side. The crop is a mosaic of 2x2 tiles, from the frame's four quarters: a radial aberration shows
away from the middle alone, and a tile of sky says nothing."""
OCTAVES = 4
BEYOND, BACK, UPRIGHT = 16, 6, 4
"""Displacements in pixels at which red and blue are compared with green: to the left, to the right, up and down."""
_BLOCK = 8
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.98)
_SHIFTS = BACK + 1 + BEYOND + 2 * UPRIGHT + 1
_LOCAL = 10
SENSOR_STATISTICS = 5 * OCTAVES + _LOCAL * len(_QUANTILES) + 2 * _BLOCK + 2 * TILES**2 * _SHIFTS


def sensor_statistics(sensor: Tensor) -> Tensor:
    """[N,3,T,T] RGB in 0..1, T divisible by 2·8·TILES → [N,SENSOR_STATISTICS], each about -3..3."""
    tiles = sensor.unflatten(2, (TILES, -1)).unflatten(4, (TILES, -1)).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.flatten(0, 2)  # [N·TILES²,3,t,t]
    count = TILES**2
    means = torch.cat([gradient_spectrum(tiles), blockiness(tiles)], 1).unflatten(0, (-1, count)).mean(1)
    return torch.cat([means, local_quantiles(tiles), misalignment(tiles).unflatten(0, (-1, count)).flatten(1)], 1)


def gradient_spectrum(image: Tensor) -> Tensor:
    """How strongly luminance varies at each scale and in each direction: how wide a blur is, and which way it goes.

    Logarithms of the mean absolute differences of pixels, of the image and of its means over 2x2, 4x4, ... pixels.
    [N,3,t,t] → [N,5·OCTAVES].
    """
    x, means = image.mean(1, keepdim=True), []
    for octave in range(OCTAVES):
        if octave:
            x = F.avg_pool2d(x, 2)
        means.append(torch.cat(differences(x), 1).abs().mean((2, 3)))
    return (torch.cat(means, 1) + 0.001).log() + 4


def differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Within each 2x2 pixels: down, across, along both diagonals, and the mixed second one. [...,h-1,w-1]

    Subtractions, for a convolution is computed in half the digits on some hardware, and nearly equal pixels are what
    this is about.
    """
    upper, lower = x[..., :-1, :], x[..., 1:, :]
    here, right, below, beyond = upper[..., :-1], upper[..., 1:], lower[..., :-1], lower[..., 1:]
    across = right - here
    return below - here, across, beyond - here, right - below, beyond - below - across


def local_quantiles(tiles: Tensor) -> Tensor:
    """Quantiles over blocks of 4x4 pixels, of all tiles of an image together: of the darkest and brightest value, and
    of logarithms of mean and largest absolute differences, in luminance and in colour. Noise shows in the calmest
    blocks, a blur in the liveliest, impulses in the largest differences. [N·TILES²,3,t,t] → [N,10·quantiles]."""
    luminance = tiles.mean(1, keepdim=True)
    down, across, _, _, mixed = differences(torch.cat([luminance, tiles[:, ::2] - luminance], 1))
    sizes = F.pad(torch.cat([mixed, down[:, :1], across[:, :1]], 1).abs(), (0, 1, 0, 1))
    logarithms = torch.cat([F.avg_pool2d(sizes, 4), 0.3 * F.max_pool2d(sizes[:, :3], 4)], 1)
    darkest, brightest = -F.max_pool2d(-tiles.amin(1, keepdim=True), 4), F.max_pool2d(tiles.amax(1, keepdim=True), 4)
    maps = torch.cat([4 * darkest - 2, 4 * brightest - 2, (logarithms + 0.003).log() + 3.5], 1)
    blocks = maps.unflatten(0, (-1, TILES**2)).transpose(1, 2).flatten(2)  # [N,10,blocks of all tiles]
    return quantiles(blocks, _QUANTILES).flatten(1)


def blockiness(image: Tensor) -> Tensor:
    """Mean luminance step at each of the eight column and row phases, over their mean, less one, in rising order: a
    codec's 8x8 grid shows in the last, wherever it begins. [N,3,t,t] → [N,16]."""
    luminance = image.mean(1)
    x = torch.stack([luminance, luminance.transpose(1, 2)], 1)
    blocks = (x.shape[3] - 1) // _BLOCK
    steps = (x[..., 1 : blocks * _BLOCK + 1] - x[..., : blocks * _BLOCK]).abs().mean(2)
    phases = steps.unflatten(2, (blocks, _BLOCK)).mean(2)
    return (phases / (phases.mean(2, keepdim=True) + 1e-4) - 1).sort(2).values.flatten(1)


def misalignment(image: Tensor) -> Tensor:
    """How badly red and blue fit green when moved by each of the displacements: least at the one that they have.

    Mean absolute difference of the channels' gradients on every second line, over its mean of all displacements, less
    one: about -1 (fits perfectly) to 0.5. [N,3,t,t] → [N,2·displacements].
    """
    across = image[..., ::2, 1:] - image[..., ::2, :-1]
    down = (image[..., 1:, ::2] - image[..., :-1, ::2]).transpose(2, 3)
    costs = []
    for gradient, back, beyond in ((across, BACK, BEYOND), (down, UPRIGHT, UPRIGHT)):
        width = gradient.shape[-1] - back - beyond
        moved = torch.arange(back + beyond + 1)[:, None] + torch.arange(width)
        others = gradient[:, ::2][..., moved.to(image.device)]  # [N,2,lines,displacements,width]
        green = gradient[:, 1:2, :, None, back : back + width]
        of_shifts = (others - green).abs().mean((2, 4))
        costs.append(of_shifts / (of_shifts.mean(2, keepdim=True) + 1e-4) - 1)
    return torch.cat(costs, 2).flatten(1)
