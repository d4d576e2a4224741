"""Undoing Gaussian blur: inverse filters, blended by what the condition embedding says."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed
from coop_training.networks.filtering import correlate_rows

SIGMAS = tuple(float(sigma) for sigma in np.geomspace(0.7, 18.0, 14))
"""Standard deviations in pixels of the blurs that are inverted: what lies between is a blend of two neighbours."""
NOISE_TO_SIGNAL = (2e-3, 2e-2)
"""Of the Wiener filters: 8-bit rounding alone, and what JPEG or a little noise adds."""
RADIUS = 48


class Deconvolution(nn.Module):
    """Convolves rows, then columns, with a Wiener filter against Gaussian blur, which is separable.

    The kernel is the identity's and, as strongly as the embedding says, a blend of a bank's; it starts as identity. A
    network of small kernels would need many layers for an inverse filter as wide as this.

    Inputs: image [N,3,H,W]; embedding [N,EMBEDDING]. Output: image [N,3,H,W], not clamped.
    """

    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        kernels = [wiener_kernel(sigma, ratio, RADIUS) for ratio in NOISE_TO_SIGNAL for sigma in SIGMAS]
        # On float16's grid, as bundles store what is large.
        self.register_buffer("bank", torch.from_numpy(np.stack(kernels)).half().float(), persistent=False)
        self.blend = nn.Linear(EMBEDDING, len(kernels))
        self.gate = zeroed(nn.Linear(EMBEDDING, 1))

    def forward(self, image: Tensor, embedding: Tensor) -> Tensor:
        gate = self.gate(embedding)
        taps = gate * (self.blend(embedding).softmax(1) @ self.bank) + F.pad(1 - gate, (RADIUS, RADIUS))
        padded = F.pad(image, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
        rows = correlate_rows(padded, taps)
        return correlate_rows(rows.transpose(2, 3), taps).transpose(2, 3)


def wiener_kernel(sigma: float, noise_to_signal: float, radius: int) -> NDArray[np.float64]:
    """Taps [2·radius+1], sum 1, of G/(G²+r): the Wiener filter against a Gaussian of `sigma` pixels.

    G is the Gaussian's frequency response, r the power of noise over that of the signal (Wiener, 1949).
    """
    response = np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(2048)) ** 2)
    kernel = np.fft.fftshift(np.fft.ifft(response / (response**2 + noise_to_signal)).real)
    taps = kernel[1024 - radius : 1024 + radius + 1]
    return np.asarray(taps / taps.sum(), np.float64)
