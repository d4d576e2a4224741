"""The reference segmenter: the "existing" network, trained on good images only, whose failures the others mend."""

from __future__ import annotations

from torch import Tensor, nn

from coop_training.networks.blocks import keep_statistics
from coop_training.networks.decoder import WIDTH, Decoder
from coop_training.networks.encoder import Encoder, load_pretrained


class Segmenter(nn.Module):
    """Encoder with ImageNet's weights and a light decoder.

    Input: image [N,3,H,W] RGB in 0..1, H and W divisible by 32. Output: logits [N,C,H/4,W/4].
    """

    keeps_statistics = False
    """Whether batch normalisations are affine maps in training too, as they must be where the weights are a bundle's:
    there they are folded into convolutions, and a batch's own statistics would undo that."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        load_pretrained(self.encoder)
        self.classify = nn.Conv2d(WIDTH, classes, 1)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.keeps_statistics:
            keep_statistics(self)
        return self

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classify(self.decoder(self.encoder(image)))
        return logits
