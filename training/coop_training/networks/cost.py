"""What a network costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True)
class Cost:
    """Trainable or not, all parameters; multiply-accumulates of one forward pass, and of each further megapixel of a
    camera's frame."""

    parameters: int
    macs: int
    macs_per_megapixel: int = 0


def cost(network: nn.Module, inputs: Sequence[Tensor]) -> Cost:
    """Parameters of a network and its multiply-accumulates on inputs of these shapes; nothing is computed.

    Counted are convolutions and matrix products, as is custom; neither activations, normalisations nor resizing.
    """
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        functional_call(network, shapes, tuple(tensor.to("meta") for tensor in inputs))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, counter.get_total_flops() // 2)  # a multiplication and an addition are two operations
