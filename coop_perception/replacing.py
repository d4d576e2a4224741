"""Files and folders that appear under their names when they are whole, and whatever they replace stays until then."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile


@contextmanager
def replacement(target: Path) -> Iterator[Path]:
    """A path to write the folder `target` to: beside it, under its own name.

    When it is left, what was written there is synced to the disk and takes the target's place; without it, or after an
    error, the target stays as it was. A process that is killed on the way leaves a folder `.NAME.partial` beside the
    target; the next one puts back what was put aside in it, and removes what was half made.

    Args:
        target: absolute, without symbolic links; its folder is made.

    Raises:
        OSError: nothing can be written there, or another process writes the same target.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    made, replaced = partial / "new" / target.name, partial / "replaced"
    with _lock(partial, target):
        _put_back(made, target, replaced)
        _empty(partial)
        made.parent.mkdir()
        try:
            yield made
            if made.exists():
                _take_place(made, target, replaced)
        finally:
            if target.exists() or not replaced.exists():
                shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; one that was there stays until this one is whole and on the disk.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data)
        replace_file(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def replace_file(written: Path, target: Path) -> None:
    """Have a written file, once it is on the disk, take another's place."""
    _sync(written)
    written.replace(target)
    _sync(target.parent)


def open_results(out: Path, names: Sequence[str], force: bool) -> None:
    """Make a folder for results, before the work whose results they are.

    Args:
        out: the folder.
        names: of what will be written into it.
        force: whether some of these may be there, and be replaced.

    Raises:
        OSError: another run's results are there, or nothing can be written.
    """
    there = [name for name in names if (out / name).exists()]
    if there and not force:
        raise FileExistsError(
            f"{out} holds {', '.join(there)} of another run; choose another --out, or allow these to be replaced "
            "(--force)"
        )
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=out):
        pass


@contextmanager
def _lock(partial: Path, target: Path) -> Iterator[None]:
    folder = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise FileExistsError(f"{target}: another process is writing it; wait, or choose another name") from None
    except OSError:
        pass  # a file system that knows no locks
    try:
        yield
    finally:
        os.close(folder)


def _put_back(made: Path, target: Path, replaced: Path) -> None:
    """What a process that was killed between two renames had put aside."""
    if replaced.exists() and not target.exists():
        replaced.rename(target)
        _sync(target.parent)
    elif replaced.exists() and made.exists():
        raise FileExistsError(
            f"{target} was made by others after a run that was to replace it had been killed; what stood there before "
            f"is {replaced}: move it to where you want it, or remove it"
        )


def _empty(folder: Path) -> None:
    for left in folder.iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def _take_place(made: Path, target: Path, replaced: Path) -> None:
    for folder, _, files in os.walk(made):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))
    if target.exists():
        target.rename(replaced)
    try:
        made.rename(target)
    except BaseException:
        if replaced.exists():
            replaced.rename(target)
        raise
    _sync(target.parent)


def _sync(path: Path) -> None:
    """Until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
