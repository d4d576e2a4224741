"""One step of networks and their critics, on a toy model; and how batches are shared and interruptions taken."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from itertools import chain

import pytest
import torch
from coop_training.batches import Batch, share, worker_count
from coop_training.config import StageConfig
from coop_training.data import Sample
from coop_training.interrupt import SIGNALS, Interrupt
from coop_training.stages import Stage
from coop_training.step import NonFiniteError, StageStep
from coop_training.terms import Fakes, Losses
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric import Fabric
from torch import Tensor, nn

RATE = 1e-2


class Toy(nn.Module):
    """A frozen network with dropout, one that is trained, and its critic."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))
        self.generator = nn.Conv2d(3, 3, 1)
        self.critic = nn.Conv2d(3, 1, 1)

    def parts(self) -> dict[str, nn.Module]:
        return dict(self.named_children())


def losses(model: Toy, batch: Sample) -> tuple[Losses, Fakes]:
    clear = batch.clear.float() / 255
    fake = model.generator(model.frozen(clear))
    model.critic.requires_grad_(False)
    adversarial = (model.critic(fake) - 1).square().mean()
    model.critic.requires_grad_(True)
    l1 = (fake - clear).abs().mean()
    return {"total": l1 + 0.1 * adversarial, "l1": l1}, {"critic": (clear, fake.detach())}


def critic_losses(model: Toy, fakes: Fakes) -> Losses:
    real, fake = (model.critic(image) for image in fakes["critic"])
    return {"total": (real - 1).square().mean() + fake.square().mean()}


STAGE = Stage(("generator",), ("critic",), True, losses, critic_losses)  # type: ignore[arg-type]


@pytest.fixture
def toy() -> Toy:
    torch.manual_seed(0)
    return Toy()


def batch(value: float | None = None) -> Batch:
    clear = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    empty: dict[str, Tensor] = {name: torch.zeros(2) for name in ("strengths", "mask")}
    return {"clear": clear if value is None else torch.full((2, 3, 8, 8), value), "degraded": clear, **empty}


def make(toy: Toy) -> StageStep:
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    return StageStep(fabric, toy, STAGE, StageConfig(steps=1, weight_decay=0.0), 0.1)  # type: ignore[arg-type]


def test_networks_and_critics_move_at_their_own_rates(toy: Toy) -> None:
    step = make(toy)
    before = {name: part.weight.clone() for name, part in (("generator", toy.generator), ("critic", toy.critic))}
    frozen = toy.frozen[0].weight.clone()
    found = step(batch(), RATE)
    assert set(found) == {"total", "l1", "critic_total"}
    assert not any(loss.requires_grad for loss in found.values())
    # Adam's first step moves each weight by the learning rate, whatever its gradient.
    assert (toy.generator.weight - before["generator"]).abs().max().item() == pytest.approx(RATE, rel=1e-3)
    assert (toy.critic.weight - before["critic"]).abs().max().item() == pytest.approx(0.1 * RATE, rel=1e-3)
    assert torch.equal(toy.frozen[0].weight, frozen)
    assert (toy.frozen.training, toy.generator.training, toy.critic.training) == (False, True, True)


def test_the_game_is_played(toy: Toy) -> None:
    step = make(toy)
    images = batch()
    history = [step(images, 4 * RATE) for _ in range(50)]
    assert history[-1]["l1"] < 0.5 * history[0]["l1"]
    assert history[-1]["critic_total"] < history[0]["critic_total"]


def test_weights_are_as_before_a_loss_that_is_no_number(toy: Toy) -> None:
    step = make(toy)
    weights = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    with pytest.raises(NonFiniteError, match="trained: loss nan"):
        step(batch(float("nan")), RATE)
    for name, tensor in toy.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@settings(deadline=None)
@given(step=st.integers(0, 1000), each=st.integers(1, 9), processes=st.integers(1, 8))
def test_processes_together_see_one_process_s_batch(step: int, each: int, processes: int) -> None:
    batch = each * processes
    shares = [list(share(step, batch, rank, processes)) for rank in range(processes)]
    assert {len(indices) for indices in shares} == {each}
    assert [*chain(*shares)] == list(share(step, batch, 0, 1)) == list(range(step * batch, (step + 1) * batch))


@pytest.mark.parametrize(
    ("cores", "device", "processes", "workers"),
    [
        (2, "cpu", 1, 1),
        (2, "cpu", 2, 1),
        (16, "cpu", 1, 4),
        (16, "cuda", 1, 15),
        (16, "cuda", 4, 3),
        (64, "cuda", 1, 16),
    ],
)
def test_loading_leaves_cores_to_training(
    monkeypatch: pytest.MonkeyPatch, cores: int, device: str, processes: int, workers: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert worker_count(torch.device(device), processes) == workers


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Signals that reach the handlers which the program had before."""
    reached: list[int] = []
    before = {number: signal.signal(number, lambda found, _: reached.append(found)) for number in SIGNALS}
    yield reached
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_insists(number: int, handled: list[int]) -> None:
    with Interrupt() as interrupt:
        assert not interrupt.requested
        signal.raise_signal(number)
        assert interrupt.requested
        assert not handled
        signal.raise_signal(number)
        assert handled == [number]
    signal.raise_signal(number)
    assert handled == [number, number]
