"""Memory of engines that run one after the other: fixed places for their tensors, by name and size, and what they work
in."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines.cuda import Resources, Stream

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Memory that holds tensors of one name and size, in batches of any number. An output of one engine that is
    another's input lies where that one reads it.

    address: as the GPU sees it. pinned: as the host does, which the GPU copies from and to by itself; where `bound`,
    both are the same memory.
    """

    address: int
    pinned: NDArray[np.generic]
    bound: bool

    def host(self, shape: Shape) -> NDArray[np.generic]:
        """What the host sees of a tensor."""
        return self.pinned[: math.prod(shape)].reshape(shape)

    def upload(self, stream: Stream, array: NDArray[np.generic]) -> None:
        """Put an array there, once all earlier work is done."""
        content = self.host(array.shape)
        np.copyto(content, array)
        if not self.bound:
            stream.upload(self.address, content)

    def download(self, stream: Stream, shape: Shape) -> NDArray[np.generic]:
        """What the host sees once the stream was waited for, until the next run."""
        content = self.host(shape)
        if not self.bound:
            stream.download(content, self.address)
        return content


class Places:
    """A place for each name and size of tensors, made when it is first asked for, with room for the largest batch.

    They stay until the resources are closed, as CUDA graphs hold their addresses.

    Args:
        resources: hold the memory.
        frames: of the largest batch.
        dtypes: of the tensors, by name.
        between: the tensors that one engine gives and another one reads.
        integrated: the GPU has no memory of its own. What the host gives or reads is then not copied; what only passes
            between engines is in memory that the GPU caches, which pinned memory is not.
    """

    def __init__(
        self,
        resources: Resources,
        frames: int,
        dtypes: Mapping[str, np.dtype[np.generic]],
        between: Collection[str],
        integrated: bool,
    ) -> None:
        self._resources, self._frames, self._dtypes = resources, frames, dtypes
        self._between, self._integrated = between, integrated
        self._made: dict[tuple[str, Shape], Place] = {}

    def at(self, name: str, shape: Shape) -> Place:
        """Of a tensor of this shape, the batch included.

        Raises:
            CudaError: memory is short.
        """
        key = (name, shape[1:])
        if key not in self._made:
            dtype, size = self._dtypes[name], self._frames * math.prod(shape[1:])
            bound = self._integrated and name not in self._between
            device = 0 if bound else self._resources.device_memory(size * dtype.itemsize)
            pinned = self._resources.pinned_memory((size,), dtype)
            self._made[key] = Place(device or pinned.ctypes.data, pinned, bound)
        return self._made[key]


class Scratch:
    """Memory that engines work in, one for all of them, as they run one after the other. It grows; what CUDA graphs
    were captured with stays until the resources are closed.

    Args:
        resources: hold the memory.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._address = self._size = 0

    def of(self, size: int) -> tuple[int, int]:
        """Address and size of at least so many bytes.

        Raises:
            CudaError: memory is short.
        """
        if size > self._size:
            self._address, self._size = self._resources.device_memory(size), size
        return self._address, self._size
