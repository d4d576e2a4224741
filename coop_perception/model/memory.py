"""Memory of networks that are no longer used, back to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1
_MIB = 1 << 20


@contextmanager
def returnable() -> Iterator[None]:
    """For loading and for freeing networks: what is large is mapped, and what is freed is not kept.

    glibc's thresholds for both grow by themselves, up to 32 and 64 MiB, so that the second bundle's networks would come
    to lie in heaps that never shrink. Outside they stay at that: a frame's buffers are better taken from a heap than
    mapped each time.
    """
    _set_threshold(_MIB)
    try:
        yield
    finally:
        _set_threshold(32 * _MIB)


def give_back() -> None:
    """Return what is free: hundreds of megabytes after networks were loaded and run."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_threshold(size: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, size)
        mallopt(_M_TRIM_THRESHOLD, 2 * size)
