"""What a camera's status message says: counts since activation, rates and percentiles over a sliding window."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from coop_perception.metrics import percentiles

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts since activation; rates in Hz, times in milliseconds over the last WINDOW_S, NaN where it is empty."""

    received: int
    processed: int
    clear: int
    """Of those that were processed, the ones that were to be restored and showed nothing."""
    dropped: Mapping[str, int]
    recently_dropped: Mapping[str, int]
    """Over the last WINDOW_S."""
    input_rate: float
    output_rate: float
    latency_ms: tuple[float, float, float]
    """p50, p95, p99, from reception to publication."""
    stages_ms: Mapping[str, float]
    """Median per stage."""
    silence_s: float
    """Since the last frame was received, or since activation."""
    age_s: float
    """By how much the last frame's stamp was behind the node's clock at its reception; NaN before the first."""
    present: tuple[str, ...] | None
    """The conditions that were there at the last processed frame; None where they were not estimated."""


class CameraStatistics:
    """Counts one camera's frames. Safe to use from several threads.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._begun = clock, clock()
        self._lock = threading.Lock()
        self._received, self._processed, self._clear = 0, 0, 0
        self._present: tuple[str, ...] | None = None
        self._last, self._age_s = self._begun, float("nan")
        self._dropped: Counter[str] = Counter()
        self._arrivals: deque[float] = deque()
        self._drops: deque[tuple[float, str]] = deque()
        self._results: deque[tuple[float, float, Mapping[str, float]]] = deque()

    def received(self, age_s: float = float("nan")) -> None:
        """A frame arrived, whose stamp is `age_s` behind the node's clock."""
        with self._lock:
            self._received += 1
            self._last, self._age_s = self._clock(), age_s
            self._arrivals.append(self._last)
            self._trim()

    def dropped(self, reason: str) -> None:
        with self._lock:
            self._dropped[reason] += 1
            self._drops.append((self._clock(), reason))
            self._trim()

    def processed(
        self,
        latency_ms: float,
        stages_ms: Mapping[str, float],
        clear: bool = False,
        present: tuple[str, ...] | None = None,
    ) -> None:
        """A frame was published, within `latency_ms`; clear, present: as in Summary."""
        with self._lock:
            self._processed += 1
            self._clear += clear
            self._present = present
            self._results.append((self._clock(), latency_ms, stages_ms))
            self._trim()

    def summary(self) -> Summary:
        with self._lock:
            self._trim()
            # A camera that has run for less than the window has its rate over the time that it has run.
            span = max(min(WINDOW_S, self._clock() - self._begun), 1e-9)
            latencies = [latency for _, latency, _ in self._results]
            names = dict.fromkeys(name for _, _, stages in self._results for name in stages)
            return Summary(
                received=self._received,
                processed=self._processed,
                clear=self._clear,
                dropped=dict(self._dropped),
                recently_dropped=Counter(reason for _, reason in self._drops),
                input_rate=len(self._arrivals) / span if self._arrivals else float("nan"),
                output_rate=len(self._results) / span if self._results else float("nan"),
                latency_ms=percentiles(latencies),
                stages_ms={
                    name: float(np.median([stages[name] for _, _, stages in self._results if name in stages]))
                    for name in names
                },
                silence_s=self._clock() - self._last,
                age_s=self._age_s,
                present=self._present,
            )

    def _trim(self) -> None:
        oldest = self._clock() - WINDOW_S
        while self._arrivals and self._arrivals[0] < oldest:
            self._arrivals.popleft()
        while self._drops and self._drops[0][0] < oldest:
            self._drops.popleft()
        while self._results and self._results[0][0] < oldest:
            self._results.popleft()
