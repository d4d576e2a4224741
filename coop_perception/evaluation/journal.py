"""The rows of a run as they come, in a file that only grows: whatever ends the run, what it did is there.

The first line says what the run is, each other one is a frame's row, in JSON. A line without its end was being written
when the run was killed or the disk was full.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from coop_perception.evaluation.evaluation import EvaluationError
from coop_perception.evaluation.rows import Row, parsed_row
from coop_perception.shown import shown

NAME = "journal.jsonl"


class Journal:
    """Rows appended to a file. Use it in ``with``.

    Args:
        path: the file; one that is there is gone on with.
        run: what decides the results, as JSON; with an earlier run's file it must be that one's.

    Raises:
        EvaluationError: the file is another run's, or no journal.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self._run = json.loads(json.dumps(run))
        self._file: BinaryIO | None = None
        self.cameras: list[str] = []
        """Of each row, in order."""

    @property
    def rows(self) -> int:
        return len(self.cameras)

    def __enter__(self) -> Journal:
        begun = began(self.path)
        if begun is not None:
            refuse_another(self.path, begun, self._run)
        self._file = self.path.open("ab", buffering=0)
        try:
            self._begin(anew=begun is None)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: Row) -> None:
        """Raises OSError where it cannot be written; the rows before it are there."""
        self._write(row.as_dict())
        self.cameras.append(row.camera)

    def _begin(self, anew: bool) -> None:
        assert self._file is not None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # before anything is cut off: a line may be in work
        except BlockingIOError:
            raise EvaluationError(f"{self.path}: another process writes it; wait, or choose another --out") from None
        except OSError:
            pass  # a file system that knows no locks
        if anew:
            os.truncate(self.path, 0)
            self._write(self._run)
            return
        os.truncate(self.path, _whole_bytes(self.path))
        self.cameras = [row.camera for row in read_rows(self.path)]

    def _write(self, value: Any) -> None:
        assert self._file is not None
        line = memoryview(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        while line:  # a disk that becomes full takes a part, and refuses the next
            line = line[self._file.write(line) :]


def refuse_another(path: Path, begun: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    """Raises EvaluationError where what was begun is another run than this one."""
    for key, value in run.items():
        if begun.get(key) != value:
            raise EvaluationError(
                f"{path} is of a run with {key} {shown(begun.get(key))}, not {shown(value)}; give what that one was "
                "given, or start anew (--force, without --resume)"
            )


def began(path: Path) -> dict[str, Any] | None:
    """What a journal's run is; None where there is no journal, or none that had begun.

    Raises:
        EvaluationError: it is no journal.
    """
    try:
        with path.open("rb") as file:
            line = file.readline()
    except FileNotFoundError:
        return None
    if not line.endswith(b"\n"):
        return None
    try:
        begun = json.loads(line)
    except (ValueError, RecursionError):
        begun = None
    if not isinstance(begun, dict):
        raise EvaluationError(f"{path} is no journal of a run; move it away")
    return begun


def read_rows(path: Path) -> Iterator[Row]:
    """The whole rows of a journal, in order.

    Raises:
        EvaluationError: a line is no row.
    """
    sizes: dict[str, int] = {}
    with path.open("rb") as file:
        file.readline()
        for number, line in enumerate(file, 2):
            if not line.endswith(b"\n"):
                return
            try:
                row = parsed_row(json.loads(line))
                for name in ("confusion_raw", "confusion", "confidences"):
                    counts = getattr(row, name)
                    if counts is not None and sizes.setdefault(name, len(counts)) != len(counts):
                        raise ValueError(name)
            except (ValueError, TypeError, RecursionError) as error:
                raise EvaluationError(
                    f"{path}: line {number} is no row of this version; start anew (--force, without --resume)"
                ) from error
            yield row


def _whole_bytes(path: Path) -> int:
    """Length of a file up to its last end of line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while size:
            begin = max(0, size - 65536)
            file.seek(begin)
            end = file.read(size - begin).rfind(b"\n")
            if end >= 0:
                return begin + end + 1
            size = begin
    return 0
