"""The three networks of one model, and what it is trained for."""

from __future__ import annotations

from torch import nn

from coop_training.config import TrainConfig
from coop_training.networks.refinement import Refinement
from coop_training.networks.restoration import Restoration
from coop_training.networks.segmenter import Segmenter


class Cooperative(nn.Module):
    """Segmenter, refinement (G1) and restoration (G2), for the classes and conditions of a configuration."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        classes, conditions = len(config.data.class_list.classes), len(config.conditions) + 1
        self.segmenter = Segmenter(classes)
        self.refinement = Refinement(classes, conditions)
        self.restoration = Restoration(classes, conditions)

    def parts(self) -> dict[str, nn.Module]:
        return dict(self.named_children())
