"""Building blocks shared by the networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

EMBEDDING = 64
"""Width of the condition embedding that modulates refinement and restoration."""


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def zeroed(layer: nn.Module) -> nn.Module:
    """Zero a layer's weights and bias, so that the branch it ends starts as no change at all."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def upsample_to(x: Tensor, like: Tensor) -> Tensor:
    """Twice the size, cropped to that of `like`, which a stride-2 convolution has rounded up.

    Not resized to that size: where it is odd, the coarse map would drift against the fine one along the image.
    """
    doubled = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    return doubled[..., : like.shape[-2], : like.shape[-1]]


def at_quarter(probabilities: Tensor, like: Tensor) -> Tensor:
    """A segmentation of any size at that of `like`, a map at a quarter of the image's."""
    if probabilities.shape[-2:] == like.shape[-2:]:
        return probabilities
    return F.interpolate(probabilities, size=like.shape[-2:], mode="bilinear", align_corners=False)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a skip (He et al., 2016).

    [N,I,h,w] → [N,O,h/stride,w/stride].
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.skip = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class ModulatedBlock(nn.Module):
    """A residual block without normalisation, modulated by the condition and, where given, by semantic guidance.

    features·(1+γ)+β between the two convolutions, γ and β the sum of a linear map of the embedding [N,EMBEDDING]
    (FiLM, Perez et al., 2018) and a 1x1 convolution of the guidance [N,G,h,w] (SFT, Wang et al., 2018). The second
    convolution starts at zero: the block starts as identity, which is what replaces normalisation.
    """

    def __init__(self, width: int, guidance: int = 0) -> None:
        super().__init__()
        self.first = conv3x3(width, width)
        self.second = zeroed(conv3x3(width, width))
        self.from_embedding = zeroed(nn.Linear(EMBEDDING, 2 * width))
        self.from_guidance = zeroed(nn.Conv2d(guidance, 2 * width, 1)) if guidance else None

    def forward(self, x: Tensor, embedding: Tensor, guidance: Tensor | None = None) -> Tensor:
        modulation = self.from_embedding(embedding)[:, :, None, None]
        if self.from_guidance is not None:
            modulation = modulation + self.from_guidance(guidance)
        scale, shift = modulation.chunk(2, 1)
        return x + self.second(F.relu(self.first(x) * (1 + scale) + shift))


class ModulatedUNet(nn.Module):
    """Quarter-resolution trunk: three scales (1/4, 1/8, 1/16) of modulated blocks with additive skips.

    Args:
        inputs: channels of the quarter-resolution input.
        widths: channels at 1/4, 1/8 and 1/16.
        blocks: blocks at 1/4 and 1/8 (in each of encoder and decoder) and at 1/16.
        guidance: channels of the guidance map at 1/4 (0: none); pooled for the coarser scales.
    """

    def __init__(
        self, inputs: int, widths: tuple[int, int, int], blocks: tuple[int, int, int], guidance: int = 0
    ) -> None:
        super().__init__()
        w0, w1, w2 = widths
        n0, n1, n2 = blocks
        self.stem = conv3x3(inputs, w0)
        self.encode0 = nn.ModuleList(ModulatedBlock(w0, guidance) for _ in range(n0))
        self.down0 = conv3x3(w0, w1, 2)
        self.encode1 = nn.ModuleList(ModulatedBlock(w1, guidance) for _ in range(n1))
        self.down1 = conv3x3(w1, w2, 2)
        self.middle = nn.ModuleList(ModulatedBlock(w2, guidance) for _ in range(n2))
        self.up1 = nn.Conv2d(w2, w1, 1)
        self.decode1 = nn.ModuleList(ModulatedBlock(w1, guidance) for _ in range(n1))
        self.up0 = nn.Conv2d(w1, w0, 1)
        self.decode0 = nn.ModuleList(ModulatedBlock(w0, guidance) for _ in range(n0))

    def forward(self, x: Tensor, embedding: Tensor, guidance: Tensor | None = None) -> Tensor:
        guidance1 = guidance2 = None
        if guidance is not None:
            guidance1 = F.avg_pool2d(guidance, 2, ceil_mode=True)
            guidance2 = F.avg_pool2d(guidance1, 2, ceil_mode=True)
        x0 = self.stem(x)
        for block in self.encode0:
            x0 = block(x0, embedding, guidance)
        x1 = self.down0(F.relu(x0))
        for block in self.encode1:
            x1 = block(x1, embedding, guidance1)
        x2 = self.down1(F.relu(x1))
        for block in self.middle:
            x2 = block(x2, embedding, guidance2)
        x1 = x1 + upsample_to(self.up1(x2), x1)
        for block in self.decode1:
            x1 = block(x1, embedding, guidance1)
        x0 = x0 + upsample_to(self.up0(x1), x0)
        for block in self.decode0:
            x0 = block(x0, embedding, guidance)
        return x0
