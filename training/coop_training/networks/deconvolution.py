"""Undoing Gaussian blur: the Wiener filter against the width that the blur is taken to have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from coop_perception.degradations import CONDITIONS
from coop_training.networks.condition import Estimate
from coop_training.networks.filtering import correlate_rows
from coop_training.strength import parameter_of

BLUR = "gaussian_blur"
STRENGTHS = 25
"""Strengths, evenly spaced in 0..1, whose filters are held: one in between gets a blend of its two neighbours'."""
WIDEST_FINE = 7.0
"""Standard deviation in pixels above which a blur is undone on a coarser grid: what it leaves of an image fits."""
COARSE = 4
"""How many times coarser."""
NOISE_TO_SIGNAL = 1e-3
COARSE_NOISE_TO_SIGNAL = 3e-3
"""Of the Wiener filters: 8-bit rounding and natural images' departure from the model. On training frames within 0.1 dB
of the best of eight tried, at every width from 1.4 pixels."""
RADIUS = 16
"""Of the filters, in pixels of their grid."""

_FREQUENCIES = 256
_CORNER = 1e-5
"""Squared frequency (cycles per pixel) below which natural images' power density stops to rise as 1/f²."""


class Deconvolution(nn.Module):
    """Convolves with the Wiener filter against the blur that the image is taken to have; else leaves it as it is.

    Nothing of it is learnt: what the condition's strength means in pixels is known. Inverse filters as wide as these
    would take a network of small kernels many layers.

    The Wiener filter against a Gaussian blur, though the blur is separable, is not: a separable one amplifies noise
    where both frequencies are high as much as where one is. As a difference of two separable ones it is almost whole.

    Args:
        conditions: names of the conditions. Without a Gaussian blur among them no image is filtered.

    Inputs: image [N,3,H,W]; the condition, as it is known. Filtered as far as blur is likelier than all else together,
    for what amplifies does more harm where it is wrong than good where it is right.
    Output: image [N,3,H,W], not clamped.
    """

    fine: Tensor
    coarse: Tensor

    def __init__(self, conditions: Sequence[str]) -> None:
        super().__init__()
        self.blur = conditions.index(BLUR) if BLUR in conditions else None
        widths = blur_widths()
        self.fines = sum(width <= WIDEST_FINE for width in widths)
        fine = [wiener_terms(width, NOISE_TO_SIGNAL) for width in widths[: self.fines]]
        coarse = [wiener_terms(width / COARSE, COARSE_NOISE_TO_SIGNAL, COARSE) for width in widths[self.fines :]]
        for name, terms in (("fine", fine), ("coarse", coarse)):
            self.register_buffer(name, torch.from_numpy(np.stack(terms, 1)).float(), persistent=False)

    def forward(self, image: Tensor, known: Estimate) -> Tensor:
        if self.blur is None:
            return image
        sure = F.relu(2 * known.posterior[:, self.blur : self.blur + 1].float() - 1)
        fine, coarse = (sure * hats(known.strength.float())).split([self.fines, STRENGTHS - self.fines], 1)
        small = F.avg_pool2d(image.float(), COARSE)
        correction = filtered(small, self.coarse, coarse) - small
        up = F.interpolate(correction, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return filtered(image, self.fine, fine) + up


def blur_widths() -> list[float]:
    """Standard deviations in pixels of the blurs whose strengths are evenly spaced. [STRENGTHS]"""
    levels = CONDITIONS[BLUR].levels
    return [parameter_of(index / (STRENGTHS - 1), levels) for index in range(STRENGTHS)]


def hats(strength: Tensor) -> Tensor:
    """Strengths [N] in 0..1 as weights of the two nearest of evenly spaced ones, of sum 1. [N,STRENGTHS]"""
    nodes = torch.arange(STRENGTHS, device=strength.device, dtype=strength.dtype)
    return F.relu(1 - (strength[:, None] * (STRENGTHS - 1) - nodes).abs())


def filtered(image: Tensor, bank: Tensor, weights: Tensor) -> Tensor:
    """Each image [N,3,h,w] convolved with a blend of filters by its weights [N,F]; what these lack of 1 is identity's.

    bank: [2,F,taps], of which the first's separable filter is added and the second's taken away. Output: float32.
    """
    # No matrix product, which autocast would round.
    added, taken = (weights[:, :, None] * bank[:, None]).sum(2)
    rest = F.pad(1 - weights.sum(1, keepdim=True), (RADIUS, RADIUS))
    padded = F.pad(image, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
    return _separable(padded, added + rest) - _separable(padded, taken)


def _separable(padded: Tensor, taps: Tensor) -> Tensor:
    rows = correlate_rows(padded, taps)
    return correlate_rows(rows.transpose(2, 3), taps).transpose(2, 3)


def wiener_terms(sigma: float, noise_to_signal: float, coarse: int = 1) -> NDArray[np.float64]:
    """Taps u, v [2, 2·RADIUS+1] so that u⊗u - v⊗v is nearest to the Wiener filter against a Gaussian of `sigma`.

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
    cosines = np.cos(2 * np.pi * np.outer(frequency, np.arange(RADIUS + 1)))
    cosines[:, 1:] *= 2
    basis, to_basis = np.linalg.qr(weight[:, None] * cosines)
    values, vectors = np.linalg.eigh(basis.T @ (wanted * np.outer(weight, weight)) @ basis)
    halves = [np.linalg.solve(to_basis, vectors[:, i]) * np.sqrt(abs(values[i])) for i in (-1, 0)]
    taps = np.stack([np.concatenate([half[:0:-1], half]) * np.sign(half[0]) for half in halves])
    added, taken = taps.sum(1)
    return np.asarray(taps / np.sqrt(added**2 - taken**2), np.float64)
