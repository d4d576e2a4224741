"""Files that nobody else can have written: engines are code, and what they are loaded from has to be one's own."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedWriter, FileIO
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
PARTIAL = ".partial"
"""What the name of a file that is being written ends with."""
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def distrusted(path: Path) -> str | None:
    """Why what a file or folder holds is not to be taken, in words: somebody else than this user and root owns it or
    can write to it, or it cannot be looked at. None: it can be taken, or is not there."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return _others_can(path, found)


def _others_can(path: Path, found: os.stat_result) -> str | None:
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to another user ({found.st_uid}), who could have put anything there"
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        return f"others can write to {path} (mode {mode:o}): remove what they may have put there, and chmod go-w it"
    return None


def make_folder(path: Path) -> None:
    """Make a folder that is this user's alone, whatever the umask; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(FOLDER)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(FOLDER)


def open_own(path: Path, flags: int) -> FileIO:
    """Open a file to write to, made where it is not there, this user's alone, whatever the umask.

    Args:
        path: no symbolic link, which is not followed.
        flags: more of `os.open`'s.

    Raises:
        OSError: it is a symbolic link, or cannot be opened.
    """
    file = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, FILE), "w")
    os.fchmod(file.fileno(), FILE)
    return file


def write_own(path: Path, data: bytes) -> None:
    """Write a file that is this user's alone, at once or not at all, and to the disk.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")  # another process may write the same one
    try:
        partial.unlink(missing_ok=True)
        with BufferedWriter(open_own(partial, os.O_EXCL)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        try:
            partial.unlink(missing_ok=True)
        except OSError:  # what the first one says, counts
            pass
        raise


def read_trusted(path: Path) -> bytes:
    """What a file holds that nobody else can have written. Looked at is what is opened: who may rename a folder above
    could exchange a file between a look at its name and the reading.

    Raises:
        OSError: it cannot be read, is no regular file, or is not to be trusted; `strerror` says which.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        reason = _others_can(path, found) if stat.S_ISREG(found.st_mode) else f"{path} is no regular file"
        if reason is not None:
            raise PermissionError(errno.EPERM, reason)
        return FileIO(file, closefd=False).readall()
    finally:
        os.close(file)


def read_own(path: Path) -> bytes:
    """What a file holds; nothing where it is not there, cannot be read, or is not to be trusted."""
    try:
        return b"" if distrusted(path.parent) else read_trusted(path)
    except OSError:
        return b""
