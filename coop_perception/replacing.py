"""Files and folders that appear under their names when they are whole, and whatever they replace stays until then."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

_PARTS = ("new", "replaced")
"""Of a folder in which another is written."""


@contextmanager
def replacement(target: Path) -> Iterator[Path]:
    """A path to write the folder `target` to: beside it, under its own name.

    When it is left, what was written there is synced to the disk and takes the target's place; without it, or after an
    error, the target stays as it was. A process that is killed on the way leaves a folder `.NAME.partial` beside the
    target; the next one puts back what was put aside in it, and removes what was half made.

    Args:
        target: absolute, without symbolic links; its folder is made.

    Raises:
        OSError: nothing can be written there, another process writes the same target, or `.NAME.partial` is something
            else's.
    """
    partial = target.with_name(f".{target.name}.partial")
    new, old = _PARTS
    made, replaced = partial / new / target.name, partial / old
    with _own_folder(partial, target):
        _put_back(made, target, replaced)
        _empty(partial)
        made.parent.mkdir()
        try:
            yield made
            if made.exists():
                _take_place(made, target, replaced)
        finally:
            if target.exists() or not replaced.exists():
                with suppress(OSError):
                    _empty(partial)
                    partial.rmdir()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; one that was there stays until this one is whole and on the disk.

    Raises:
        OSError: it cannot be written.
    """
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            file.write(data)
        replace_file(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def partial_of(path: Path) -> Path:
    """Where a file is written until it takes its place: a name that nothing has, also where it was a killed process's,
    or a link or a pipe that somebody put there.

    Raises:
        OSError: a folder has it.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    return partial


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


def refuse_others(folder: Path, others: Iterable[Path], what: str) -> None:
    """Raises FileExistsError where a folder that is to be replaced holds something that was not written with it.

    Args:
        folder: that is to be replaced.
        others: what is in it, and was not written with it.
        what: it was written as, for the message.
    """
    first = min(others, default=None)
    if first is not None:
        raise FileExistsError(
            f"{folder} holds {first.relative_to(folder)}, which is no part of {what}, so it is not replaced; move that "
            "away, or choose another name"
        )


@contextmanager
def alone(folder: Path, what: str) -> Iterator[None]:
    """Held by one process at a time for a folder; where it is another's, or was another's and is gone, an error.

    Args:
        folder: which is there, and no link.
        what: is written, for the message.

    Raises:
        OSError: another process holds it, or it is no folder.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = not folder.exists() or not os.path.samestat(os.fstat(opened), folder.stat())
        except BlockingIOError:
            gone = True
        except OSError:
            gone = False  # a file system that knows no locks
        if gone:
            raise FileExistsError(f"{what}: another process is writing it; wait, or choose another name")
        yield
    finally:
        os.close(opened)


@contextmanager
def _own_folder(partial: Path, target: Path) -> Iterator[None]:
    """Where nobody else writes meanwhile, nor has anything that could be lost."""
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        raise FileExistsError(
            f"{partial} is no folder, in which {target} could be written; remove it, or choose another name"
        )
    partial.mkdir(parents=True, exist_ok=True)
    with alone(partial, str(target)):
        refuse_others(partial, (file for file in partial.iterdir() if file.name not in _PARTS), "a half-written folder")
        yield


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
