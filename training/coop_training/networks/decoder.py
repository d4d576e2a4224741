"""From an encoder's four scales to one map at a quarter of the image's resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import ResidualBlock, zeroed
from coop_training.networks.encoder import CHANNELS

WIDTH = 64
"""Channels of the decoder's maps."""


class Decoder(nn.Module):
    """Feature pyramid (Lin et al., 2017): each finer scale adds its features to the coarser one's, scaled up.

    The mean of the coarsest features joins them: by the whole scene a street differs from a car park where a pixel's
    neighbourhood cannot.

    Args:
        guidance: channels of a map that joins each scale; 0: none.
        condition: width of an embedding that modulates the map of each scale, features·(1+γ)+β (FiLM, Perez et al.,
            2018); 0: none. Both start as no change.

    Inputs: features [N,CHANNELS[i],h/2^i,w/2^i]; guidance [N,guidance,h,w]; embedding [N,condition].
    Output: [N,WIDTH,h,w].
    """

    def __init__(self, guidance: int = 0, condition: int = 0) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, WIDTH, 1) for channels in CHANNELS)
        self.scene = nn.Linear(CHANNELS[-1], WIDTH)
        self.merge = nn.ModuleList(ResidualBlock(WIDTH) for _ in CHANNELS[:-1])
        self.given = nn.ModuleList(zeroed(nn.Conv2d(guidance, WIDTH, 1)) for _ in self.merge) if guidance else None
        self.modulation = (
            nn.ModuleList(zeroed(nn.Linear(condition, 2 * WIDTH)) for _ in self.merge) if condition else None
        )

    def forward(
        self, features: Sequence[Tensor], guidance: Tensor | None = None, embedding: Tensor | None = None
    ) -> Tensor:
        coarsest = features[-1]
        y: Tensor = self.lateral[-1](coarsest) + self.scene(coarsest.mean((2, 3)))[:, :, None, None]
        for scale in reversed(range(len(self.merge))):
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = y + self.lateral[scale](features[scale])
            if self.given is not None:
                assert guidance is not None
                y = y + self.given[scale](F.avg_pool2d(guidance, 2**scale) if scale else guidance)
            if self.modulation is not None:
                gain, offset = self.modulation[scale](embedding)[:, :, None, None].chunk(2, 1)
                y = y * (1 + gain) + offset
            y = self.merge[scale](y)
        return y
