"""Checkpoints as safetensors: weights, optimiser state and progress; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used; the message names the file."""


def save_weights(path: Path, networks: Mapping[str, nn.Module], facts: Mapping[str, str]) -> None:
    """Write the networks' weights, named `<network>.<parameter>`, with `facts` in the header."""
    _write(path, _named_weights(networks), facts)


def load_weights(path: Path, networks: Mapping[str, nn.Module]) -> dict[str, str]:
    """Read weights into the networks given (others in the file are left alone) and return the file's facts.

    Raises:
        CheckpointError: the file is missing or damaged, lacks a network, or has one of another shape.
    """
    facts = read_facts(path)
    tensors = load_file(path)
    for name, network in networks.items():
        own = {key[len(name) + 1 :]: value for key, value in tensors.items() if key.startswith(name + ".")}
        if not own:
            held = sorted({key.split(".")[0] for key in tensors})
            raise CheckpointError(f"{path}: has no {name}, only {', '.join(held)}; take a later stage's checkpoint")
        try:
            network.load_state_dict(own)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: its {name} is another network than the configuration's: {error}") from error
    return facts


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
    path: Path, facts: Mapping[str, str], steps: int, networks: Mapping[str, nn.Module], optimizer: Optimizer
) -> None:
    """Write what a stage interrupted after `steps` steps needs to go on as if it had not been interrupted."""
    tensors = _named_weights(networks)
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value).contiguous()
    _write(path, tensors, {**facts, "steps": str(steps)})


def load_progress(path: Path, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> int:
    """The reverse of `save_progress`; returns the steps done.

    Raises:
        CheckpointError: as `load_weights`.
    """
    facts = load_weights(path, networks)
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(path).items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            states.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    return int(facts["steps"])


def _named_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}.{key}": t.contiguous() for name, net in networks.items() for key, t in net.state_dict().items()}


def _write(path: Path, tensors: dict[str, Tensor], facts: Mapping[str, str]) -> None:
    temporary = path.with_suffix(".partial")
    save_file(tensors, temporary, metadata=dict(facts))
    temporary.replace(path)  # a killed run leaves the previous checkpoint whole
