"""The waiting room in front of a thread that works on frames: one frame per camera, the newest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameSlots(Generic[T]):
    """One slot per camera. A frame that finds its slot taken replaces the older one, which is handed back as dropped.

    Fair by its shape: whatever waits is taken together, so a camera's frame is never behind two of another camera's.
    Safe to use from one filling thread per camera and one emptying thread.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self._slots: dict[str, T | None] = dict.fromkeys(cameras)
        self._skipped: set[str] = set()
        self._changed = threading.Condition()
        self._closed = self._drains = False
        self._first = 0.0
        """When the slots were last filled out of being empty (monotonic seconds)."""

    def put(self, camera: str, frame: T) -> T | None:
        """Leave a frame; returns the older one that it replaced, if any."""
        return self.put_all({camera: frame}).get(camera)

    def put_all(self, frames: Mapping[str, T]) -> dict[str, T]:
        """Leave frames that are to be taken together; returns the older ones that they replaced, by camera."""
        with self._changed:
            if not self._any():
                self._first = time.monotonic()
            waiting = {camera: self._slots[camera] for camera in frames}
            self._slots.update(frames)
            self._changed.notify()
        return {camera: frame for camera, frame in waiting.items() if frame is not None}

    def skip(self, camera: str) -> None:
        """Let the next `take` not wait for this camera's frame."""
        with self._changed:
            self._skipped.add(camera)
            self._changed.notify()

    def take(self, window_s: Callable[[], float] = lambda: 0.0) -> dict[str, T]:
        """Wait for a frame and take all that wait, at most one per camera; empty once the slots are closed.

        Args:
            window_s: how long after the first one's arrival the other cameras' frames are waited for; asked then.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._any())
            self._changed.wait_for(
                lambda: (
                    self._closed
                    or all(frame is not None or camera in self._skipped for camera, frame in self._slots.items())
                ),
                max(0.0, self._first + window_s() - time.monotonic()),
            )
            if self._closed and not self._drains:
                return {}
            taken = {camera: frame for camera, frame in self._slots.items() if frame is not None}
            self._slots = dict.fromkeys(self._slots)
            self._skipped.clear()
            return taken

    def close(self, drain: bool = False) -> None:
        """Wake the emptying thread for good; frames that still wait are let go, or, with `drain`, taken first."""
        with self._changed:
            self._closed, self._drains = True, drain
            self._changed.notify_all()

    def _any(self) -> bool:
        return any(frame is not None for frame in self._slots.values())
