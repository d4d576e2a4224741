"""How a command ends; docs/reference/commands.md has the table. A SystemExit with a message ends with 1, argparse
with 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from coop_perception.shown import LONGEST_MESSAGE, plain

DONE = 0
CANNOT = 1
GATE = 3
INCOMPLETE = 4
INTERRUPTED = 130
NO_ROS = "ROS 2's Python package rclpy is not there; source a ROS 2, or run `make setup` in a checkout and use .venv"


class IncompleteError(Exception):
    """Results are there, but rest on less than was; the message says on how much."""


class GateError(Exception):
    """Results are there, but do not pass what was asked of them; the message says which of it."""


@contextmanager
def one_line(command: str, failures: tuple[type[Exception], ...], kept: str) -> Iterator[None]:
    """Turns what ends a command into its one line and its exit code.

    Args:
        command: its name.
        failures: what it may raise that it cannot do its work.
        kept: what there is after Ctrl-C, unless the KeyboardInterrupt says it.

    Raises:
        SystemExit: instead of any of these.
    """
    try:
        yield
    except failures as error:
        raise SystemExit(f"{command}: {plain(error, LONGEST_MESSAGE)}") from error
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rclpy":
            raise
        raise SystemExit(f"{command}: {NO_ROS}") from error
    except GateError as error:
        print(f"{command}: {plain(error, LONGEST_MESSAGE)}", file=sys.stderr)
        raise SystemExit(GATE) from error
    except IncompleteError as error:
        print(f"{command}: {plain(error, LONGEST_MESSAGE)}", file=sys.stderr)
        raise SystemExit(INCOMPLETE) from error
    except KeyboardInterrupt as stop:
        raise SystemExit(interrupted(command, str(stop) or kept)) from None


def interrupted(command: str, kept: str) -> int:
    """Says that Ctrl-C ended a command, and what there is after it; its exit code."""
    print(f"{command}: interrupted; {kept}", file=sys.stderr)
    return INTERRUPTED
