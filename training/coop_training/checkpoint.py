"""Checkpoints as safetensors: weights, averages, optimiser state and progress; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from coop_perception.replacing import partial_of, replace_file
from coop_training.ema import WeightAverage


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the file."""


def save_weights(path: Path, networks: Mapping[str, nn.Module], facts: Mapping[str, str]) -> None:
    """Write the networks' weights, named `<network>.<parameter>`, with `facts` in the header."""
    save_tensors(path, _named_weights(networks), facts)


def load_weights(path: Path, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Read weights into the networks given (others in the file are left alone) and return the file's facts.

    A network that has no weights, such as a user's segmenter, is not looked for.

    Raises:
        CheckpointError: the file is missing or damaged, lacks a network, or has one of another shape.
    """
    facts = read_facts(path)
    tensors = load_file(path)
    for name, network in networks.items():
        if not network.state_dict():
            continue
        own = _below(name, tensors)
        if not own:
            held = sorted({key.split(".")[0] for key in tensors})
            raise CheckpointError(f"{path}: has no {name}, only {', '.join(held)}; take a later stage's checkpoint")
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: its {name} is another network than the configuration's: {difference(network, own)}; "
                "take the configuration and the version that it was trained with"
            ) from error
    return facts


def difference(network: nn.Module, found: Mapping[str, Tensor]) -> str:
    """The first weight that does not fit, and how many there are."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    wrong = sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
    return (
        f"{wrong[0]} is {shapes.get(wrong[0], 'missing')}, expected {expected.get(wrong[0], 'no such weight')}"
        f" ({len(wrong)} weights do not fit)"
    )


def read_facts(path: Path) -> dict[str, str]:
    """The facts that a checkpoint was saved with.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {error}") from error


def save_progress(
    path: Path,
    networks: Mapping[str, nn.Module],
    average: WeightAverage,
    optimizers: Mapping[str, Optimizer],
    facts: Mapping[str, str],
) -> None:
    """Write what an interrupted stage needs to go on as if it had not been interrupted."""
    tensors = _named_weights(networks)
    for name, weights in average.weights.items():
        tensors |= {f"average.{name}.{key}": tensor for key, tensor in weights.items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    save_tensors(path, tensors, facts)


def load_progress(
    path: Path, networks: Mapping[str, nn.Module], average: WeightAverage, optimizers: Mapping[str, Optimizer]
) -> dict[str, str]:
    """The reverse of `save_progress`; returns the facts.

    Raises:
        CheckpointError: as `load_weights`, or the file lacks an average or an optimiser's state.
    """
    facts = load_weights(path, networks)
    tensors = load_file(path)
    try:
        average.load({name: _below(f"average.{name}", tensors) for name in average.weights})
        for name, optimizer in optimizers.items():
            _load_optimizer(optimizer, _below(f"optimizer.{name}", tensors))
    except (KeyError, IndexError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: does not fit this stage ({error}); begin anew with --force") from error
    return facts


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Write tensors with `facts` in the header. The file before stays until this one is whole and on the disk."""
    temporary = partial_of(path)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=dict(facts))
    replace_file(temporary, path)


def _load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".")
        parameter = parameters[int(index)]
        # Moments lie in memory as their parameter does (channels last), as when the optimiser makes them itself.
        kept = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        states.setdefault(int(index), {})[name] = kept
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})


def _named_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, net in networks.items() for key, tensor in net.state_dict().items()}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}
