"""Engines: one network, loaded and ready to run, behind one small interface whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensor: TypeAlias = Any
"""A NumPy array, or memory of the engines' device that their `place` and `allocate` gave."""


class EngineError(RuntimeError):
    """A network that cannot be loaded or run; the message names the file or the tensor."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output: None in `shape` is a dynamic dimension."""

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...]


def checked(spec: TensorSpec, array: NDArray[np.generic]) -> NDArray[np.generic]:
    """An array for an input, contiguous.

    Raises:
        EngineError: its type or shape is not the input's.
    """
    fits = len(array.shape) == len(spec.shape) and all(
        wanted is None or found == wanted for found, wanted in zip(array.shape, spec.shape, strict=True)
    )
    if array.dtype != spec.dtype or not fits:
        raise EngineError(f"input {spec.name!r} is {array.dtype} {array.shape}, expected {spec.dtype} {spec.shape}")
    return np.ascontiguousarray(array)


class Engine(Protocol):
    """A loaded network. `device` is the hardware's name in words, `precision` that of the arithmetic (`fp32`, ...).

    `on_gpu`: whether that is a GPU. `path`: the network's file, as messages name it.

    The first run with other shapes than before is slow.

    Engines of one backend that were loaded together take each other's tensors. One thread at a time may use them.
    """

    backend: str
    device: str
    precision: str
    on_gpu: bool
    path: Path
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def place(self, name: str, array: NDArray[np.generic]) -> Tensor:
        """An input's array where engines read it without another copy; valid until the next call for that input.

        Raises:
            EngineError: its type or shape is not the input's, or memory is short.
        """
        ...

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Memory for an output of this shape, the batch included, that other engines read, to be given to `run` again
        and again.

        On a GPU engines that were loaded together may have one place for all tensors of a name and of one size of
        frames, whose content holds until one of them writes another there.

        Raises:
            EngineError: memory is short, or batches are never that large.
        """
        ...

    def run(
        self, feeds: Mapping[str, Tensor], wanted: Sequence[str], into: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run the network on tensors by input name and return the wanted outputs by name.

        Args:
            feeds: arrays, or tensors of `place` and `allocate`.
            wanted: names of outputs.
            into: memory that outputs are written to. Those that it does not name come as new arrays, the caller's own.

        Raises:
            EngineError: the backend refused the inputs or failed.
        """
        ...

    def prepare(self) -> None:
        """Make later runs with the input shapes of the last one as fast as they can be, whatever outputs they want.
        Takes long: for warming up, not for serving. Where there is nothing to prepare, it does nothing."""
        ...

    def close(self) -> None:
        """Free everything; the engine cannot run any more. May be called again."""
        ...


def close_all(engines: Mapping[str, Engine]) -> None:
    """Close engines: every one, also where others cannot be freed.

    Raises:
        EngineError: one cannot be freed, as of a GPU that is lost.
    """
    with ExitStack() as stack:
        for engine in engines.values():
            stack.callback(engine.close)
