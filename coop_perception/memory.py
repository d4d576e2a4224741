"""Memory that is free, back to the system."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """The C library keeps what was freed for its own next use, hundreds of megabytes once networks were loaded and run."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
