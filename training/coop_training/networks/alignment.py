"""Undoing lateral chromatic aberration: red and blue moved back onto green."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, zeroed
from coop_training.networks.condition import BLUE_SHIFTS, RED_SHIFTS, Estimate
from coop_training.networks.filtering import correlate_rows

ABERRATION = "chromatic_aberration"
FITS, MISFITS = -0.4, -0.15
"""Of a channel's least misalignment: up to the first it is moved, from the second on left where it is. Moved evenly by
whole pixels it is about -0.9; magnified, demosaiced or blurred otherwise than green, no displacement fits."""


class ChannelAlignment(nn.Module):
    """Moves red and blue left by the displacement at which their gradients fit green's best.

    Each channel becomes Σ_k w_k·channel(x+k), the taps w a softmax of the negative misalignment, sharpened and
    corrected by what the embedding says; a gate from the embedding keeps the channels as they are where nothing is
    misaligned. Where they are taken to be, a channel that fits green at no displacement stays. What of a channel has
    left the image at its right edge varies as green does there (constant hue, Cok, 1987), which has not moved.

    Args:
        conditions: names of the conditions.

    Inputs: image [N,3,H,W]; embedding [N,EMBEDDING]; misalignment [N,RED_SHIFTS+BLUE_SHIFTS]; the condition, as it is
    known.
    Output: image [N,3,H,W].
    """

    def __init__(self, conditions: Sequence[str]) -> None:
        super().__init__()
        self.aberration = conditions.index(ABERRATION) if ABERRATION in conditions else None
        self.sharpness = nn.Parameter(torch.tensor(20.0))
        self.correction = zeroed(nn.Linear(EMBEDDING, RED_SHIFTS + BLUE_SHIFTS))
        self.gate = zeroed(nn.Linear(EMBEDDING, 1))
        nn.init.constant_(self.gate.bias, -3.0)

    def forward(self, image: Tensor, embedding: Tensor, misalignment: Tensor, known: Estimate) -> Tensor:
        gate = torch.sigmoid(self.gate(embedding))[..., None, None]
        logits = self.correction(embedding) - self.sharpness * misalignment
        channels = list(image.split(1, 1))
        for channel, (start, shifts) in {0: (0, RED_SHIFTS), 2: (RED_SHIFTS, BLUE_SHIFTS)}.items():
            taps = logits[:, start : start + shifts].softmax(1)
            change = moved_left(channels[channel], channels[1], taps) - channels[channel]
            if self.aberration is not None:
                taken = known.posterior[:, self.aberration].float()
                least = misalignment[:, start : start + shifts].amin(1)
                misfit = ((least - FITS) / (MISFITS - FITS)).clamp(0, 1)
                change = (1 - taken * misfit)[:, None, None, None] * change
            channels[channel] = channels[channel] + gate * change
        return torch.cat(channels, 1)


def moved_left(channel: Tensor, green: Tensor, taps: Tensor) -> Tensor:
    """Σ_k taps[k]·channel(x+k), where x+k lies beyond the last column of what that shows plus green's change since.

    channel, green [N,1,H,W]; taps [N,K] of sum 1 → [N,1,H,W].
    """
    shifts = taps.shape[1]
    width = green.shape[-1]
    moved = correlate_rows(F.pad(channel, (0, shifts - 1, 0, 0), mode="replicate"), taps)
    # By column, how much of it has come from beyond the last.
    beyond = correlate_rows(F.pad(torch.zeros_like(green[:, :, :1]), (0, shifts - 1), value=1.0), taps)
    # Where the channel's last column has moved to.
    last = (green[..., [width - 1 - k for k in range(shifts)]] * taps[:, None, None]).sum(3, keepdim=True)
    return moved + beyond * (green - last)
