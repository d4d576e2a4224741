"""Asking a database that somebody else has made: it can hold programs, which run when it is asked."""

from __future__ import annotations

import sqlite3

from coop_perception.recordings.blocks import DamagedFileError
from coop_perception.shown import plain

_STEPS = 10_000
"""Of SQLite's machine, some tenths of a millisecond, after which Python looks whether a signal has come."""


def interruptible(database: sqlite3.Connection) -> None:
    """Let Ctrl-C end a query in the middle. What it raises then becomes KeyboardInterrupt in `reason`."""
    database.set_progress_handler(lambda: 0, _STEPS)


def reason(error: sqlite3.Error) -> str:
    """What a query's error says.

    Raises:
        KeyboardInterrupt: it was Ctrl-C, which the sqlite3 module cannot pass on.
    """
    if str(error) == "interrupted":
        raise KeyboardInterrupt from error
    return plain(error, 200)


def check_table(database: sqlite3.Connection, name: str) -> None:
    """See that a name is an ordinary table's, whose columns hold what was written to them.

    Raises:
        DamagedFileError: it is a view, a virtual table, or has columns that are computed: each could take for ever.
        sqlite3.Error: the database cannot be read.
    """
    query = "SELECT type, rootpage FROM sqlite_master WHERE lower(name) = ?"
    found = database.execute(query, (name,)).fetchmany(2)
    if [kind for kind, _ in found] != ["table"] or not found[0][1]:
        kinds = " and ".join(str(kind) for kind, _ in found) or "nothing"
        raise DamagedFileError(f"its {name} are {plain(kinds, 60)}, expected one table")
    columns = database.execute(f"PRAGMA table_xinfo({name})").fetchmany(100)
    if any(column[6] for column in columns) or any(column[1].lower() == "rowid" for column in columns):
        raise DamagedFileError(f"its table {name} has columns that no recorder makes: computed ones, or a rowid")
