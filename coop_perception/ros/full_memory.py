"""rclpy where /dev/shm has not a page left: its tracing library (LTTng) makes two files of a page there when it is
loaded, and the process dies of the first that it touches (SIGBUS)."""

from __future__ import annotations

import importlib.util
import os
import resource
import time
from pathlib import Path

from coop_perception.exit_codes import NO_ROS

FOLDER = Path("/dev/shm")
_WAITING = "lttng-ust-wait-*"
_PAGES = 2
_LOADED_S = 0.2
"""Its threads have found by then that they get no memory; without it there are no traces, which need it."""


def import_rclpy(folder: Path = FOLDER) -> None:
    """Import it, where there is no room with a limit of no bytes on all files, by which LTTng's own error handling is
    reached. The empty files that it made are removed: others would die of them.

    Raises:
        SystemExit: it is not installed.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise SystemExit(NO_ROS)
    if _has_room(folder):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        import rclpy  # noqa: F401

        time.sleep(_LOADED_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for file in folder.glob(_WAITING):
        found = file.lstat()
        if found.st_size == 0 and found.st_uid == os.geteuid():
            file.unlink(missing_ok=True)


def _has_room(folder: Path) -> bool:
    try:
        room = os.statvfs(folder)
        there = [file for file in folder.glob(_WAITING) if file.stat().st_size > 0]
    except OSError:
        return True  # there is none at all, which LTTng knows how to do without
    return room.f_bavail >= _PAGES or len(there) >= _PAGES
