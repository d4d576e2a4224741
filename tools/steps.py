"""Steps of a setup: each is done once, and again when what it depends on has changed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = Sequence[str]


class SetupError(Exception):
    """In one line: what went wrong or is missing, and what to do."""


@dataclass(frozen=True)
class Step:
    """What `action` does, command by command. It is done as long as `stamp` holds `digest`."""

    title: str
    stamp: Path
    digest: str
    action: Callable[[], Iterable[Command]]

    def is_done(self) -> bool:
        return self.stamp.is_file() and self.stamp.read_text() == self.digest

    def do(self, log: Path) -> None:
        """Does it, with the commands' output in `log`. Raises SetupError with its end when a command fails."""
        started = time.monotonic()
        show(f"{self.title} ...")
        self.stamp.unlink(missing_ok=True)
        for command in self.action():
            run(command, self.title, log)
        self.stamp.write_text(self.digest)
        show(f"{self.title}: {time.monotonic() - started:.1f} s", last=True)


def show(text: str, *, last: bool = False) -> None:
    """Prints a line. On a terminal it takes the place of the line before, unless that was a last one."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{text[:width]}", end="\n" if last else "", flush=True)
    else:
        print(text, flush=True)


def run(command: Command, title: str, log: Path) -> None:
    """Runs `command`, showing the latest line of its output now and then."""
    interval = 0.1 if sys.stdout.isatty() else 10.0  # [s]
    shown = time.monotonic()
    lines = []
    log.parent.mkdir(exist_ok=True)
    with (
        log.open("a") as log_file,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log_file.write(line)
            lines.append(line)
            if line.strip() and time.monotonic() - shown > interval:
                show(f"{title}: {line.strip()[:100]}")
                shown = time.monotonic()
    if process.returncode:
        show(f"{title}: failed", last=True)
        raise SetupError(f"{title} failed; all output is in {log}, which ends with:\n" + "".join(lines[-30:]))


def digest(*parts: str | Path) -> str:
    """Digest of texts, and of files with their paths and contents."""
    state = hashlib.sha256()
    for part in parts:
        state.update(f"\0{part}\0".encode() + (part.read_bytes() if isinstance(part, Path) else b""))
    return state.hexdigest()


def files(*folders: Path) -> list[Path]:
    """All files below `folders`, those that exist."""
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
