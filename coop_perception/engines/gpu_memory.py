"""Memory of engines that run one after the other: places for their tensors, and what they work in."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coop_perception.engines.cuda import CudaError, Resources, Stream
from coop_perception.engines.exclusive import free

Shape = tuple[int, ...]
GROWTH = 1.5
"""By at least this factor memory grows that is not freed: what was outgrown is then at most twice what is in use,
whatever sizes of frames come."""


@dataclass(frozen=True, slots=True)
class Place:
    """Memory that holds tensors of one name. An output of one engine that is another's input lies where that one reads
    it.

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
    """A place for each name of tensors, which moves when it has to grow; and for each size that engines are prepared
    for one of its own, which stays, as CUDA graphs hold its address. All have room for the largest batch.

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
        self._kept: dict[tuple[str, Shape], Place] = {}
        self._moving: dict[str, Place] = {}
        self.moves = 0
        """How often a place has moved: addresses that were asked for before may not be the tensors' any more."""

    def at(self, name: str, shape: Shape) -> Place:
        """Of a tensor of this shape, the batch included.

        Raises:
            CudaError: memory is short.
        """
        kept = self._kept.get((name, shape[1:]))
        if kept is not None:
            return kept
        place, needed = self._moving.get(name), self._needed(shape)
        if place is None or len(place.pinned) < needed:
            had = 0 if place is None else len(place.pinned)
            place = self._moving[name] = self._made(name, max(needed, round(GROWTH * had)))
            self.moves += 1
        return place

    def keep(self, name: str, shape: Shape) -> None:
        """Tensors of this size stay from now on where they are.

        Raises:
            CudaError: memory is short.
        """
        if (name, shape[1:]) not in self._kept:
            self._kept[name, shape[1:]] = self.at(name, shape)
            del self._moving[name]

    def _needed(self, shape: Shape) -> int:
        """Numbers in the largest batch."""
        return self._frames * math.prod(shape[1:])

    def _made(self, name: str, size: int) -> Place:
        """For so many numbers."""
        dtype, bound = self._dtypes[name], self._integrated and name not in self._between
        taken = Resources()
        try:
            device = 0 if bound else taken.device_memory(size * dtype.itemsize)
            pinned = taken.pinned_memory((size,), dtype)
        except CudaError:  # frames for which memory is short may come again and again
            with contextlib.suppress(CudaError):
                free(taken.close)
            raise
        self._resources.adopt(taken)
        return Place(device or pinned.ctypes.data, pinned, bound)


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
            grown = max(size, round(GROWTH * self._size))
            self._address, self._size = self._resources.device_memory(grown), grown
        return self._address, self._size
