"""G1: {S_d, I_d} → S_r, the semantically guided adaptation of section 3.2."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from coop_training.networks.bands import BAND_STATISTICS, band_statistics
from coop_training.networks.blocks import EMBEDDING, keep_statistics, resized, zeroed
from coop_training.networks.decoder import WIDTH, Decoder
from coop_training.networks.encoder import SCENE_STATISTICS, Encoder, scene_statistics
from coop_training.networks.estimate import Estimate, Estimator
from coop_training.networks.segmenter import Segmenter

SEEN_STATISTICS = SCENE_STATISTICS + BAND_STATISTICS
"""Of a scene, for the estimate."""
_LEAST_PROBABILITY = 1e-4


class Refinement(nn.Module):
    """Refines a segmentation of a degraded image; starts as identity, since it learns a correction to log S_d.

    log S_r = α·log S_d + Δ, up to normalisation: Δ [N,C,H/4,W/4] from features of the degraded image, which S_d joins
    at each scale; α [N], for under a strong condition the given segmentation is confidently wrong and must count less.

    Its features are the reference segmenter's (`start_from`), trained further to see through adverse conditions.
    Batch normalisation keeps the segmenter's statistics: it is an affine map in training too, and no image of a batch
    has a say in another's.

    `estimator` is not trained with the rest but fitted afterwards (`fit_estimator`).

    Inputs: image [N,3,H,W] RGB in 0..1, H and W divisible by 32; probabilities [N,C,h,w] of any h, w.
    Outputs: refined logits [N,C,H/4,W/4]; logits of the conditions' presence [N,K] and their strengths [N,K], which
    teach the embedding what to estimate; statistics of the scene [N,SEEN_STATISTICS], for the estimate.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder(classes, EMBEDDING)
        self.embed = nn.Sequential(
            nn.Linear(SCENE_STATISTICS, 2 * EMBEDDING), nn.ReLU(), nn.Linear(2 * EMBEDDING, EMBEDDING), nn.ReLU()
        )
        self.presence, self.strength = nn.Linear(EMBEDDING, conditions), nn.Linear(EMBEDDING, conditions)
        self.trust = zeroed(nn.Linear(EMBEDDING, 1))
        self.correction = zeroed(nn.Conv2d(WIDTH, classes, 1))
        self.estimator = Estimator(SEEN_STATISTICS, conditions)

    def start_from(self, segmenter: Segmenter) -> None:
        """Take over the weights of the layers that both have: the decoder's modulation is refinement's own."""
        self.encoder.load_state_dict(segmenter.encoder.state_dict())
        self.decoder.load_state_dict(segmenter.decoder.state_dict(), strict=False)

    def train(self, mode: bool = True) -> Refinement:
        super().train(mode)
        keep_statistics(self)
        self.estimator.eval()
        return self

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features = self.encoder(image)
        seen = _seen(image, features)
        embedding = self.embed(seen[:, :SCENE_STATISTICS])
        given = resized(probabilities, features[0]).clamp(min=_LEAST_PROBABILITY).log()
        x = self.decoder(features, 0.1 * given, embedding)
        alpha = 1 + self.trust(embedding)[:, :, None, None]
        logits = alpha * given + self.correction(x)
        return logits, self.presence(embedding), self.strength(embedding), seen

    def estimate(self, scene: Tensor, sensor: Tensor) -> Estimate:
        """The conditions as they are published, of the scene's statistics and sensor views [N,3,T,T] in 0..1. No
        gradient: what the estimator learns is the truth, not what suits restoration."""
        with torch.no_grad():
            return self.estimator.estimate(self.estimator.statistics(scene, sensor))

    @torch.no_grad()
    def statistics(self, image: Tensor, sensor: Tensor) -> Tensor:
        """What the estimator is fitted to, of images and sensor views. [N,S]"""
        return self.estimator.statistics(_seen(image, self.encoder(image)), sensor)


def _seen(image: Tensor, features: Sequence[Tensor]) -> Tensor:
    """What the estimate is computed from, and of the first SCENE_STATISTICS the embedding. [N,SEEN_STATISTICS]"""
    return torch.cat([scene_statistics(features), band_statistics(image, features)], 1)
