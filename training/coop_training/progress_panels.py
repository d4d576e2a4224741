"""What the networks make of one fixed view, clear and under each condition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from coop_perception.contracts import QUARTER
from coop_perception.views import sensor_view
from coop_perception.visualization import colorize, panel_grid
from coop_training.config import TrainConfig
from coop_training.data import AdverseCrops, Conditions
from coop_training.guidance import degraded_segmentation, to_image
from coop_training.layouts.frame import LabelledFrame
from coop_training.model import Cooperative, evaluating
from coop_training.pixels import to_bytes, to_float, to_mask

COLUMNS = ("degraded", "raw mask", "refined mask", "restored", "clear")
CLEAR = "clear"


class Panels:
    """One view of a training frame: the same frame and crop whatever the condition, and in every stage."""

    def __init__(self, config: TrainConfig, frames: Sequence[LabelledFrame]) -> None:
        self.rows = (CLEAR, *config.conditions)
        self.crop, self.side = config.data.crop, config.input.sensor
        self.classes = config.data.class_list.classes
        samples = []
        for row in self.rows:
            shares = {} if row == CLEAR else {name: float(name == row) for name in config.conditions}
            conditions = Conditions(config.conditions, float(row == CLEAR), config.mixtures, shares)
            samples.append(AdverseCrops([frames[0]], 1, self.crop, conditions, config.seed, (1.0, 1.0))[0])
        self.degraded = torch.stack([sample.degraded for sample in samples])
        self.clear = [sample.clear.permute(1, 2, 0).numpy() for sample in samples]

    def draw(self, model: Cooperative) -> NDArray[np.uint8]:
        """A row per condition, uint8 [H,W,3] RGB."""
        device = next(model.parameters()).device
        frames = [frame.permute(1, 2, 0).numpy() for frame in self.degraded]
        sensor = to_float(torch.from_numpy(np.stack([sensor_view(frame, self.side) for frame in frames])).to(device))
        image = to_image(self.degraded.to(device))
        with evaluating(model):
            given = degraded_segmentation(model, image)
            refined, estimate = model.refine(image, given, sensor)
            restored = to_bytes(model.restore(image, image, refined, estimate)).cpu().numpy()
        mask_raw, mask = (
            to_mask(probabilities, stride)[0].cpu().numpy()
            for probabilities, stride in ((given, QUARTER), (refined, model.stride))
        )
        panels = [
            (
                frame,
                colorize(mask_raw[row], self.classes),
                colorize(mask[row], self.classes),
                restored[row],
                self.clear[row],
            )
            for row, frame in enumerate(frames)
        ]
        return panel_grid(panels, COLUMNS, self.rows)
