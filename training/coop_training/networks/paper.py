"""The `paper` variant of G1 and G2, in the shape of EdgeConnect's generator (Nazeri et al., 2019).

That the paper's generators have that shape is our inference from its losses, which look like EdgeConnect's second
stage: neither the paper nor its authors' repository describes them. Two stride-2 convolutions, eight dilated residual
blocks, two transposed convolutions, instance normalisation throughout. Inputs are fused by concatenation at full
resolution, as section 3.2 says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESIDUAL_BLOCKS = 8
DILATION = 2


class DilatedResidualBlock(nn.Module):
    """A dilated and a plain 3x3 convolution, instance-normalised, with a skip. [N,width,h,w] → the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalised(_same(width, width, 3, DILATION)), nn.ReLU(), *_normalised(_same(width, width, 3))
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """EdgeConnect's generator without its last activation, and a condition head beside it.

    The head is ours, as the paper estimates no condition but the graphs' contract has one: mean and mean absolute
    deviation over the image of what the first convolution sees, before normalisation takes just these away.

    Input: image [N,3,H,W], H and W divisible by 4, and probabilities [N,C,h,w] of any h, w.
    Output: [N,outputs,H,W]; condition logits [N,K]; strength [N] in 0..1.
    """

    def __init__(self, classes: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.stem = _same(3 + classes, 64, 7)
        self.body = nn.Sequential(
            nn.InstanceNorm2d(64),
            nn.ReLU(),
            *_normalised(nn.Conv2d(64, 128, 4, 2, 1)),
            nn.ReLU(),
            *_normalised(nn.Conv2d(128, 256, 4, 2, 1)),
            nn.ReLU(),
            *(DilatedResidualBlock(256) for _ in range(RESIDUAL_BLOCKS)),
            *_normalised(nn.ConvTranspose2d(256, 128, 4, 2, 1)),
            nn.ReLU(),
            *_normalised(nn.ConvTranspose2d(128, 64, 4, 2, 1)),
            nn.ReLU(),
            _same(64, outputs, 7),
        )
        self.head = nn.Sequential(nn.Linear(2 * 64, 64), nn.ReLU(), nn.Linear(64, conditions + 1))
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        upsampled = F.interpolate(probabilities, size=image.shape[-2:], mode="bilinear", align_corners=False)
        maps = self.stem(torch.cat([image, upsampled], 1))
        mean = maps.mean((2, 3), keepdim=True)
        estimate = self.head(torch.cat([mean.flatten(1), (maps - mean).abs().mean((2, 3))], 1))
        return self.body(maps), estimate[:, :-1], torch.sigmoid(estimate[:, -1])


class PaperRefinement(nn.Module):
    """G1: {S_d, I_d} → S_r.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: refined logits [N,C,H,W]; condition logits [N,K]; strength [N] in 0..1; the image, as it came.
    """

    def __init__(self, classes: int, conditions: Sequence[str]) -> None:
        super().__init__()
        self.generator = Generator(classes, classes, len(conditions))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return *self.generator(image, probabilities), image


class PaperRestoration(nn.Module):
    """G2: {I_d, S_r} → I_r.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: restored image [N,3,H,W] in 0..1; condition logits [N,K]; strength [N] in 0..1.
    """

    def __init__(self, classes: int, conditions: Sequence[str]) -> None:
        super().__init__()
        self.generator = Generator(classes, 3, len(conditions))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        generated, condition, strength = self.generator(image, probabilities)
        return (torch.tanh(generated) + 1) / 2, condition, strength


def _same(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size; reflected borders, for zeros would show in what is generated."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, padding_mode="reflect")


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels)
