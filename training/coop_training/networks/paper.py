"""The `paper` variant of G1 and G2, in the shape of EdgeConnect's generator (Nazeri et al., 2019).

That the paper's generators have that shape is our inference from its losses, which look like EdgeConnect's second
stage: neither the paper nor its authors' repository describes them. Two stride-2 convolutions, eight dilated residual
blocks, two transposed convolutions, instance normalisation throughout. Inputs are fused by concatenation at full
resolution, as section 3.2 says.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.estimate import Estimate

RESIDUAL_BLOCKS = 8
DILATION = 2
STEM = 64
"""Channels of the first convolution."""


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
    """EdgeConnect's generator without its last activation.

    Input: image [N,3,H,W], H and W divisible by 4, and probabilities [N,C,h,w] of any h, w.
    Outputs: [N,outputs,H,W]; what the first convolution sees, [N,STEM,H,W].
    """

    def __init__(self, classes: int, outputs: int) -> None:
        super().__init__()
        self.stem = _same(3 + classes, STEM, 7)
        self.body = nn.Sequential(
            nn.InstanceNorm2d(STEM),
            nn.ReLU(),
            *_normalised(nn.Conv2d(STEM, 128, 4, 2, 1)),
            nn.ReLU(),
            *_normalised(nn.Conv2d(128, 256, 4, 2, 1)),
            nn.ReLU(),
            *(DilatedResidualBlock(256) for _ in range(RESIDUAL_BLOCKS)),
            *_normalised(nn.ConvTranspose2d(256, 128, 4, 2, 1)),
            nn.ReLU(),
            *_normalised(nn.ConvTranspose2d(128, STEM, 4, 2, 1)),
            nn.ReLU(),
            _same(STEM, outputs, 7),
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        upsampled = F.interpolate(probabilities, size=image.shape[-2:], mode="bilinear", align_corners=False)
        maps = self.stem(torch.cat([image, upsampled], 1))
        return self.body(maps), maps


class PaperRefinement(nn.Module):
    """G1: {S_d, I_d} → S_r.

    The head is ours, as the paper estimates no condition but the graphs' contract has them: mean and mean absolute
    deviation over the image of what the first convolution sees, before normalisation takes just these away.

    Inputs: image [N,3,H,W] RGB in 0..1; probabilities [N,C,h,w] of any h, w.
    Outputs: refined logits [N,C,H,W]; logits of the conditions' presence [N,K] and their strengths [N,K].
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.generator = Generator(classes, classes)
        self.head = nn.Sequential(nn.Linear(2 * STEM, 64), nn.ReLU(), nn.Linear(64, 2 * conditions))

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, maps = self.generator(image, probabilities)
        mean = maps.mean((2, 3), keepdim=True)
        presence, strength = self.head(torch.cat([mean.flatten(1), (maps - mean).abs().mean((2, 3))], 1)).chunk(2, 1)
        return logits, presence, torch.sigmoid(strength)


class PaperRestoration(nn.Module):
    """G2: {I_d, S_r} → I_r, at the frame's own resolution; it knows of no condition.

    Inputs: frame [N,3,h,w] RGB in 0..1; image and estimate, ignored; probabilities [N,C,·,·] of any size.
    Output: restored frame [N,3,h,w] in 0..1.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.generator = Generator(classes, 3)

    def forward(self, frame: Tensor, image: Tensor, probabilities: Tensor, estimate: Estimate) -> Tensor:
        height, width = frame.shape[-2:]
        rows, columns = (height + 3) // 4, (width + 3) // 4  # at the coarsest scale
        padded = F.pad(frame, (0, 4 * columns - width, 0, 4 * rows - height), mode="replicate")
        generated = self.generator(padded, probabilities)[0][..., :height, :width]
        return (torch.tanh(generated) + 1) / 2


def _same(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size; reflected borders, for zeros would show in what is generated."""
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, padding_mode="reflect")


def _normalised(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module]:
    return convolution, nn.InstanceNorm2d(convolution.out_channels)
