"""Engines whose networks take no time: what is left is the way to them and from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.contracts import CONTRACTS, QUARTER, Bundle
from coop_perception.engines import Tensor, TensorSpec, checked


class NoNetwork:
    """One of the networks (see `coop_perception.engines.Engine`); what it gives is always the same: every condition is
    present."""

    backend, device, precision, on_gpu = "none", "none", "none", False

    def __init__(self, name: str, bundle: Bundle) -> None:
        any_image, conditions = (None, None, None), (None, len(bundle.conditions))
        probabilities = (np.float32, (None, len(bundle.classes), None, None))
        tensors: dict[str, tuple[type[np.generic], tuple[int | None, ...]]] = {
            **dict.fromkeys(("image", "frame", "restored"), (np.uint8, (*any_image, 3))),
            **dict.fromkeys(("mask_raw", "mask", "confidence"), (np.uint8, any_image)),
            **dict.fromkeys(("probabilities", "refined_probabilities"), probabilities),
            **dict.fromkeys(("presence", "strength"), (np.float32, conditions)),
            "sensor": (np.uint8, (None, bundle.input.sensor, bundle.input.sensor, 3)),
            "familiarity": (np.float32, (None,)),
        }
        self.path = Path(name)
        self.inputs, self.outputs = (
            {tensor: TensorSpec(tensor, np.dtype(tensors[tensor][0]), tensors[tensor][1]) for tensor in names}
            for names in (CONTRACTS[name].inputs, CONTRACTS[name].outputs)
        )
        self._made: dict[tuple[str, tuple[int, ...]], NDArray[np.generic]] = {}

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        return checked(self.inputs[name], array)

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return np.ones(shape, self.outputs[name].dtype)

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        return {name: self._value(name, feeds) for name in wanted}

    def prepare(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _value(self, name: str, feeds: Mapping[str, Tensor]) -> NDArray[np.generic]:
        batch, height, width, _ = feeds["frame" if name == "restored" else "image"].shape
        if "probabilities" in name:
            height, width = height // QUARTER, width // QUARTER
        sides = iter((batch, height, width))
        shape = tuple(next(sides) if size is None else size for size in self.outputs[name].shape)
        if (name, shape) not in self._made:
            self._made[name, shape] = self.allocate(name, shape)
        return self._made[name, shape]


def no_networks(bundle: Bundle) -> dict[str, NoNetwork]:
    """By name, for the bundle's pipeline."""
    return {name: NoNetwork(name, bundle) for name in CONTRACTS}
