"""One at a time in this process: capturing CUDA graphs, and loading, building and freeing engines.

Loading, building and freeing wait for the whole GPU, which breaks a capture in whatever thread it is under way. Running
engines does not: it goes on meanwhile, and never waits here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from coop_perception.engines import EngineError

_lock = threading.Lock()
_waiting: deque[Callable[[], object]] = deque()


@contextmanager
def exclusive() -> Iterator[None]:
    """Held by one thread at a time, which must not hold it already."""
    try:
        with _lock:
            yield
    finally:
        _free_waiting()


def free(work: Callable[[], object]) -> None:
    """Free something: now, or, where a thread is in `exclusive`, as soon as it is done.

    Nobody waits, for this is also called by the garbage collector, which runs in any thread, that one included.

    Raises:
        EngineError: as `work`, where it is done now.
    """
    if _lock.acquire(blocking=False):
        try:
            work()
        finally:
            _lock.release()
            _free_waiting()
    else:
        _waiting.append(work)
        _free_waiting()


def _free_waiting() -> None:
    while _waiting and _lock.acquire(blocking=False):
        try:
            with suppress(EngineError, IndexError):  # whom could it be told? another thread may have been faster
                _waiting.popleft()()
        finally:
            _lock.release()
