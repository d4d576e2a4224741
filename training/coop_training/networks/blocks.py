"""Building blocks shared by the networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.precision import full_precision

EMBEDDING = 64
"""Width of what modulates a network by the condition."""


class Convolution(nn.Conv2d):
    """Trained on a CPU, grouped ones compute in float32: in bfloat16 their gradients take three times as long."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.groups > 1 and x.device.type == "cpu"):
            return super().forward(x)
        with full_precision(x):
            return super().forward(x.float())


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


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map at the size of another one."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


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
