"""Which adverse conditions an image shows, how strong each is, and how far that is to be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from coop_perception.model.clear_weather import BEGIN
from coop_training.networks.sensor import SENSOR_STATISTICS, sensor_statistics

DROPOUT = 0.3
_FAR = 6.0
"""Standard deviations: an image unlike any of those fitted to is not the surer for it."""
_CERTAIN = 0.9
"""Highest probability of a condition above which a frame is restored wholly; below BEGIN it stays as it is."""
MEMBERS = 3
"""Networks that estimate familiarity, fitted apart, of which the least trusting one decides: where nothing was fitted
to, they differ (Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
2017)."""
TRUSTING = 2.0
"""Logit from which a restoration is trusted wholly: odds of seven to one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is taken to be wrong with the images of a batch.

    presence [N,K]: the probability of each condition, independent of the others'; strength [N,K]: how strong it then
    is, 0..1; familiarity [N], 0..1: how far a restoration by this estimate is to be trusted.
    """

    presence: Tensor
    strength: Tensor
    familiarity: Tensor

    @property
    def weight(self) -> Tensor:
        """How much of restoration's change is made: nothing where no condition is present, to the last bit. [N]"""
        return self.wanted * self.familiarity

    @property
    def wanted(self) -> Tensor:
        """The same before familiarity. [N]"""
        somewhat = (self.presence.amax(1) - BEGIN) / (_CERTAIN - BEGIN)
        return somewhat.clamp(0, 1)


class Estimator(nn.Module):
    """Estimates conditions from statistics of images; fitted on many images' at once (`fit_estimator`).

    Weather is estimated from what refinement's encoder sees of the whole scene, faults of sensor and codec from pixels
    at the camera's own resolution: scaling hides them. Presence needs dropout (Srivastava et al., 2014) to hold on
    roads and cameras unlike any that were fitted to; strengths are known exactly, and dropout would blur them.

    Neither knows what it has not met. So further networks, `familiar`, estimate from the statistics and what the other
    two make of them whether restoration would mend or spoil the image; they are fitted to outcomes
    (`coop_training.familiarity`), and until then trust everything.

    Inputs: statistics of the scene [N,seen], as refinement gives them; sensor [N,3,T,T] RGB in 0..1.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, seen: int, conditions: int) -> None:
        super().__init__()
        size = seen + SENSOR_STATISTICS
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.presence = perceptron(size, 192, 96, conditions, dropout=DROPOUT)
        self.strength = perceptron(size, 256, 128, conditions)
        self.familiar = nn.ModuleList(_trusting(size + 2 * conditions) for _ in range(MEMBERS))

    def statistics(self, scene: Tensor, sensor: Tensor) -> Tensor:
        """What the networks read, [N,S]."""
        return torch.cat([scene.float(), sensor_statistics(sensor)], 1)

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of presence and strengths, not held to 0..1, [N,K] each, from statistics [N,S]."""
        x = self.standardised(statistics)
        return self.presence(x), 0.5 + self.strength(x)

    def standardised(self, statistics: Tensor) -> Tensor:
        return ((statistics - self.centre) / self.spread).clamp(-_FAR, _FAR)

    def estimate(self, statistics: Tensor) -> Estimate:
        """What is published, and what restoration is conditioned on."""
        logits, strength = self(statistics)
        presence, strength = torch.sigmoid(logits), strength.clamp(0, 1)
        outcomes = self.outcomes(statistics, presence, strength)
        return Estimate(presence, strength, trust(outcomes.amin(1)))

    def outcomes(self, statistics: Tensor, presence: Tensor, strength: Tensor) -> Tensor:
        """By member the logit that restoration by the estimate leaves an image of these statistics no worse.
        [N,MEMBERS]"""
        known = torch.cat([self.standardised(statistics), presence, presence * strength], 1)
        return torch.cat([member(known) for member in self.familiar], 1)


def trust(logit: Tensor) -> Tensor:
    """0 below -TRUSTING, where a frame stays as it is to the last bit; 1 above TRUSTING; linear in between."""
    return (logit / (2 * TRUSTING) + 0.5).clamp(0, 1)


def perceptron(*widths: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between these widths, and what lies between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Dropout(dropout), nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _trusting(inputs: int) -> nn.Sequential:
    """A member of `familiar`."""
    member = perceptron(inputs, 128, 1, dropout=DROPOUT)
    nn.init.zeros_(member[-1].weight)
    nn.init.constant_(member[-1].bias, TRUSTING)
    return member
