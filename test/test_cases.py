"""The tests that docs/cases.md names hold its rows: there are such tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_each_row_names_tests_that_there_are() -> None:
    named = NAMED.findall((ROOT / "docs/cases.md").read_text())
    assert named
    for file, test in named:
        path = ROOT / file if file.startswith("training/") else ROOT / "test" / file
        tests = {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{path} has no {test}"
