"""The CPU's name, and how much of it this process may use."""

from __future__ import annotations

import os
import re
from pathlib import Path


def cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else "CPU"


def usable_cores(group: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may run on, and no more than its container's share of time is worth: with more threads
    than `docker run --cpus=2` grants, all of them stand still for a part of each tenth of a second.

    Args:
        group: of version 2, as a container sees its own.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = group.joinpath("cpu.max").read_text().split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no such group, or `max`
        return cores
