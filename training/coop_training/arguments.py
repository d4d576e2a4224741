"""What the commands' arguments have in common."""

from __future__ import annotations

import argparse


def command_parser(prog: str, description: str | None, example: str) -> argparse.ArgumentParser:
    """A parser whose help shows its description line by line, and ends with an example."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive(text: str) -> int:
    """An argument that counts something."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number above 0")
    return int(text)
