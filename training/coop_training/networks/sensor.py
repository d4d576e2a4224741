"""What pixels at the camera's own resolution say of blur, aberration, noise and compression: statistics of a crop."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TILES = 2
"""Tiles of a side. The crop is a mosaic of 2x2 tiles, from the frame's four quarters: a radial aberration shows
away from the middle alone, and a tile of sky says nothing."""
OCTAVES = 4
BEYOND, BACK, UPRIGHT = 16, 6, 4
"""Displacements in pixels at which red and blue are compared with green: to the left, to the right, up and down."""
_BLOCK = 8
_QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.98)
_DIRECTIONS = 5
_SHIFTS = BACK + 1 + BEYOND + 2 * UPRIGHT + 1
_LOCAL = 10
SENSOR_STATISTICS = _DIRECTIONS * OCTAVES + _LOCAL * len(_QUANTILES) + 2 * _BLOCK + 2 * TILES**2 * _SHIFTS


def sensor_statistics(sensor: Tensor) -> Tensor:
    """[N,3,T,T] RGB in 0..1, T divisible by 2·8·TILES → [N,SENSOR_STATISTICS], each about -3..3."""
    tiles = sensor.unflatten(2, (TILES, -1)).unflatten(4, (TILES, -1)).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.flatten(0, 2)  # [N·TILES²,3,t,t]
    count = TILES**2
    spectrum = gradient_spectrum(tiles).unflatten(0, (-1, count)).mean(1)
    local = local_quantiles(tiles, len(sensor))
    blocks = blockiness(tiles).unflatten(0, (-1, count)).mean(1)
    return torch.cat([spectrum, local, blocks, misalignment(tiles).unflatten(0, (-1, count)).flatten(1)], 1)


def gradient_spectrum(image: Tensor) -> Tensor:
    """How strongly luminance varies at each scale and in each direction: how wide a blur is, and which way it goes.

    Logarithms of the mean absolute differences down, across, along both diagonals and of the mixed second one, of the
    image and of its means over 2x2, 4x4, ... pixels. [N,3,t,t] → [N,5·OCTAVES].
    """
    x, logarithms = image.mean(1, keepdim=True), []
    for octave in range(OCTAVES):
        if octave:
            x = F.avg_pool2d(x, 2)
        down, across = x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]
        falling, rising = x[..., 1:, 1:] - x[..., :-1, :-1], x[..., :-1, 1:] - x[..., 1:, :-1]
        mixed = down[..., 1:] - down[..., :-1]
        logarithms += [(d.abs().mean((1, 2, 3)) + 0.001).log() + 4 for d in (down, across, falling, rising, mixed)]
    return torch.stack(logarithms, 1)


def local_quantiles(tiles: Tensor, number: int) -> Tensor:
    """Quantiles over blocks of 4x4 pixels, of all tiles of an image together: of the darkest and brightest value, and
    of logarithms of mean and largest absolute differences, in luminance and in colour. Noise shows in the calmest
    blocks, a blur in the liveliest, impulses in the largest differences. [N·tiles,3,t,t] → [N,10·quantiles]."""
    luminance = tiles.mean(1, keepdim=True)
    colour = tiles - luminance
    pairs = []
    for x in (luminance, colour[:, :1], colour[:, 2:]):
        mixed = x[..., 1:, 1:] - x[..., 1:, :-1] - x[..., :-1, 1:] + x[..., :-1, :-1]
        mixed = F.pad(mixed.abs(), (0, 1, 0, 1))
        pairs += [F.avg_pool2d(mixed, 4), 0.3 * F.max_pool2d(mixed, 4)]
    down = F.pad((luminance[..., 1:, :] - luminance[..., :-1, :]).abs(), (0, 0, 0, 1))
    across = F.pad((luminance[..., 1:] - luminance[..., :-1]).abs(), (0, 1))
    pairs += [F.avg_pool2d(down, 4), F.avg_pool2d(across, 4)]
    logarithms = (torch.cat(pairs, 1) + 0.003).log() + 3.5
    extremes = torch.cat(
        [-F.max_pool2d(-tiles.amin(1, keepdim=True), 4), F.max_pool2d(tiles.amax(1, keepdim=True), 4)], 1
    )
    maps = torch.cat([4 * extremes - 2, logarithms], 1)
    blocks = maps.unflatten(0, (number, -1)).transpose(1, 2).flatten(2)  # [N,10,blocks of all tiles]
    rising = blocks.sort(2).values
    return torch.cat([rising[..., round(q * (rising.shape[2] - 1))] for q in _QUANTILES], 1)


def blockiness(image: Tensor) -> Tensor:
    """Mean luminance step at each of the eight column and row phases, over their mean, less one, in rising order: a
    codec's 8x8 grid shows in the last, wherever it begins. [N,3,t,t] → [N,16]."""
    luminance = image.mean(1)
    steps = []
    for x in (luminance, luminance.transpose(1, 2)):
        blocks = (x.shape[2] - 1) // _BLOCK
        difference = (x[..., 1 : blocks * _BLOCK + 1] - x[..., : blocks * _BLOCK]).abs().mean(1)
        phases = difference.unflatten(1, (blocks, _BLOCK)).mean(1)
        steps.append((phases / (phases.mean(1, keepdim=True) + 1e-4) - 1).sort(1).values)
    return torch.cat(steps, 1)


def misalignment(image: Tensor) -> Tensor:
    """How badly red and blue fit green when moved by each of the displacements: least at the one that they have.

    Mean absolute difference of the channels' gradients on every second line, over its mean of all displacements, less
    one: about -1 (fits perfectly) to 0.5. [N,3,t,t] → [N,2·displacements].
    """
    across = image[..., ::2, 1:] - image[..., ::2, :-1]
    down = (image[..., 1:, ::2] - image[..., :-1, ::2]).transpose(2, 3)
    costs = []
    for channel in (0, 2):
        for gradient, back, beyond in ((across, BACK, BEYOND), (down, UPRIGHT, UPRIGHT)):
            width = gradient.shape[-1] - back - beyond
            green = gradient[:, 1, :, back : back + width]
            of_shifts = torch.stack(
                [
                    (gradient[:, channel, :, at : at + width] - green).abs().mean((1, 2))
                    for at in range(back + beyond + 1)
                ],
                1,
            )
            costs.append(of_shifts / (of_shifts.mean(1, keepdim=True) + 1e-4) - 1)
    return torch.cat(costs, 1)
