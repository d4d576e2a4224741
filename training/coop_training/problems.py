"""What is wrong with a file by its pydantic model, in one line."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from coop_perception.shown import plain, shown

MOST = 10
"""So many are listed."""
_PLAINLY = {"extra_forbidden": "there is no such field", "missing": "is missing"}
"""What pydantic says in the words of its own options."""


def problems(error: ValidationError) -> str:
    """Each field that is wrong, why, and what it holds."""
    found = error.errors()
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    return "; ".join([_problem(details) for details in found[:MOST]] + more)


def _problem(details: Any) -> str:
    field = plain(".".join(map(str, details["loc"])), 200) or "file"
    if details["type"] in _PLAINLY:
        return f"{field}: {_PLAINLY[details['type']]}"
    problem = f"{field}: {plain(details['msg'].removeprefix('Value error, '))}"  # pydantic's, before a ValueError's own
    given = details["input"]
    return problem if isinstance(given, dict | list) else f"{problem}, found {shown(given)}"
