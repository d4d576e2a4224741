"""A bundle as it was checked: a copy that nobody else can change between the checksum and the loading."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from coop_perception.engines.private_files import make_folder, open_own
from coop_perception.model.bundle import LARGEST_FILE, MANIFEST, BundleError, load_bundle
from coop_perception.shown import plain

_PIECE = 1 << 20


def take_snapshot(directory: Path, copy: Path) -> None:
    """Copy a bundle's manifest and the files that it names. Read what is loaded by `load_bundle` from the copy, which
    checks what was copied.

    Args:
        directory: of the bundle.
        copy: a folder to make, this user's alone.

    Raises:
        BundleError: as `load_bundle`; or a file was exchanged meanwhile, or there is no room for the copy.
    """
    bundle = load_bundle(directory)  # first of all, so that what is refused is refused unread, by its own name
    try:
        make_folder(copy)
        _copy(directory / MANIFEST, copy / MANIFEST)
        for file in bundle.files:
            target = copy / file.relative_to(directory)
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, target)
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory}: cannot be copied to {copy} to be loaded: {plain(error, 200)}") from error


def _copy(source: Path, target: Path) -> None:
    with (
        FileIO(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)) as read,  # waits for no pipe's writer
        open_own(target, os.O_EXCL) as written,
    ):
        if not stat.S_ISREG(os.fstat(read.fileno()).st_mode):
            raise ValueError(f"{source.name} is no regular file any more")
        left = LARGEST_FILE
        while piece := read.read(min(_PIECE, left)):
            written.write(piece)
            left -= len(piece)
