"""Equations 3 and 5: discriminator against generator.

The equations are written as log-GAN, the paper's text trains the least-squares one; so that is the default here. Scores
are whole maps [N,K,h,w], each element judging its own patch: the losses are means over all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class AdversarialLoss:
    """`critic(real, fake)`: what the discriminator minimises; `generator(fake)`: what the generator does. Scalars."""

    critic: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def lsgan_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Least squares (Mao et al., 2017, equation 9 with a = 0, b = c = 1): 0 where real scores 1 and fake 0."""
    return 0.5 * ((real.float() - 1).square().mean() + fake.float().square().mean())


def lsgan_generator(fake: Tensor) -> Tensor:
    """Least squares: 0 where the discriminator scores the fake 1."""
    return 0.5 * (fake.float() - 1).square().mean()


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge (Miyato et al., 2018; Yu et al., 2019): 0 where real scores at least 1 and fake at most -1."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Hinge: the lower, the higher the discriminator scores the fake; unbounded."""
    return -fake.float().mean()


ADVERSARIAL: dict[str, AdversarialLoss] = {
    "lsgan": AdversarialLoss(lsgan_critic, lsgan_generator),
    "hinge": AdversarialLoss(hinge_critic, hinge_generator),
}
"""By name in the configuration."""
