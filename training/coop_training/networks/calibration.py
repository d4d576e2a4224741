"""How far a mask's probabilities are to be believed: networks are surer than they are right, the more so in fog."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CERTAIN = 1e-4
"""How near to 0 and 1 a probability is taken to be at most: less than half a level of the published byte."""


class Calibration(nn.Module):
    """Temperature scaling (Guo et al., 2017) of the largest probability at each pixel, by a temperature for each image
    that depends on what is present in it; starts as no change. It is fitted on frames that nothing was trained on.

    Only the largest is known here, so the rest counts as spread evenly over the other classes: of log-odds against one
    of these. A larger temperature then leads to 1/C, as it does with all scores known, and the order of pixels stays.

    Inputs: confidence [N,H,W] in 0..1, the largest of C probabilities; presence [N,K]. Output: [N,H,W] in 0..1.
    """

    def __init__(self, classes: int, conditions: int) -> None:
        super().__init__()
        self.temperature = nn.Linear(conditions, 1)
        nn.init.zeros_(self.temperature.weight)
        nn.init.constant_(self.temperature.bias, math.log(math.e - 1))  # softplus makes 1 of it
        self.log_others = math.log(max(classes - 1, 1))

    def forward(self, confidence: Tensor, presence: Tensor) -> Tensor:
        temperature = F.softplus(self.temperature(presence))[:, :, None]
        likely = confidence.clamp(_CERTAIN, 1 - _CERTAIN)
        odds = (likely / (1 - likely)).log() + self.log_others
        return torch.sigmoid(odds / temperature - self.log_others)
