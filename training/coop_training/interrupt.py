"""Ctrl-C and SIGTERM end training after the step under way, not in the middle of it."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """While entered (in the main thread), the first SIGINT or SIGTERM sets `requested`; a second one acts as ever."""

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Interrupt:
        self._before = {number: signal.signal(number, self._request) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """For a worker process: Ctrl-C and `timeout` reach the whole process group, and the parent still wants a batch."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
