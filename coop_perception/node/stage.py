"""One step of a frame's way through the node, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from coop_perception.ros.frame_slots import FrameSlots

T = TypeVar("T")

EARLY = 0.1
"""By this share of the following stage's last time a stage begins earlier than it has to: times vary."""
LOOK_S = 0.1
"""So often a stage that waits for the following one looks whether that has ended."""


class Stage(Generic[T]):
    """Works on whatever waits, at most one frame per camera, the newest.

    It begins no earlier than what it makes can be used, by how long the stages behind it took last time: of frames that
    come while those are busy, the ones that would be superseded there cost nothing, and the one that is worked on is as
    new as can be.

    Args:
        name: of the thread.
        cameras: that frames come from.
        work: is called with the frames of one batch, by camera; it must not raise.
        following: the stage that `work` gives its results to; several stages, of other cameras each, may have the same.
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
        self._cameras = cameras
        self._slots: FrameSlots[T] = FrameSlots(cameras)
        self._work, self._following, self._window_s = work, following, window_s
        self._changed: threading.Condition = following._changed if following else threading.Condition()
        """For all stages: what any of them does may be what another one waits for."""
        self._took_s = 0.0
        """For the last batch."""
        self._done: float | None = None
        """When the batch in work is expected to be done (monotonic seconds); None between two batches."""
        self._handed: set[str] = set()
        """Cameras whose frames have been left since the last batch was taken."""
        self._held = False
        """Whether it waits for the following stage: what is handed to it may still be replaced by something newer."""
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, frames: Mapping[str, T]) -> dict[str, T]:
        """Leave frames that belong to one batch; returns the older ones that they replaced."""
        with self._changed:
            self._handed.update(frames)
            return self._slots.put_all(frames)

    def skip(self, camera: str) -> None:
        """Leave none: the batch that is being gathered does not wait for this camera."""
        self._slots.skip(camera)

    def close(self, drain: bool = False) -> None:
        """End after the batch in work; frames that wait are let go, or, with `drain`, worked on first."""
        self._slots.close(drain)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end, so long; returns whether it is there."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            if self._following is not None:
                self._wait_for(self._following)
            frames = self._slots.take(self._window_s)
            if not frames:
                return
            begun = time.monotonic()
            with self._changed:
                self._handed.clear()
                self._done = begun + self._took_s
                self._changed.notify_all()
            self._work(frames)
            with self._changed:
                self._took_s, self._done = time.monotonic() - begun, None
                self._changed.notify_all()

    def _wait_for(self, following: Stage[Any]) -> None:
        """Until what is begun now is done about when the following stage can begin with it."""
        with self._changed:
            self._held = True
            self._changed.notify_all()
            while following._thread.is_alive():
                handed = not following._handed.isdisjoint(self._cameras)
                about_to_take = handed and following._done is None and not following._held
                early_s = self._took_s + EARLY * following._took_s
                left_s = LOOK_S if about_to_take else following._free() - early_s - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, LOOK_S))
            self._held = False
            self._changed.notify_all()

    def _free(self) -> float:
        """When it will probably begin with another batch, if there is one (monotonic seconds)."""
        now = time.monotonic()
        free = now if self._done is None else max(now, self._done)
        return free if self._following is None else max(free, self._following._free() - self._took_s)
