"""One step of a frame's way through the node, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from coop_perception.ros.frame_slots import FrameSlots

T = TypeVar("T")

TAKEN_S = 0.1
"""So often a stage that waits for the following one to begin looks whether that has ended."""

EARLY = 0.2
"""By this share of the following stage's last time a stage begins earlier than it has to: times vary."""


class Stage(Generic[T]):
    """Works on whatever waits, at most one frame per camera, the newest.

    It begins no earlier than what it makes can be used: of frames that come while the following stage is busy, those
    that would be superseded there cost nothing, and the one that is worked on is as new as can be.

    Args:
        name: of the thread.
        cameras: that frames come from.
        work: is called with the frames of one batch, by camera; it must not raise.
        following: the stage that `work` gives its results to.
        window_s: how long a batch waits for the other cameras' frames.
    """

    def __init__(
        self,
        name: str,
        cameras: Sequence[str],
        work: Callable[[Mapping[str, T]], None],
        following: Stage[Any] | None = None,
        window_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._slots: FrameSlots[T] = FrameSlots(cameras)
        self._work, self._following, self._window_s = work, following, window_s
        self._changed = threading.Condition()
        self._took_s = 0.0
        """For the last batch."""
        self._done: float | None = None
        """When the batch in work is expected to be done (monotonic seconds); None between two batches."""
        self._handed = False
        """Whether frames have been left since the last batch was taken."""
        self._held = False
        """Whether it waits for the following stage: what is handed to it may still be replaced by something newer."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, frames: Mapping[str, T]) -> dict[str, T]:
        """Leave frames that belong to one batch; returns the older ones that they replaced."""
        with self._changed:
            self._handed = True
            return self._slots.put_all(frames)

    def close(self, drain: bool = False) -> None:
        """End after the batch in work; frames that wait are let go, or, with `drain`, worked on first."""
        self._slots.close(drain)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end, so long; returns whether it is there."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def wait_until_nearly_done(self, ahead_s: float) -> None:
        """Until no batch is in work or about to be, or the one that is will probably be done within `ahead_s`."""
        with self._changed:
            while self._thread.is_alive():
                if self._done is None and (self._held or not self._handed):
                    return
                left_s = TAKEN_S if self._done is None else self._left_s() - ahead_s
                if left_s <= 0:
                    return
                self._changed.wait(left_s)

    def _left_s(self) -> float:
        assert self._done is not None
        return self._done - EARLY * self._took_s - time.monotonic()

    def _tell(self, held: bool) -> None:
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            if self._following is not None:
                self._tell(held=True)
                self._following.wait_until_nearly_done(self._took_s)
                self._tell(held=False)
            frames = self._slots.take(self._window_s)
            if not frames:
                return
            begun = time.monotonic()
            with self._changed:
                self._handed, self._done = False, begun + self._took_s
                self._changed.notify_all()
            self._work(frames)
            with self._changed:
                self._took_s, self._done = time.monotonic() - begun, None
                self._changed.notify_all()
