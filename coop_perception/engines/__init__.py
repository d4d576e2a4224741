"""Engines: one network, loaded and ready to run, behind one small interface whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(RuntimeError):
    """A network that cannot be loaded or run; the message names the file or the tensor."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: None in `shape` is a dynamic dimension."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]


class Engine(Protocol):
    """A loaded network. `device` is the hardware's name in words, `precision` that of the arithmetic (`fp32`, ...)."""

    backend: str
    device: str
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def run(self, feeds: Mapping[str, NDArray[np.generic]], wanted: Sequence[str]) -> dict[str, NDArray[np.generic]]:
        """Run the network on arrays by input name and return the wanted outputs by name.

        Work that no wanted output depends on is not done where the backend can leave it out.

        Raises:
            EngineError: the backend refused the inputs or failed.
        """
        ...
