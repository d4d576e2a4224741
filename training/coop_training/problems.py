"""What is wrong with a file by its pydantic model, in one line."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from coop_perception.shown import plain, shown

MOST = 10
"""So many are listed."""


def problems(error: ValidationError) -> str:
    """Each field that is wrong, why, and what it holds."""
    found = error.errors()
    more = [f"and {len(found) - MOST} more"] if len(found) > MOST else []
    return "; ".join([_problem(details) for details in found[:MOST]] + more)


def _problem(details: Any) -> str:
    problem = f"{plain('.'.join(map(str, details['loc'])), 200) or 'file'}: {plain(details['msg'])}"
    given = details["input"]
    return problem if isinstance(given, dict | list) else f"{problem}, found {shown(given)}"
