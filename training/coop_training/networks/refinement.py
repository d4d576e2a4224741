"""G1: {S_d, I_d} → S_r, the semantically guided adaptation of section 3.2."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_training.networks.blocks import EMBEDDING, at_quarter, conv3x3, keep_statistics, take_over, zeroed
from coop_training.networks.cells import CELL_STATISTICS, cell_statistics
from coop_training.networks.condition import Estimate, Estimator
from coop_training.networks.front import Front
from coop_training.networks.segmenter import DECODER, WIDTHS, SegmentationFeatures

SMALLEST_PROBABILITY = 1e-4
BLOCKS, MERGES = (1, 2, 2, 2), 1
"""Less at a quarter of the resolution than the segmenter has: there S_d tells enough."""


class Refinement(SegmentationFeatures):
    """Refines a segmentation of a degraded image; starts as identity, since it learns a correction to log S_d.

    log S_r = α·log S_d + Δ, up to normalisation: Δ [N,C,H/4,W/4] from the features, α [N] from the condition embedding,
    for under a strong condition the given segmentation is confidently wrong and must be heard less.

    Its features are those of the reference segmenter (`start_from`), modulated by the embedding (features·(1+γ)+β at
    each scale, FiLM, Perez et al., 2018) and taught to see through adverse conditions: what a class looks like is
    learnt already. Batch normalisation keeps the segmenter's statistics: it is an affine map in training too, and no
    image of a batch has a say in another's.

    Inputs: image [N,3,H,W] RGB in 0..1, H and W divisible by 8; probabilities [N,C,h,w] of any h, w.
    Outputs: refined logits [N,C,H/4,W/4]; condition logits [N,K]; strength [N] in 0..1; the image [N,3,H,W] as the
    front leaves it and the features see it.
    """

    def __init__(self, classes: int, conditions: Sequence[str]) -> None:
        super().__init__(BLOCKS, MERGES)
        self.front = Front(conditions, classes, gentle=True)
        self.estimator = Estimator(self.front.encoder.size + CELL_STATISTICS, conditions)
        self.given = zeroed(nn.Conv2d(classes, WIDTHS[0], 1))
        self.modulation = nn.ModuleList(zeroed(nn.Linear(EMBEDDING, 2 * w)) for w in (*WIDTHS, DECODER, DECODER))
        self.trust = zeroed(nn.Linear(EMBEDDING, 1))
        self.correction = zeroed(conv3x3(DECODER, classes))

    def start_from(self, segmenter: SegmentationFeatures) -> None:
        """Take over the weights of the layers that both have."""
        take_over(self, segmenter)

    def train(self, mode: bool = True) -> Refinement:
        super().train(mode)
        keep_statistics(self)
        self.estimator.eval()  # which is not trained with the rest
        return self

    def forward(self, image: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        quarter = at_quarter(probabilities, F.avg_pool2d(image, 4))
        seen, embedding, condition, strength, _ = self.front(image, quarter)
        log_probabilities = quarter.clamp(min=SMALLEST_PROBABILITY).log()
        embedding = embedding.squeeze(1)
        x = self.features(seen, partial(self._adapt, embedding, self.given(0.1 * log_probabilities)))
        alpha = 1 + self.trust(embedding)[:, :, None, None]
        return alpha * log_probabilities + self.correction(F.relu(x)), condition, strength, seen

    @torch.no_grad()
    def statistics(self, image: Tensor, refined: Tensor) -> Tensor:
        """What the estimator reads, the encoder's statistics and those of cells: of images [N,3,H,W] in 0..1 and S_r,
        probabilities [N,C,h,w]. No gradient."""
        of_encoder = self.front.statistics(image, at_quarter(refined, F.avg_pool2d(image, 4))).squeeze(1)
        return torch.cat([of_encoder, cell_statistics(image)], 1)

    @torch.no_grad()
    def estimate(self, image: Tensor, refined: Tensor) -> Estimate:
        """The condition as it is published and as restoration is told it, of the same arguments. No gradient: what the
        estimator is taught is the truth, not what suits restoration."""
        return self.estimator.estimate(self.statistics(image, refined))

    def _adapt(self, embedding: Tensor, given: Tensor, stage: int, x: Tensor) -> Tensor:
        scale, shift = self.modulation[stage](embedding)[:, :, None, None].chunk(2, 1)
        return (x + given if stage == 0 else x) * (1 + scale) + shift
