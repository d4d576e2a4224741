"""What TensorRT says of itself: it returns None or False where it fails, and its logger gets why."""

from __future__ import annotations

import functools
from collections import deque
from typing import Any

KEPT = 20
"""Messages that are kept, the newest."""


class Log:
    """TensorRT's logger and the warnings and errors it received.

    Args:
        module: tensorrt or tensorrt_rtx.
    """

    def __init__(self, module: Any) -> None:
        kept: deque[str] = deque(maxlen=KEPT)
        severity = module.ILogger.Severity
        serious = (severity.INTERNAL_ERROR, severity.ERROR, severity.WARNING)

        class Logger(module.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                module.ILogger.__init__(self)  # pybind's classes want it so

            def log(self, level: Any, message: str) -> None:
                if level in serious:
                    kept.append(message.strip())

        self.logger = Logger()
        self._kept = kept

    def clear(self) -> None:
        """Forget what was said: what matters begins now."""
        self._kept.clear()

    def text(self) -> str:
        """What was said since `clear`."""
        return "; ".join(self._kept) or "it does not say why"


@functools.cache
def log_of(module: Any) -> Log:
    """The one log of the module in this process: TensorRT goes on using the first logger it was given."""
    return Log(module)
