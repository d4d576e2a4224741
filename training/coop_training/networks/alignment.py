"""Undoing lateral chromatic aberration: red and blue moved back onto green."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed
from coop_training.networks.condition import BLUE_SHIFTS, RED_SHIFTS
from coop_training.networks.filtering import correlate_rows


class ChannelAlignment(nn.Module):
    """Moves red and blue left by the displacement at which their gradients fit green's best.

    Each channel becomes Σ_k w_k·channel(x+k), the taps w a softmax of the negative misalignment, sharpened and
    corrected by what the embedding says; a gate from the embedding keeps the channels as they are where nothing is
    misaligned.

    Inputs: image [N,3,H,W]; embedding [N,EMBEDDING]; misalignment [N,RED_SHIFTS+BLUE_SHIFTS].
    Output: image [N,3,H,W], border columns repeated where a channel moves away from them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.correction = zeroed(nn.Linear(EMBEDDING, RED_SHIFTS + BLUE_SHIFTS))
        self.gate = zeroed(nn.Linear(EMBEDDING, 1))
        nn.init.constant_(self.gate.bias, -3.0)

    def forward(self, image: Tensor, embedding: Tensor, misalignment: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(embedding))
        logits = self.correction(embedding) - self.sharpness * misalignment
        channels = list(image.split(1, 1))
        for channel, (start, shifts) in {0: (0, RED_SHIFTS), 2: (RED_SHIFTS, BLUE_SHIFTS)}.items():
            taps = gate * logits[:, start : start + shifts].softmax(1)
            padded = F.pad(channels[channel], (0, shifts - 1, 0, 0), mode="replicate")
            channels[channel] = (1 - gate)[..., None, None] * channels[channel] + correlate_rows(padded, taps)
        return torch.cat(channels, 1)
