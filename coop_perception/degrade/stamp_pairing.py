"""Finds the depth image that belongs to a camera image: the one with the same stamp."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Image = TypeVar("Image")
Depth = TypeVar("Depth")

KEPT = 4
"""Depth images that wait for their camera image; large ones, and the camera is hardly ever that late."""


class StampPairing(Generic[Image, Depth]):
    """Pairs what arrives on two topics, whichever comes first, and never holds back more than one image.

    An image whose depth has not come yet waits for it, until a newer image arrives: then it goes on without.
    """

    def __init__(self) -> None:
        self._waiting: tuple[int, Image] | None = None
        self._depths: OrderedDict[int, Depth] = OrderedDict()

    def image(self, stamp: int, image: Image) -> list[tuple[Image, Depth | None]]:
        """An image arrives; returns what is ready, in order."""
        ready = self.flush()
        if stamp in self._depths:
            ready.append((image, self._depths.pop(stamp)))
        else:
            self._waiting = stamp, image
        return ready

    def flush(self) -> list[tuple[Image, Depth | None]]:
        """The image that waits, if one does, without its depth."""
        waiting, self._waiting = self._waiting, None
        return [] if waiting is None else [(waiting[1], None)]

    def depth(self, stamp: int, depth: Depth) -> list[tuple[Image, Depth | None]]:
        """A depth image arrives; returns the image that waited for it, if one did."""
        if self._waiting is not None and self._waiting[0] == stamp:
            (image, _), *_ = self.flush()
            return [(image, depth)]
        self._depths[stamp] = depth
        while len(self._depths) > KEPT:
            self._depths.popitem(last=False)
        return []
