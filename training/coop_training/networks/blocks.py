"""Building blocks shared by the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.columns import over_columns, window_means

EMBEDDING = 64
"""Width of the condition embedding that modulates refinement and restoration."""


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def zeroed(layer: nn.Module) -> nn.Module:
    """Zero a layer's weights and bias, so that the branch it ends starts as no change at all."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def take_over(network: nn.Module, other: nn.Module) -> None:
    """Give a network the weights of the layers that it has in common with another one, by name."""
    own = network.state_dict()
    network.load_state_dict({**own, **{name: w for name, w in other.state_dict().items() if name in own}})


def keep_statistics(network: nn.Module) -> None:
    """Let batch normalisations keep the statistics that they have: they are affine maps in training too, and no image
    of a batch has a say in another's. To be called after each `train`."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


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


@dataclass(frozen=True, slots=True)
class Context:
    """What the blocks of one image are told of it.

    embedding [N,S,EMBEDDING], of S windows (`columns.windows`); posterior [N,K]: the probability of each condition;
    guidance [N,G,h,w] or none.
    """

    embedding: Tensor
    posterior: Tensor
    guidance: Tensor | None = None


class LinearOfWindows(nn.Linear):
    """[N,S,I] → [N,S,O], as a product of two matrices: of more dimensions, an exported graph would not keep the weights
    under their name."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).unflatten(0, (-1, x.shape[1]))


def at_each_pixel(matrix: Tensor, x: Tensor) -> Tensor:
    """Each image's matrix [N,O,I] times x [N,I,h,w] → [N,O,h,w], laid out in memory as x is: to lay it out otherwise
    costs a tenth of a training step on a CPU."""
    if x.is_contiguous(memory_format=torch.channels_last):
        product = x.permute(0, 2, 3, 1).flatten(1, 2) @ matrix.transpose(1, 2)
        return product.unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)
    return (matrix @ x.flatten(2)).unflatten(2, x.shape[-2:])


class Adapter(nn.Module):
    """x + (Σ_k p_k·A_k)·x at each pixel, A_k [C,C] the matrix of condition k and p its probability; starts as identity.

    Conditions that share every weight are in one another's way: what was learnt under all of them was 2 dB behind on
    noise after being trained under noise alone for a few minutes. Matrices of their own keep their gradients apart
    (residual adapters, Rebuffi et al., 2017).

    Inputs: x [N,C,h,w]; posterior [N,K]. Output: [N,C,h,w].
    """

    def __init__(self, width: int, conditions: int) -> None:
        super().__init__()
        self.matrices = nn.Parameter(torch.zeros(conditions, width * width))

    def forward(self, x: Tensor, posterior: Tensor) -> Tensor:
        width = x.shape[1]
        return x + at_each_pixel((posterior @ self.matrices).unflatten(1, (width, width)), x)


class Pointwise(nn.Module):
    """A 1x1 convolution of each condition's own: (W + Σ_k p_k·W_k)·x + b, all W_k zero at the start.

    An image's matrix is one sum, whatever its size, so conditions are kept apart for no further multiplication at a
    pixel (conditionally parametrised convolutions, Yang et al., 2019).

    Inputs: x [N,I,h,w]; posterior [N,K]. Output: [N,O,h,w].
    """

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        bound = inputs**-0.5  # as PyTorch's own convolutions start
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs, 1, 1).uniform_(-bound, bound))
        self.matrices = nn.Parameter(torch.zeros(conditions, outputs * inputs))

    def forward(self, x: Tensor, posterior: Tensor) -> Tensor:
        matrix = self.weight + (posterior @ self.matrices).unflatten(1, self.weight.shape)
        return at_each_pixel(matrix, x) + self.bias


class ModulatedBlock(nn.Module):
    """A residual block without normalisation, modulated by condition and scene and, where given, by semantic guidance.

    features·(1+γ)+β between the two convolutions, γ and β the sum of a linear map of the embedding (FiLM, Perez et al.,
    2018), one of the input's means, brought to -1..1 (after the channel attention of NAFNet, Chen et al., 2022: how
    dense a fog is and of what colour, the scene tells), both of windows and in between interpolated, and a 1x1
    convolution of the guidance (SFT, Wang et al., 2018); after the rectifier the condition's adapter. The second
    convolution starts at zero: the block starts as identity, which is what replaces normalisation.

    Args:
        width: channels of the input and the output.
        hidden: channels between the convolutions.
        conditions: number of conditions K, `clear` included.
        guidance: channels of the guidance map; 0: none.
    """

    def __init__(self, width: int, hidden: int, conditions: int, guidance: int = 0) -> None:
        super().__init__()
        self.first = conv3x3(width, hidden)
        self.adapter = Adapter(hidden, conditions)
        self.second = zeroed(conv3x3(hidden, width))
        self.from_embedding = zeroed(LinearOfWindows(EMBEDDING, 2 * hidden))
        self.from_scene = zeroed(LinearOfWindows(width, 2 * hidden))
        self.from_guidance = zeroed(nn.Conv2d(guidance, 2 * hidden, 1)) if guidance else None

    def forward(self, x: Tensor, context: Context) -> Tensor:
        # Bounded: a scale that grew with what it scales ran away in training, from a usual loss to 1e12 in 20 steps.
        scene = window_means(x, context.embedding.shape[1]).tanh()
        modulation = over_columns(self.from_embedding(context.embedding) + self.from_scene(scene), x)
        if self.from_guidance is not None:
            modulation = modulation + self.from_guidance(context.guidance)
        scale, shift = modulation.chunk(2, 1)
        features = F.relu(self.first(x) * (1 + scale) + shift)
        return x + self.second(self.adapter(features, context.posterior))


class GatedBlock(nn.Module):
    """A residual block of 1x1 and depthwise 3x3 convolutions, half of whose channels gate the others, modulated by the
    condition, whose own the 1x1 convolutions are; for fine scales, where it sees as far as a ModulatedBlock at a third
    of the cost.

    The gate (Dauphin et al., 2017; between depthwise and 1x1 convolution as in NAFNet, Chen et al., 2022) is a sigmoid
    instead of NAFNet's bare product, which needs a normalisation. Starts as identity.

    Args:
        width: channels of the input and the output.
        conditions: number of conditions K, `clear` included.
    """

    def __init__(self, width: int, conditions: int) -> None:
        super().__init__()
        self.expand = Pointwise(width, 2 * width, conditions)
        self.spatial = nn.Conv2d(2 * width, 2 * width, 3, 1, 1, groups=2 * width)
        self.from_embedding = zeroed(LinearOfWindows(EMBEDDING, 2 * width))
        self.contract = zeroed(Pointwise(width, width, conditions))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        features, gate = self.spatial(self.expand(x, context.posterior)).chunk(2, 1)
        scale, shift = over_columns(self.from_embedding(context.embedding), x).chunk(2, 1)
        gated = (features * (1 + scale) + shift) * torch.sigmoid(gate)
        return x + self.contract(gated, context.posterior)


class ModulatedUNet(nn.Module):
    """Trunk at a quarter of the image's resolution and at scales half of one another below, of modulated blocks, with
    additive skips.

    Args:
        inputs: channels of the quarter-resolution input.
        widths: channels at 1/4, 1/8 and so on.
        hidden: channels within the blocks of each scale.
        blocks: of each scale, in encoder and decoder alike; of the coarsest, where the two meet, once.
        conditions: number of conditions K, `clear` included.
        guidance: channels of the guidance map at 1/4 (0: none); pooled for the coarser scales.
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        hidden: Sequence[int],
        blocks: Sequence[int],
        conditions: int,
        guidance: int = 0,
    ) -> None:
        super().__init__()

        def scales(count: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.ModuleList(ModulatedBlock(width, within, conditions, guidance) for _ in range(number))
                for width, within, number in zip(widths[:count], hidden[:count], blocks[:count], strict=True)
            )

        self.stem = conv3x3(inputs, widths[0])
        self.encoder, self.decoder = scales(len(widths)), scales(len(widths) - 1)
        self.down = nn.ModuleList(conv3x3(fine, coarse, 2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(Pointwise(coarse, fine, conditions) for fine, coarse in pairwise(widths))

    def forward(self, x: Tensor, context: Context) -> Tensor:
        contexts, encoded = [context], []
        x = self.stem(x)
        for scale, blocks in enumerate(self.encoder):
            if scale:
                x = self.down[scale - 1](F.relu(x))
                finer = contexts[-1].guidance
                coarser = None if finer is None else F.avg_pool2d(finer, 2, ceil_mode=True)
                contexts.append(replace(context, guidance=coarser))
            for block in blocks:
                x = block(x, contexts[scale])
            encoded.append(x)
        for scale in reversed(range(len(self.decoder))):
            x = encoded[scale] + upsample_to(self.up[scale](x, context.posterior), encoded[scale])
            for block in self.decoder[scale]:
                x = block(x, contexts[scale])
        return x
