"""ROS where /dev/shm has not a page left: its tracing library (LTTng) makes files of a page there, again every few
seconds, and the process dies of the first that it touches (SIGBUS)."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path

from coop_perception.exit_codes import NO_ROS

FOLDER = Path("/dev/shm")
_NAMES = [f"lttng-ust-wait-{version}{user}" for version in range(5, 13) for user in ("", f"-{os.getuid()}")]
"""Files of LTTng's versions, everybody's and this user's."""
_NOTHING = "no-room-for-lttng"


def prepare(folder: Path = FOLDER) -> None:
    """To be called before rclpy is imported. Where there is no room, links to nothing take the names of LTTng's files:
    it opens no link, and does without, as does who starts later; traces need that memory. Where there is room again,
    they are removed.

    Raises:
        SystemExit: rclpy is not installed.
    """
    if importlib.util.find_spec("rclpy") is None:
        raise SystemExit(NO_ROS)
    try:
        room = os.statvfs(folder).f_bavail >= len(_NAMES)
    except OSError:
        return  # there is none at all, which LTTng knows how to do without
    for name in _NAMES:
        with suppress(OSError):  # it is somebody else's
            _free(folder / name) if room else _take(folder / name)


def _free(name: Path) -> None:
    if name.is_symlink() and name.readlink() == Path(_NOTHING):
        name.unlink()


def _take(name: Path) -> None:
    if not name.is_symlink() and name.exists() and not name.stat().st_blocks:  # its page is still to come, and will not
        name.unlink()
    if not name.exists():
        name.symlink_to(_NOTHING)
