"""D1 and D2: SN-PatchGAN (Yu et al., 2019)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from coop_training.networks.precision import full_precision


class Discriminator(nn.Module):
    """Six 5x5 stride-2 convolutions under spectral normalisation, leaky ReLU between them.

    Each element of the last map scores its own patch of the input. In training mode each pass also takes one step of
    the power iteration that estimates the spectral norms.

    Args:
        inputs: channels of what is judged: 3 for an image, 3 + C for a segmentation beside its image.
        widths: channels of the six; the paper's (64, 128, 256, 256, 256, 256).

    Input [N,inputs,H,W]. Output: scores [N,widths[-1],⌈H/64⌉,⌈W/64⌉], unbounded; computed in float32.
    """

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [spectral_norm(nn.Conv2d(inputs, width, 5, 2, 2)), nn.LeakyReLU(0.2)]
            inputs = width
        self.convolutions = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x):
            return self.convolutions(x.float())
