"""The reference segmenter: the "existing" network, trained on good images only, whose failures the others mend."""

from __future__ import annotations

from torch import Tensor, nn

from coop_training.networks.decoder import WIDTH, Decoder
from coop_training.networks.encoder import Encoder, load_pretrained


class Segmenter(nn.Module):
    """Encoder with ImageNet's weights and a light decoder.

    Input: image [N,3,H,W] RGB in 0..1, H and W divisible by 32. Output: logits [N,C,H/4,W/4].
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        load_pretrained(self.encoder)
        self.classify = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.decoder(self.encoder(image)))
        return logits
