"""One optimisation step of a stage: of the networks that it trains, then of the critics beside them."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from coop_perception.image_files import DatasetError
from coop_training.batches import Batch
from coop_training.config import StageConfig
from coop_training.data import Sample
from coop_training.model import Cooperative
from coop_training.stages import Stage
from coop_training.terms import Fakes, Losses

MAX_GRADIENT_NORM = 1.0


class NonFiniteError(ArithmeticError):
    """A loss or gradient that is infinite or no number; the message says whose, and those weights are as before it."""


class StageStep:
    """Networks and optimisers of one stage; a call is one step.

    Puts the model on Fabric's device, and frozen networks in evaluation mode.
    """

    def __init__(
        self, fabric: Fabric, model: Cooperative, stage: Stage, settings: StageConfig, discriminator_rate: float
    ) -> None:
        self.fabric, self.stage, self.discriminator_rate = fabric, stage, discriminator_rate
        parts = model.parts()
        trained, critics = ([parts[name] for name in names] for names in (stage.trained, stage.critics))
        self.critics = nn.ModuleList(critics)
        model.requires_grad_(False).eval()
        for part in (*trained, *critics):
            part.train()
        self.optimizers: dict[str, Optimizer] = {}
        """`trained`, and `critics` where there are any."""
        # What is wrapped has its gradients averaged over processes: of the parameters that want one at that moment.
        if critics:
            self.critics.requires_grad_(True)
            # Adam without momentum, as is usual for discriminators under spectral normalisation.
            self.optimizers["critics"] = Adam(self.critics.parameters(), betas=(0.0, 0.9))
            self.critic_losses = fabric.setup_module(_CriticLosses(model, stage))
            self.critics.requires_grad_(False)
        parameters = [parameter.requires_grad_(True) for part in trained for parameter in part.parameters()]
        self.optimizers["trained"] = AdamW(parameters, betas=settings.betas, weight_decay=settings.weight_decay)
        self.losses = fabric.setup_module(_StageLosses(model, stage))
        self.critics.requires_grad_(True)

    def __call__(self, batch: Batch, learning_rate: float) -> Losses:
        """Change the weights by one step.

        Returns:
            The stage's losses before the step, and the critics' as `critic_<name>`; scalars without gradient.

        Raises:
            NonFiniteError: in every process, if it happens in one.
        """
        losses, fakes = self.losses(batch)
        self._descend("trained", losses["total"], learning_rate)
        if self.stage.critics:
            critic_losses = self.critic_losses(fakes)
            self._descend("critics", critic_losses["total"], learning_rate * self.discriminator_rate)
            losses |= {f"critic_{name}": loss for name, loss in critic_losses.items()}
        return {name: loss.detach() for name, loss in losses.items()}

    def _descend(self, name: str, loss: Tensor, learning_rate: float) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        finite = bool(loss.isfinite() & norm.isfinite())
        if in_any_process(self.fabric, not finite):
            raise NonFiniteError(f"{name}: loss {loss.item():g}, norm of its gradient {norm.item():g}")
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()


class _StageLosses(nn.Module):
    """What Fabric wraps: the step's forward pass as one module's, so that several processes can share its gradients."""

    def __init__(self, model: Cooperative, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, batch: Batch) -> tuple[Losses, Fakes]:
        losses, fakes = self.stage.losses(self.model, Sample(**batch))
        return _with_gradient_of_total(losses), fakes


class _CriticLosses(nn.Module):
    def __init__(self, model: Cooperative, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, fakes: Fakes) -> Losses:
        return _with_gradient_of_total(self.stage.critic_losses(self.model, fakes))


def _with_gradient_of_total(losses: Losses) -> Losses:
    # DistributedDataParallel waits for a gradient of whatever an output with one depends on.
    return {name: loss if name == "total" else loss.detach() for name, loss in losses.items()}


def error_in_any_process(fabric: Fabric, loaded: Batch | DatasetError) -> DatasetError | None:
    """What a process met instead of a batch, if one did; the same in all of them."""
    own = str(loaded) if isinstance(loaded, DatasetError) else None
    if not in_any_process(fabric, own is not None):
        return None
    messages: list[str | None] = [own] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(messages, own)
    return DatasetError(next(message for message in messages if message is not None))


def in_any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether the flag is set in at least one process; the same answer in all of them."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="max"))
