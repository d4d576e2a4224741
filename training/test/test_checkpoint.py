"""Checkpoints: what is written is read again, and what cannot be used is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from coop_training.checkpoint import (
    CheckpointError,
    load_progress,
    load_weights,
    read_facts,
    save_progress,
    save_weights,
)
from coop_training.ema import WeightAverage
from coop_training.loop import reached
from torch import nn
from torch.optim import Adam, AdamW, Optimizer

Side = tuple[dict[str, nn.Module], WeightAverage, dict[str, Optimizer]]


def make(seed: int) -> Side:
    torch.manual_seed(seed)
    networks: dict[str, nn.Module] = {
        "one": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last),
        "two": nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 1, 3)),
    }
    optimizers: dict[str, Optimizer] = {
        "trained": AdamW(networks["one"].parameters()),
        "critics": Adam(networks["two"].parameters(), betas=(0.0, 0.9)),
    }
    return networks, WeightAverage({"one": networks["one"]}, 0.9), optimizers


def steps(side: Side, first: int, count: int) -> None:
    networks, average, optimizers = side
    for step in range(first, first + count):
        torch.manual_seed(step)
        networks["two"](networks["one"](torch.randn(2, 3, 8, 8))).square().mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        average.update(step)


def test_progress_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    path = tmp_path / "progress.safetensors"
    whole, resumed = make(0), make(1)
    steps(whole, 0, 3)
    save_progress(path, *whole, {"steps": "3"})
    assert load_progress(path, *resumed) == {"steps": "3"}
    steps(whole, 3, 3)
    steps(resumed, 3, 3)
    for name, network in whole[0].items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, resumed[0][name].state_dict()[key]), (name, key)
    for key, tensor in whole[1].weights["one"].items():
        assert torch.equal(tensor, resumed[1].weights["one"][key]), key


def test_optimiser_state_lies_in_memory_as_its_parameters(tmp_path: Path) -> None:
    path = tmp_path / "progress.safetensors"
    whole, resumed = make(0), make(1)
    steps(whole, 0, 1)
    save_progress(path, *whole, {})
    load_progress(path, *resumed)
    weight = resumed[0]["one"][0].weight  # type: ignore[index]
    assert resumed[2]["trained"].state[weight]["exp_avg"].stride() == weight.stride()
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_a_checkpoint_is_on_the_disk_before_it_takes_anothers_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "stage.safetensors"
    (tmp_path / ".stage.safetensors.partial").write_bytes(b"half, of a run that was killed")
    networks, _, _ = make(0)
    save_weights(path, networks, {"stage": "first"})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save_weights(path, networks, {"stage": "second"})
    assert load_weights(path, networks) == {"stage": "first"}
    save_weights(path, networks, {"stage": "third"})
    assert load_weights(path, networks) == {"stage": "third"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "edited", [{"stage": None}, {"steps": None}, {"steps": "x"}, {"steps": "-1"}, {"steps": "11"}, {"seconds": "nan"}]
)
def test_progress_that_does_not_say_how_far_it_is(tmp_path: Path, edited: dict[str, str | None]) -> None:
    path = tmp_path / "progress.safetensors"
    assert reached(path, "joint", 10) is None
    facts = {"stage": "joint", "steps": "10", "seconds": "2.5"}
    save_weights(path, make(0)[0], facts)
    assert reached(path, "joint", 10) == (10, 2.5)
    assert reached(path, "refinement", 10) is None
    save_weights(path, make(0)[0], {key: value for key, value in (facts | edited).items() if value is not None})
    with pytest.raises(CheckpointError, match="does not say how far it is; begin anew with --force"):
        reached(path, "joint", 10)


def test_a_checkpoint_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "stage.safetensors"
    networks, average, optimizers = make(0)
    with pytest.raises(CheckpointError, match=r"stage\.safetensors: cannot be read as a checkpoint"):
        read_facts(path)
    path.write_bytes(b"\x80\x04not tensors")
    with pytest.raises(CheckpointError, match=r"stage\.safetensors: cannot be read as a checkpoint"):
        load_weights(path, networks)
    save_weights(path, {"one": networks["one"]}, {"stage": "first"})
    assert load_weights(path, {"one": networks["one"]}) == {"stage": "first"}
    with pytest.raises(CheckpointError, match="has no two, only one"):
        load_weights(path, networks)
    with pytest.raises(CheckpointError, match=r"its one is another.* is .*, expected .* \(\d weights do not"):
        load_weights(path, {"one": nn.Conv2d(3, 5, 3)})
    save_weights(path, networks, {})
    with pytest.raises(CheckpointError, match="does not fit this stage"):
        load_progress(path, networks, average, optimizers)
