"""Undoing Gaussian blur: inverse filters, blended by how wide the blur is taken to be."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed
from coop_training.networks.condition import OCTAVES, Estimate
from coop_training.networks.filtering import correlate_rows

COARSE = 4
"""How many times coarser the grid is on which wide blurs are undone: what they leave of an image fits on it."""
FINE_SIGMAS = tuple(float(sigma) for sigma in np.geomspace(0.6, 4.5, 12))
COARSE_SIGMAS = tuple(float(sigma) for sigma in np.geomspace(4.0, 18.0, 9))
"""Standard deviations in pixels of the blurs that are inverted: what lies between is a blend of two neighbours."""
NOISE_TO_SIGNAL = (1e-3, 1e-2)
"""Of the Wiener filters: 8-bit rounding and natural images' departure from the model, and what else adds noise."""
STRENGTHS = 25
"""Strengths, evenly spaced, at which a condition's filters are learnt."""
HAT = 10.0
"""Sum of a strength's weights in the table: more than 1, since each place in it is met rarely and should move far."""
RADIUS = 16
"""Of the filters, in pixels of their grid."""

_HIDDEN = 64
_OF_NONE = 12.0
"""Logit that no filter starts with, the others zero."""
_FREQUENCIES = 256
_CORNER = 1e-5
"""Squared frequency (cycles per pixel) below which natural images' power density stops to rise as 1/f²."""


class Deconvolution(nn.Module):
    """Undoes narrow blurs at full resolution and wide ones at a quarter of it; starts all but as identity.

    The image is convolved with blends of a bank's Wiener filters. A network of small kernels would need many layers for
    inverse filters as wide as these. Which ones follows from the embedding and, since a few percent off the width cost
    much of the gain, from the spectrum itself and from how strong each condition is taken to be.

    Args:
        conditions: number of conditions K, `clear` included.

    Inputs: image [N,3,H,W]; embedding [N,EMBEDDING]; spectrum [N,3·OCTAVES] as `gradient_spectrum` gives it; the
    condition, as it is known.
    Output: image [N,3,H,W], not clamped.
    """

    def __init__(self, conditions: int) -> None:
        super().__init__()
        self.width = nn.Sequential(nn.Linear(EMBEDDING + 3 * OCTAVES, _HIDDEN), nn.ReLU())
        self.fine = InverseFilter(FINE_SIGMAS, conditions)
        self.coarse = InverseFilter(tuple(sigma / COARSE for sigma in COARSE_SIGMAS), conditions, COARSE)

    def forward(self, image: Tensor, embedding: Tensor, spectrum: Tensor, known: Estimate) -> Tensor:
        width = self.width(torch.cat([embedding, spectrum], 1))
        by_strength = (known.posterior[:, :, None] * hats(known.strength)[:, None]).flatten(1)
        small = F.avg_pool2d(image.float(), COARSE)
        correction = self.coarse(small, width, by_strength) - small
        up = F.interpolate(correction, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return self.fine(image, width, by_strength) + up


def hats(strength: Tensor) -> Tensor:
    """Strengths [N] in 0..1 as weights of the two nearest of evenly spaced ones. [N,STRENGTHS]

    A linear map of them is a table, where small layers would need long to learn what changes within hundredths.
    """
    nodes = torch.arange(STRENGTHS, device=strength.device, dtype=strength.dtype)
    return HAT * F.relu(1 - (strength[:, None] * (STRENGTHS - 1) - nodes).abs())


class InverseFilter(nn.Module):
    """Convolves with the difference of two separable filters, each a blend of a bank's.

    The Wiener filter against a Gaussian blur, though the blur is separable, is not: a separable one amplifies noise
    where both frequencies are high as much as where one is. Of two terms it becomes almost whole.

    No filter is one of the bank: with a gate beside the blend instead, a filter against too wide a blur, opened half,
    came to stand for the right one.

    Args:
        sigmas: of the bank, in pixels of this grid.
        conditions: number of conditions K, `clear` included.
        coarse: how many pixels of the image one of this grid is the mean of; the result is interpolated back linearly.

    Inputs: image [N,3,h,w]; what is known of the width [N,_HIDDEN], and by condition and strength [N,K·STRENGTHS].
    Output: float32 [N,3,h,w].
    """

    bank: Tensor

    def __init__(self, sigmas: tuple[float, ...], conditions: int, coarse: int = 1) -> None:
        super().__init__()
        kernels = [wiener_terms(sigma, ratio, RADIUS, coarse) for ratio in NOISE_TO_SIGNAL for sigma in sigmas]
        none = np.zeros_like(kernels[0])
        none[0, RADIUS] = 1
        kernels.append(none)
        # On float16's grid, as bundles store what is large.
        self.register_buffer("bank", torch.from_numpy(np.stack(kernels, 1)).half().float(), persistent=False)
        self.blend = zeroed(nn.Linear(_HIDDEN, len(kernels)))
        self.table = zeroed(nn.Linear(conditions * STRENGTHS, len(kernels), bias=False))
        with torch.no_grad():
            self.blend.get_parameter("bias")[-1] = _OF_NONE

    def forward(self, image: Tensor, width: Tensor, by_strength: Tensor) -> Tensor:
        shares = (self.blend(width) + self.table(by_strength)).softmax(1)
        added, taken = (shares @ taps for taps in self.bank)
        padded = F.pad(image, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
        return _separable(padded, added) - _separable(padded, taken)


def _separable(padded: Tensor, taps: Tensor) -> Tensor:
    rows = correlate_rows(padded, taps)
    return correlate_rows(rows.transpose(2, 3), taps).transpose(2, 3)


def wiener_terms(sigma: float, noise_to_signal: float, radius: int, coarse: int = 1) -> NDArray[np.float64]:
    """Taps u, v [2, 2·radius+1] so that u⊗u - v⊗v is nearest to the Wiener filter against a Gaussian of `sigma`.

    The filter is G·S/(G²·S+r), G the Gaussian's frequency response, S the power density of natural images, 1/f² (Field,
    1987), of mean 1, and r the noise-to-signal ratio (Wiener, 1949). On a grid `coarse` times coarser than the image it
    also makes up for what taking means and interpolating cost. Nearest: by the error that the difference makes in the
    blurred image and its noise, of all pairs of filters of this radius, by an eigendecomposition.
    """
    frequency = np.fft.fftfreq(_FREQUENCIES)
    of_image = frequency / coarse
    squared = of_image**2 + _CORNER
    mean_power = np.mean(1 / (frequency[:, None] ** 2 + frequency**2 + _CORNER))
    power = 1 / (squared[:, None] + squared - _CORNER) / mean_power
    blur = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    response = np.outer(blur, blur)
    wiener = response * power / (response**2 * power + noise_to_signal)
    passed = np.sinc(frequency) ** 3 / np.sinc(of_image) ** 3  # means of pixels, then linear interpolation
    wanted = 1 + (wiener - 1) / np.outer(passed, passed)
    # The power density as a product, for an eigendecomposition: 1/f^1.5 of each, which did better than 1/f.
    along_axis = squared**-0.75
    weight = np.sqrt(blur**2 * along_axis / along_axis.mean() + noise_to_signal) * passed
    cosines = np.cos(2 * np.pi * np.outer(frequency, np.arange(radius + 1)))
    cosines[:, 1:] *= 2
    basis, to_basis = np.linalg.qr(weight[:, None] * cosines)
    values, vectors = np.linalg.eigh(basis.T @ (wanted * np.outer(weight, weight)) @ basis)
    halves = [np.linalg.solve(to_basis, vectors[:, i]) * np.sqrt(abs(values[i])) for i in (-1, 0)]
    taps = np.stack([np.concatenate([half[:0:-1], half]) * np.sign(half[0]) for half in halves])
    added, taken = taps.sum(1)
    return np.asarray(taps / np.sqrt(added**2 - taken**2), np.float64)
