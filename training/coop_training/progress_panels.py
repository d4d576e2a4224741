"""What the networks make of one fixed view, clear and under each condition."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from coop_perception.visualization import colorize, panel_grid
from coop_training.config import TrainConfig
from coop_training.data import AdverseCrops, LabelledFrame
from coop_training.graphs import CooperativeGraph
from coop_training.model import Cooperative

COLUMNS = ("degraded", "raw mask", "refined mask", "restored", "clear")


class Panels:
    """One view of a training frame: the same frame and crop whatever the condition, and in every stage."""

    def __init__(self, config: TrainConfig, frames: Sequence[LabelledFrame]) -> None:
        self.rows = config.all_conditions
        self.crop = config.data.crop
        self.classes = config.data.class_list.classes
        samples = [
            AdverseCrops(frames, 1, self.crop, conditions, 0.0, config.seed, (1.0, 1.0))[0]
            for conditions in ((), *((name,) for name in config.conditions))
        ]
        self.degraded, self.clear = (
            torch.stack(images).permute(0, 2, 3, 1).contiguous()
            for images in ([s.degraded for s in samples], [s.clear for s in samples])
        )

    @torch.no_grad()
    def draw(self, model: Cooperative) -> NDArray[np.uint8]:
        """A row per condition, uint8 [H,W,3] RGB. The model comes back in the mode (training or not) it was in."""
        modes = {module: module.training for module in model.modules()}
        model.eval()
        device = next(model.parameters()).device
        outputs = CooperativeGraph(model, *self.crop)(self.degraded.to(device))
        for module, mode in modes.items():
            module.training = mode
        mask_raw, mask, _, restored = (output.cpu().numpy() for output in outputs[:4])
        degraded, clear = self.degraded.numpy(), self.clear.numpy()
        panels = [
            (
                degraded[row],
                colorize(mask_raw[row], self.classes),
                colorize(mask[row], self.classes),
                restored[row],
                clear[row],
            )
            for row in range(len(self.rows))
        ]
        return panel_grid(panels, COLUMNS, self.rows)
