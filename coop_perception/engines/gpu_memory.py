"""Fixed places for the tensors of engines that run one after the other: by name, the same for all of them."""

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
    """Memory that holds a tensor of one name, whatever its shape. An output of one engine that is another's input lies
    where that one reads it.

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


def places(
    resources: Resources,
    sizes: Mapping[str, int],
    dtypes: Mapping[str, np.dtype[np.generic]],
    between: Collection[str],
    integrated: bool,
) -> dict[str, Place]:
    """A place for each tensor.

    Args:
        resources: hold the memory.
        sizes: the most numbers that each tensor has.
        dtypes: of the tensors.
        between: the tensors that one engine gives and another one reads.
        integrated: the GPU has no memory of its own. What the host gives or reads is then not copied; what only passes
            between engines is in memory that the GPU caches, which pinned memory is not.

    Raises:
        CudaError: memory is short.
    """
    made = {}
    for name, size in sizes.items():
        bound = integrated and name not in between
        device = 0 if bound else resources.device_memory(size * dtypes[name].itemsize)
        pinned = resources.pinned_memory((size,), dtypes[name])
        made[name] = Place(device or pinned.ctypes.data, pinned, bound)
    return made
