"""Fast DDS's shared memory: what dead processes left in it removed, and none used where there is no room for it.

Each process has a segment in /dev/shm, and holds a lock on the file beside it (`_el`). What is killed leaves both for
ever. Where the file system is full, Fast DDS makes a segment all the same, and the process dies of the first page
(SIGBUS).
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from coop_perception.resources import share
from coop_perception.shown import plain

PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS reads at the start of a process: version 3 (Kilted and later), version 2 (Humble, Jazzy)."""
FOLDER = Path("/dev/shm")
_SEGMENT = re.compile("fastrtps_[0-9a-f]{16}")
_LOCK = "_el"
_YOUNGEST_S = 2.0
"""A lock file is made a moment before it is locked: younger ones are somebody's who is starting."""
_DEFAULT_SEGMENT = 549_408
_SPARE = 1 << 20
"""Bytes for what else a process makes there, such as its ports."""


def remove_dead(folder: Path = FOLDER) -> int:
    """Remove segments of this user's processes that are no more, and their locks; returns how many.

    Those of ports are left: whoever needs the port takes them over.
    """
    removed = 0
    try:
        files = list(folder.iterdir())
    except OSError:
        return 0
    for file in files:
        if file.name.endswith(_LOCK) and _SEGMENT.fullmatch(file.name.removesuffix(_LOCK)):
            removed += _remove_if_dead(file)
    return removed


def _remove_if_dead(lock: Path) -> bool:
    try:
        file = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(file)
        if found.st_uid != os.geteuid() or time.time() - found.st_mtime < _YOUNGEST_S:
            return False
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.with_name(lock.name.removesuffix(_LOCK)).unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
        return True
    except OSError:  # locked: it is in use
        return False
    finally:
        os.close(file)


def without_where_full(environment: Mapping[str, str], folder: Path = FOLDER) -> tuple[dict[str, str], str]:
    """Variables with which Fast DDS uses UDP alone, and why, where shared memory cannot be had; else nothing.

    Args:
        environment: of the process, before ROS is initialised.
        folder: of the shared memory.
    """
    if environment.get("RMW_IMPLEMENTATION", "rmw_fastrtps").partition("_cpp")[0] not in ("rmw_fastrtps", ""):
        return {}, ""
    needed = _needed(environment)
    if not needed:
        return {}, ""
    try:
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize
        writable = os.access(folder, os.W_OK | os.X_OK)
        reason = "it cannot be written to" if not writable else f"{free} bytes are free, {needed} are needed"
        if writable and free >= needed:
            return {}, ""
    except OSError as error:
        reason = plain(error.strerror)
    profile = str(share("config/fastdds_udp.xml"))
    said = (
        f"no shared memory in {folder} ({reason}): images go over UDP, more slowly; make room there (docker --shm-size)"
    )
    return {**dict.fromkeys(PROFILE_VARIABLES, profile), "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, said


def _needed(environment: Mapping[str, str]) -> int:
    """Bytes of shared memory that this process's transports take; 0: they use none."""
    named = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), None)
    if named is None:
        transports = environment.get("FASTDDS_BUILTIN_TRANSPORTS", "DEFAULT")
        return _DEFAULT_SEGMENT + _SPARE if transports in ("DEFAULT", "DEFAULTv6", "SHM", "LARGE_DATA") else 0
    try:
        profile = Path(named).read_text()
    except (OSError, ValueError):
        return _DEFAULT_SEGMENT + _SPARE
    if "SHM" not in profile and re.search(r"useBuiltinTransports>\s*false", profile):
        return 0
    sizes = [int(size) for size in re.findall(r"<segment_size>\s*(\d{1,18})\s*<", profile)]
    return max([_DEFAULT_SEGMENT, *sizes]) * 21 // 20 + _SPARE
