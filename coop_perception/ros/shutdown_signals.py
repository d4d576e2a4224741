"""SIGINT and SIGTERM for a process that is to end cleanly whatever it is doing.

Imports nothing that takes long, so that it can be the first thing that an executable does.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

GRACE_S = 1.5
"""How long after a signal the process may take to end by itself."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ShutdownSignals:
    """From its creation on a signal interrupts nothing, neither Python code nor foreign code that it is in. It wakes a
    thread that calls `shut_down` until `end` is called. After GRACE_S, or where there is nothing yet to shut down, the
    process ends on the spot, with status 0.
    """

    def __init__(self) -> None:
        self.received, self._ended = threading.Event(), threading.Event()
        self.shut_down: Callable[[], object] | None = None
        self._reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        self.thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self.thread.start()

    def end(self) -> None:
        """All is cleaned up: from here on signals are ignored. To be called in the main thread.

        Python's own end gives signals their default action back, by which a second one, of the terminal and of launch
        say, would kill the process; but for those that are ignored.
        """
        self._ended.set()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    def _watch(self) -> None:
        os.read(self._reading, 1)
        self.received.set()
        deadline = time.monotonic() + GRACE_S
        while self.shut_down is not None and time.monotonic() < deadline:
            self.shut_down()  # again and again: the first time may have been before it had anything to do
            if self._ended.wait(0.05):
                return
        exit_now()


def exit_now(status: int = 0) -> None:
    """End though threads are in foreign code, which Python cannot end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
