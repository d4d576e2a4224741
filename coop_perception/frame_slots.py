"""The waiting room between a node's subscriptions and its worker: one frame per camera, the newest."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class FrameSlots(Generic[T]):
    """One slot per camera. A frame that finds its slot taken replaces the older one, which is handed back as dropped.

    Safe to use from one filling and one emptying thread.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self._slots: dict[str, T | None] = dict.fromkeys(cameras)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, camera: str, frame: T) -> T | None:
        """Leave a frame; returns the older one that it replaced, if any."""
        with self._changed:
            replaced = self._slots[camera]
            self._slots[camera] = frame
            self._changed.notify()
        return replaced

    def take(self) -> dict[str, T]:
        """Wait for a frame and take all that wait, at most one per camera; empty once the slots are closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or any(f is not None for f in self._slots.values()))
            if self._closed:
                return {}
            taken = {camera: frame for camera, frame in self._slots.items() if frame is not None}
            self._slots = dict.fromkeys(self._slots)
            return taken

    def close(self) -> None:
        """Wake the emptying thread for good; frames that still wait are let go."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
