"""Which adverse condition an image shows, and how strongly: the statistics that tell, and the head that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coop_perception.degradations import CONDITIONS
from coop_training.networks.blocks import EMBEDDING, conv3x3
from coop_training.networks.columns import window_count, windows
from coop_training.strength import bends

RED_SHIFTS, BLUE_SHIFTS = 16, 8
"""Displacements in pixels, 0 upwards, at which red and blue are compared with green: what lateral chromatic
aberration of the published levels needs."""
OCTAVES = 5
"""Scales, each twice as coarse as the one before, at which differences are averaged over the image."""
_MAPS = 9
_FEATURES = 64
_JPEG_BLOCK = 8
_FAR = 6.0
"""Standard deviations."""
DROPOUT = 0.3
TRUSTING = 2.0
"""Logit from which a restoration is trusted wholly: odds of seven to one."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is taken to be wrong with the images of a batch: posterior [N,K], the probability of each condition, `clear`
    first; strength [N] in 0..1; familiarity [N] in 0..1, how far a restoration by it is trusted (None: wholly)."""

    posterior: Tensor
    strength: Tensor
    familiarity: Tensor | None = None

    @property
    def strengths(self) -> Tensor:
        """By condition: its probability times the strength. [N,K]"""
        return self.posterior * self.strength[:, None]

    def weakened(self) -> Estimate:
        """As it is published: the less familiar an image is, the more of its probability goes to `clear`."""
        if self.familiarity is None:
            return self
        of_clear = (1 - self.familiarity[:, None]) * F.one_hot(
            torch.zeros_like(self.strength, dtype=torch.long), self.posterior.shape[1]
        )
        posterior = self.familiarity[:, None] * self.posterior + of_clear
        return Estimate(posterior, self.familiarity * self.strength, self.familiarity)


def local_statistics(image: Tensor) -> Tensor:
    """What adverse conditions leave their mark on, per 4x4 block, each brought to about -2..2.

    Mean colour, darkest and brightest channel value (fog lifts the dark), and logarithms of the mean absolute first
    differences of luminance along rows and columns and of its mixed second difference, mean and largest: noise lifts
    them all, impulses the largest, blur and fog lower them. [N,3,H,W] in 0..1 → [N,9,H/4,W/4].
    """
    luminance = image.mean(1, keepdim=True)
    across, down = luminance[..., 1:] - luminance[..., :-1], luminance[..., 1:, :] - luminance[..., :-1, :]
    mixed = F.pad((across[..., 1:, :] - across[..., :-1, :]).abs(), (0, 1, 0, 1))
    differences = torch.cat([F.pad(across.abs(), (0, 1)), F.pad(down.abs(), (0, 0, 0, 1)), mixed], 1)
    darkest = -F.max_pool2d(-image.amin(1, keepdim=True), 4)
    brightest = F.max_pool2d(image.amax(1, keepdim=True), 4)
    values = torch.cat([F.avg_pool2d(image, 4), darkest, brightest], 1)
    differences = torch.cat([F.avg_pool2d(differences, 4), F.max_pool2d(mixed, 4) * 0.3], 1)
    return torch.cat([4 * values - 2, (differences + 0.004).log() + 3.5], 1)


def gradient_spectrum(image: Tensor) -> Tensor:
    """How strongly luminance varies at each scale: what says how wide a blur is.

    Logarithms of the mean absolute first differences along rows and columns and of the mixed second difference, of the
    image and of its means over 2x2, 4x4 ... pixels, each brought to about -2..2. From one scale alone, a wide blur's
    width was told to 12 %, from all of them to 1 %. [N,3,H,W] in 0..1 → [N,3·OCTAVES].
    """
    x, logarithms = image.mean(1, keepdim=True), []
    for octave in range(OCTAVES):
        if octave:
            x = F.avg_pool2d(x, 2)
        down = x[..., 1:, :] - x[..., :-1, :]
        across, mixed = x[..., 1:] - x[..., :-1], down[..., 1:] - down[..., :-1]
        logarithms += [(d.abs().mean((1, 2, 3)) + 0.001).log() + 4 for d in (across, down, mixed)]
    return torch.stack(logarithms, 1)


def channel_misalignment(image: Tensor) -> Tensor:
    """How badly red and blue fit green when moved left by 0, 1, ... pixels: least at the shift that they have.

    Mean absolute difference of the channels' horizontal gradients on every fourth row, over its mean of all shifts,
    less one: about -1 (fits perfectly) to 0.5. [N,3,H,W] → [N,RED_SHIFTS+BLUE_SHIFTS].
    """
    gradient = image[..., ::4, 1:] - image[..., ::4, :-1]
    width = gradient.shape[-1] - RED_SHIFTS
    green = gradient[:, 1, :, :width]
    costs = []
    for channel, shifts in ((0, RED_SHIFTS), (2, BLUE_SHIFTS)):
        of_channel = torch.stack(
            [(gradient[:, channel, :, k : k + width] - green).abs().mean((1, 2)) for k in range(shifts)], 1
        )
        costs.append(of_channel / (of_channel.mean(1, keepdim=True) + 1e-4) - 1)
    return torch.cat(costs, 1)


def blockiness(image: Tensor) -> Tensor:
    """Mean luminance step at each of the eight column and row phases, over their mean, less one: JPEG's 8x8 grid shows
    in the last. [N,3,H,W], its corner on the grid → [N,16]."""
    luminance = image.mean(1)
    steps = []
    for x in (luminance, luminance.transpose(1, 2)):
        blocks = (x.shape[2] - 1) // _JPEG_BLOCK
        size = blocks * _JPEG_BLOCK
        difference = (x[..., 1 : size + 1] - x[..., :size]).abs().mean(1)
        phases = difference.reshape(-1, blocks, _JPEG_BLOCK).mean(1)
        steps.append(phases / (phases.mean(1, keepdim=True) + 1e-4) - 1)
    return torch.cat(steps, 1)


class ConditionEncoder(nn.Module):
    """Which adverse condition an image shows, and how strongly, from global statistics of its local structure.

    One model for all conditions has to know which one it sees: without that it stays near identity where the
    correction is global. Means over the whole image and over each semantic class, or over windows of it, are all that
    reaches the embedding, so it hardly depends on where things are; but that a road is grey is no fog, while a grey
    tree is. It does not start from raw pixels: small random filters see an image's content, not its noise, and learned
    nothing.

    Args:
        conditions: number of conditions K, `clear` included.
        classes: semantic classes C whose statistics are heard; 0: none are.
        windowed: whether there is an embedding of each window (`columns.windows`), or one of the whole image.

    Input: statistics [N,S,`size`] as `statistics` gives them, of S windows.
    Outputs: embedding [N,S,EMBEDDING]; by its mean condition logits [N,K] and strength [N] in 0..1.
    """

    def __init__(self, conditions: int, classes: int = 0, windowed: bool = False) -> None:
        super().__init__()
        self.windowed = windowed
        self.features = nn.Sequential(
            conv3x3(_MAPS, 32, 2), nn.ReLU(inplace=True), conv3x3(32, _FEATURES, 2), nn.ReLU(inplace=True)
        )
        of_image = RED_SHIFTS + BLUE_SHIFTS + 2 * _JPEG_BLOCK + 3 * OCTAVES + 2 * (_MAPS + _FEATURES)
        self.size = of_image + classes * (_MAPS + 1)
        self.embed = nn.Sequential(nn.Linear(self.size, 2 * EMBEDDING), nn.ReLU(), nn.Linear(2 * EMBEDDING, EMBEDDING))
        self.condition = nn.Linear(EMBEDDING, conditions)
        self.strength = nn.Linear(EMBEDDING, 1)

    def statistics(
        self, image: Tensor, misalignment: Tensor, spectrum: Tensor, probabilities: Tensor | None = None
    ) -> Tensor:
        """Of images [N,3,H,W] RGB in 0..1, with what `channel_misalignment` and `gradient_spectrum` say of them and
        probabilities [N,C,H/4,W/4], unless no class is heard: [N,S,`size`], S 1 for the whole image."""
        local = local_statistics(image)
        count = window_count(local) if self.windowed else 1
        of_image = torch.cat([misalignment, blockiness(image), spectrum], 1)
        pooled = [torch.stack(count * [of_image], 1).flatten(0, 1)]
        for maps in (local, self.features(local)):
            parts = windows(maps, count).flatten(0, 1)
            mean = parts.mean((2, 3), keepdim=True)
            pooled += [mean.flatten(1), (parts - mean).abs().mean((2, 3))]
        if probabilities is not None:
            local, probabilities = (windows(maps, count).flatten(0, 1) for maps in (local, probabilities))
            share = probabilities.mean((2, 3))
            of_class = probabilities.flatten(2) @ local.flatten(2).transpose(1, 2) / probabilities[0, 0].numel()
            # A class that is hardly there has no mean worth hearing: the sum's floor takes it to zero.
            pooled += [4 * share, (of_class / (share[..., None] + 0.01)).flatten(1)]
        return torch.cat(pooled, 1).unflatten(0, (-1, count))

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding = F.relu(self.embed(statistics.flatten(0, 1))).unflatten(0, (-1, statistics.shape[1]))
        mean = embedding.mean(1)
        return embedding, self.condition(mean), torch.sigmoid(self.strength(mean)).squeeze(1)


class Estimator(nn.Module):
    """Tells condition and strength from statistics of images; fitted on many images' at once (`fit_estimator`).

    An encoder's embedding serves the network that it modulates: heads on it, which see each step's few images once,
    are off by half as much again in fog's strength. Which condition it is must be told of drives unlike any that were
    fitted to: hence dropout (Srivastava et al., 2014), which halved the log likelihood lost on such ones. Strengths are
    told by a smooth network of their own, as they are known exactly and dropout blurs them.

    Neither knows what it has not met. So a third network, `familiar`, estimates from the statistics and what the other
    two say of them whether restoration would mend or spoil the image; it is fitted to outcomes
    (`coop_training.familiarity`), and until then trusts everything.

    Args:
        size: number of statistics S.
        conditions: names of the conditions, K of them, `clear` first.

    Input: statistics [N,S].
    Outputs: condition logits [N,K]; strength under each condition but clear [N,K-1], not far beyond 0..1.
    """

    centre: Tensor
    spread: Tensor
    bends: Tensor
    turns: Tensor

    def __init__(self, size: int, conditions: Sequence[str]) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))
        self.condition = perceptron(size, 128, 64, len(conditions), activation=nn.ReLU, dropout=DROPOUT)
        self.position = perceptron(size, 256, 128, len(conditions) - 1, activation=nn.SiLU)
        self.familiar = perceptron(size + 2 * len(conditions), 128, 1, activation=nn.ReLU, dropout=DROPOUT)
        nn.init.zeros_(self.familiar[-1].weight)
        nn.init.constant_(self.familiar[-1].bias, TRUSTING)
        of_conditions = [bends(CONDITIONS[name].levels) for name in conditions[1:]]
        tables = torch.zeros(2, len(of_conditions), max((len(places) for places, _ in of_conditions), default=0))
        for index, pair in enumerate(of_conditions):
            tables[:, index, : len(pair[0])] = torch.tensor(pair)
        self.register_buffer("bends", tables[0], persistent=False)
        self.register_buffer("turns", tables[1], persistent=False)

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        x = self.standardised(statistics)
        # What is told is how far the parameter's logarithm lies between the first level's and the last's. Strength
        # itself bends at each level, and a smooth function was off there by 3 to 6 % of a blur's width.
        position = 0.5 + self.position(x)
        return self.condition(x), (self.turns * F.relu(position[:, :, None] - self.bends)).sum(2)

    def standardised(self, statistics: Tensor) -> Tensor:
        # Held to what was met: an image unlike any of those fitted on should not be told the more surely for it.
        return ((statistics - self.centre) / self.spread).clamp(-_FAR, _FAR)

    def estimate(self, statistics: Tensor) -> Estimate:
        """The probability of each condition, and the strength to be expected."""
        logits, strengths = self(statistics)
        posterior = logits.softmax(1)
        # Not padded with clear's 0: OpenVINO 2026.4 crashes on that before the clamp, compiling for one thread.
        estimate = Estimate(posterior, (posterior[:, 1:] * strengths.clamp(0, 1)).sum(1))
        return replace(estimate, familiarity=trust(self.outcome(statistics, estimate)))

    def outcome(self, statistics: Tensor, estimate: Estimate) -> Tensor:
        """The logit that restoration by the estimate leaves an image of these statistics no worse. [N]"""
        given = torch.cat([self.standardised(statistics), estimate.posterior, estimate.strengths], 1)
        logit: Tensor = self.familiar(given)
        return logit[:, 0]


def trust(logit: Tensor) -> Tensor:
    """0 below -TRUSTING, where an image is left as it is to the last bit; 1 above TRUSTING; linear in between."""
    return (logit / (2 * TRUSTING) + 0.5).clamp(0, 1)


def perceptron(*widths: int, activation: type[nn.Module], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers between these widths, and what lies between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Dropout(dropout), nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])
