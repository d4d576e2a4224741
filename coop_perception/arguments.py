"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse
import os
from typing import Any, NoReturn


class _CommandParser(argparse.ArgumentParser):
    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; where the shell asks what could follow, the answer to that, and the process ends."""
        if "_ARGCOMPLETE" in os.environ:  # set by the shell's completion alone
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """One line, where argparse writes all options above it."""
        self.exit(2, f"{self.prog}: {message} (all options: {self.prog} --help)\n")


def command_parser(prog: str, description: str | None, example: str, notes: str = "") -> argparse.ArgumentParser:
    """A parser whose help shows description and notes line by line and ends with an example; an error is one line."""
    return _CommandParser(
        prog=prog,
        description=description,
        epilog=f"{notes}\n\nexample:\n  {example}" if notes else f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)
