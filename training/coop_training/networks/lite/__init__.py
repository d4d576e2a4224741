"""Networks on one pretrained encoder family: segmenter, refinement, the estimate of conditions, and restoration at the
camera's own resolution."""

from coop_training.networks.lite.estimate import Estimate, Estimator
from coop_training.networks.lite.refinement import Refinement
from coop_training.networks.lite.restoration import Restoration
from coop_training.networks.lite.segmenter import Segmenter

__all__ = ["Estimate", "Estimator", "Refinement", "Restoration", "Segmenter"]
