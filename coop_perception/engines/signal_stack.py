"""The stack that a thread's signal handlers run on."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Whatever stack for signal handlers this thread has, it has again afterwards (sigaltstack(2)).

    OpenVINO gives the thread one of the least size there is. A signal that comes while wide registers are in use, by
    PyTorch say, does not fit on it, and kills the process.
    """
    libc = ctypes.CDLL(None)
    before = _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
