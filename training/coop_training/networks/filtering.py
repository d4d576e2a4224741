"""Filters that differ from image to image, as matrix products: a convolution has one kernel for a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from coop_training.networks.precision import full_precision

BLOCK = 64
"""Pixels of a row that are filtered by one product: the matrix grows with it, the overlap of blocks shrinks."""


def correlate_rows(image: Tensor, taps: Tensor) -> Tensor:
    """Σ_k taps[n,k]·image[n,c,y,x+k]: image [N,C,H,W+K-1], taps [N,K] → float32 [N,C,H,W].

    In full precision under autocast too: what a deconvolution amplifies must not have been rounded before.
    """
    shifts = taps.shape[1]
    width = image.shape[-1] - shifts + 1
    blocks = -(-width // BLOCK)
    rows = F.pad(image.float().flatten(1, 2), (0, blocks * BLOCK - width))
    overlapping = torch.cat([rows[..., b * BLOCK : (b + 1) * BLOCK + shifts - 1] for b in range(blocks)], 1)
    with full_precision(image):
        filtered = overlapping @ banded(taps.float(), BLOCK)
    return torch.cat(filtered.chunk(blocks, 1), 2)[..., :width].unflatten(1, image.shape[1:3])


def banded(taps: Tensor, width: int) -> Tensor:
    """taps [N,K] → M [N,width+K-1,width] with M[x+k, x] = taps[k], so that (row @ M)[x] = Σ_k taps[k]·row[x+k]."""
    shifts = taps.shape[1]
    # Rows of a period one longer than the matrix is wide: cut to its width, each begins one later than that before.
    # No table of indices, which an exported graph would have to carry.
    period = F.pad(taps, (0, width))[:, None].expand(-1, width, -1).flatten(1)
    rows = period[:, : width * (width + shifts - 1)].unflatten(1, (width, width + shifts - 1))
    return rows.transpose(1, 2)
