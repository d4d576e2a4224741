"""Losses of the paper, by equation number; all computed in float32, whatever the networks run in."""

from coop_training.losses.adversarial import ADVERSARIAL, AdversarialLoss
from coop_training.losses.condition import condition_loss, strength_loss
from coop_training.losses.features import FeatureExtractor, FeatureMaps, feature_extractor
from coop_training.losses.image import l1, log_mse, total_variation
from coop_training.losses.perceptual import gram, perceptual, style
from coop_training.losses.segmentation import cross_entropy, soft_jaccard

__all__ = [
    "ADVERSARIAL",
    "AdversarialLoss",
    "FeatureExtractor",
    "FeatureMaps",
    "condition_loss",
    "cross_entropy",
    "feature_extractor",
    "gram",
    "l1",
    "log_mse",
    "perceptual",
    "soft_jaccard",
    "strength_loss",
    "style",
    "total_variation",
]
