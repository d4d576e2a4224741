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
from coop_training.networks.precision import full_precision
from coop_training.strength import parameter_of

BLUR = "gaussian_blur"
STRENGTHS = 25
"""Strengths, evenly spaced in 0..1, that filters are held for: one in between gets a blend of its two neighbours'."""
WIDEST_FINE = 3.6
"""Standard deviation in pixels above which a blur is undone on a coarser grid: what it leaves of an image fits."""
COARSE = 4
"""How many times coarser."""
NOISE_TO_SIGNAL = 9e-3
COARSE_NOISE_TO_SIGNAL = 1.5e-2
COARSE_HUE_NOISE_TO_SIGNAL = 5e-2
"""Power of the noise, which is 8-bit rounding and natural images' departure from the model, over an image's at one
cycle per pixel, were it to go on as 1/f²: of luminance, on the fine and on the coarse grid, and of what a channel
differs from it. The first two are three times what is best where the blur is a Gaussian of the width that it is taken
to have: what is no such blur is amplified less."""
AMPLIFICATION = (
    *((0.0, 1.3), (0.0625, 1.5), (0.1875, 4.1), (0.3125, 4.9), (0.4375, 5.1)),
    *((0.5625, 4.8), (0.6875, 4.7), (0.8125, 3.4), (0.9375, 2.1), (1.0, 1.8)),
)
"""By strength, the most by which sharpening raised the mean absolute Laplacian of luminance in 99 of 100 frames that a
Gaussian had blurred (900 frames of 8 bits, of three cameras' kinds). Other blurs leave finer detail than a Gaussian of
their width, and it is raised more."""
TOO_FAR = 1.15
"""Times that: what is amplified more is left as it was."""
RANGE = (-0.05, 1.05)
"""Of what is sharpened: beyond it there is no image."""
GENTLE_NOISE_TO_SIGNAL = 5e-2
"""Of luminance on the coarse grid, where masks are what an image is filtered for: chosen by those of validation frames,
as `models/street` has them, which had been trained with filters that went less far."""
RADIUS = 16
"""Of the fine grid's filters, in pixels."""
SIGNS = (1, -1, 1, -1)
"""Of the separable filters of whose sum one of those is made."""

LEAST_ROUGHNESS = 1e-4
_FREQUENCIES = 256
_CORNER = 1e-5
"""Squared frequency (cycles per pixel) below which natural images' power density stops to rise as 1/f²."""
_FLOOR = 1e-3
"""Of what a filter's error weighs at any frequency, the blurred image having power 1 in the mean: there is noise."""


class Deconvolution(nn.Module):
    """Applies the Wiener filter against the blur that the image is taken to have; else leaves the image as it is.

    Nothing of it is learnt: what the condition's strength means in pixels is known. Inverse filters as wide as these
    would take a network of small kernels many layers.

    Where detail is finest, luminance alone is sharpened. The mean of three channels, each rounded to 8 bits by itself,
    has a third of the rounding's power, which is what limits how far a blur can be undone; and of a natural image's
    detail little is in its hues.

    Args:
        conditions: names of the conditions. Without a Gaussian blur among them no image is filtered.
        gentle: whether wide blurs are undone less far, as is better for masks.

    Inputs: image [N,3,H,W]; the condition, as it is known; the image as the camera gave it, rounding and all, where
    something was filtered from it before. Filtered as far as blur is likelier than all else together,
    for what amplifies does more harm where it is wrong than good where it is right. What comes out rougher than undone
    Gaussian blurs do (AMPLIFICATION) gives way to the image as it was.
    Output: image [N,3,H,W] within RANGE; without blur as it was.
    """

    fine: Tensor
    log_widths: Tensor
    plausible: Tensor

    def __init__(self, conditions: Sequence[str], gentle: bool = False) -> None:
        super().__init__()
        self.coarse_noise = GENTLE_NOISE_TO_SIGNAL if gentle else COARSE_NOISE_TO_SIGNAL
        self.blur = conditions.index(BLUR) if BLUR in conditions else None
        widths = blur_widths()
        self.fines = sum(width <= WIDEST_FINE for width in widths)
        fine = [wiener_terms(width) for width in widths[: self.fines]]
        plausible = np.interp(np.linspace(0, 1, STRENGTHS), *np.transpose(AMPLIFICATION))
        for name, values in (("fine", np.stack(fine, 1)), ("log_widths", np.log(widths)), ("plausible", plausible)):
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def forward(self, image: Tensor, known: Estimate, given: Tensor | None = None) -> Tensor:
        if self.blur is None:
            return image
        with full_precision(image):  # what is amplified must not have been rounded before
            image = image.float()
            sure = F.relu(2 * known.posterior[:, self.blur].float() - 1)
            places = hats(known.strength.float())
            fine = places[:, : self.fines]
            on_fine = fine.sum(1)
            detail = sharpening(image.mean(1, keepdim=True), self.fine, fine / on_fine[:, None].clamp(min=1e-3))
            width = (places * self.log_widths).sum(1).exp()
            shape = coarse_sharpening(F.avg_pool2d(image, COARSE), width, self.coarse_noise)
            shape = F.interpolate(shape, size=image.shape[-2:], mode="bilinear", align_corners=False)
            on_fine, on_coarse = (share[:, None, None, None] for share in (sure * on_fine, sure * (1 - on_fine)))
            sharp = (image + on_fine * detail + on_coarse * shape).clamp(*RANGE)
            raised = roughness(sharp) / roughness(image if given is None else given).clamp(min=LEAST_ROUGHNESS)
            excess = raised / (places * self.plausible).sum(1)
            share = ((TOO_FAR - excess) / (TOO_FAR - 1)).clamp(0, 1)
            return image + share[:, None, None, None] * (sharp - image)


def roughness(image: Tensor) -> Tensor:
    """Mean absolute Laplacian of luminance. [N,3,H,W] → [N]"""
    x = image.mean(1)
    inside = x[:, 1:-1, 1:-1]
    around = x[:, :-2, 1:-1] + x[:, 2:, 1:-1] + x[:, 1:-1, :-2] + x[:, 1:-1, 2:]
    return (4 * inside - around).abs().mean((1, 2))


def blur_widths() -> list[float]:
    """Standard deviations in pixels of the blurs whose strengths are evenly spaced. [STRENGTHS]"""
    levels = CONDITIONS[BLUR].levels
    return [parameter_of(index / (STRENGTHS - 1), levels) for index in range(STRENGTHS)]


def hats(strength: Tensor) -> Tensor:
    """Strengths [N] in 0..1 as weights of the two nearest of evenly spaced ones, of sum 1. [N,STRENGTHS]"""
    nodes = torch.arange(STRENGTHS, device=strength.device, dtype=strength.dtype)
    return F.relu(1 - (strength[:, None] * (STRENGTHS - 1) - nodes).abs())


def sharpening(luminance: Tensor, bank: Tensor, weights: Tensor) -> Tensor:
    """What a blend, by weights [N,F], of filters adds to each luminance [N,1,H,W].

    bank: [T,F,taps], as `wiener_terms` gives them.
    """
    padded = mirrored(mirrored(luminance, 3), 2)
    taps = (weights[:, :, None] * bank[:, None]).sum(2)
    terms = [_separable(padded, of_term) for of_term in taps]
    return sum(sign * term for sign, term in zip(SIGNS, terms, strict=True)) - luminance


def mirrored(image: Tensor, axis: int) -> Tensor:
    """Padded by RADIUS on both sides of an axis, the border repeated, as cameras' images are blurred here."""
    size = image.shape[axis]
    places = torch.arange(-RADIUS, size + RADIUS, device=image.device)
    # 0..size-1, then back: of period 2·size, in case an image is smaller than the radius.
    places = (2 * places + 1).remainder(4 * size)
    return image.index_select(axis, torch.minimum(places, 4 * size - places) // 2)


def _separable(padded: Tensor, taps: Tensor) -> Tensor:
    rows = correlate_rows(padded, taps)
    return correlate_rows(rows.transpose(2, 3), taps).transpose(2, 3)


def coarse_sharpening(small: Tensor, width: Tensor, noise: float) -> Tensor:
    """What the Wiener filter against Gaussians of `width` [N] pixels adds to means of COARSE x COARSE pixels [N,3,h,w].

    noise: noise-to-signal ratio of luminance. By the discrete cosine transform, of which mirroring at borders is part:
    exact, and on so small a grid cheap. Makes up for what taking means and interpolating between them cost.
    """
    rows, columns = (cosines(size, small) for size in small.shape[-2:])
    spectrum = rows @ small @ columns.transpose(0, 1)
    # Cycles per pixel of the image.
    down, across = (
        torch.arange(size, device=small.device, dtype=small.dtype) / (2 * COARSE * size) for size in small.shape[-2:]
    )
    squared = down[:, None] ** 2 + across**2
    blur = (-2 * torch.pi**2 * width[:, None, None] ** 2 * squared).exp()
    passed = interpolated(down)[:, None] * interpolated(across)
    of_luminance, of_hue = (
        (blur / (blur**2 + ratio * (squared + _CORNER)) - 1) / passed for ratio in (noise, COARSE_HUE_NOISE_TO_SIGNAL)
    )
    luminance = spectrum.mean(1, keepdim=True)
    spectrum = of_luminance[:, None] * luminance + of_hue[:, None] * (spectrum - luminance)
    return rows.transpose(0, 1) @ spectrum @ columns


def cosines(size: int, like: Tensor) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II, Ahmed et al., 1974), a matrix [size,size]."""
    places = np.arange(size)
    matrix = np.cos(np.pi / size * places[:, None] * (places + 0.5)) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    # Ready-made, it is a constant of an exported graph; TensorRT has no double precision to compute it in.
    return torch.from_numpy(matrix.astype(np.float32)).to(like.device)


def interpolated(frequency: Tensor) -> Tensor:
    """Share of an oscillation that is left by means of COARSE pixels and linear interpolation between them."""
    return torch.sinc(COARSE * frequency) ** 3 / torch.sinc(frequency) ** 3


def wiener_terms(sigma: float) -> NDArray[np.float64]:
    """Taps u_k [T, 2·RADIUS+1], as many as SIGNS, so that Σ ±u_k⊗u_k is nearest to the Wiener filter against a blur.

    A Gaussian is separable, its Wiener filter is not: a separable one amplifies noise where both frequencies are high
    as much as where one is. The filter is G·S/(G²·S+r), G the Gaussian's frequency response, `sigma` its standard
    deviation in pixels, S = 1/f² the power density of natural images (Field, 1987), r the noise's (Wiener, 1949).
    Nearest: by the error that the difference makes in the blurred image and its noise, of all sums of so many separable
    filters of this radius, by an eigendecomposition.
    """
    frequency = np.fft.fftfreq(_FREQUENCIES)
    squared = frequency**2
    blur = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
    response = np.outer(blur, blur)
    inverse_power = squared[:, None] + squared + _CORNER
    wiener = response / (response**2 + NOISE_TO_SIGNAL * inverse_power)
    # The power density as a product, for an eigendecomposition: 1/f^1.5 of each, which did better than 1/f.
    along_axis = (squared + _CORNER) ** -0.75
    weight = np.sqrt(blur**2 * along_axis / along_axis.mean() + _FLOOR)
    waves = np.cos(2 * np.pi * np.outer(frequency, np.arange(RADIUS + 1)))
    waves[:, 1:] *= 2
    basis, to_basis = np.linalg.qr(weight[:, None] * waves)
    values, vectors = np.linalg.eigh(basis.T @ (wiener * np.outer(weight, weight)) @ basis)
    strongest = np.argsort(-np.abs(values))[: len(SIGNS)]
    # Their signs alternate, but for those of very narrow blurs that do not matter.
    scales = np.sqrt(np.maximum(values[strongest] * SIGNS, 0))
    halves = np.linalg.solve(to_basis, vectors[:, strongest]).T * scales[:, None]
    halves *= np.sign(halves[:, :1])
    taps = np.concatenate([halves[:, :0:-1], halves], 1)
    return np.asarray(taps / np.sqrt(np.dot(SIGNS, taps.sum(1) ** 2)), np.float64)
