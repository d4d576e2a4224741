"""docs/troubleshooting.md and the code: each family of errors has its place there, and what it quotes is still said."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from set_up_packages import set_up_package

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
MODULES = [
    ast.parse(path.read_text())
    for folder in ("coop_perception", "training/coop_training", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
OTHERS = ("error: externally-managed-environment", "backend …")
"""Quoted, but not from messages of this repository as a whole: pip's, and the log's line on backends."""


def families() -> set[str]:
    """Exceptions that the code defines, but those for within one file."""
    classes = [node for module in MODULES for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    known = {"Exception", "ArithmeticError", "OSError", "RuntimeError", "ValueError"}
    while found := {c.name for c in classes if {ast.unparse(base) for base in c.bases} & known} - known:
        known |= found
    return {name for name in known if any(c.name == name for c in classes) and not name.startswith("_")}


def texts() -> Iterator[str]:
    """Texts in the code; `…` for what is put into them."""
    for module in MODULES:
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)


TEXTS = "\n".join(texts())
QUOTED = re.findall(r"^\| `([^`]+)`[^|]*\|[^|]*\|[^|]*\|$", PAGE, re.MULTILINE)


def test_each_family_of_errors_has_its_place() -> None:
    named = set(re.findall(r"`([A-Z]\w+(?:Error|Interrupted))`", PAGE))
    assert named == families()


@pytest.mark.parametrize("message", [message for message in QUOTED if message not in OTHERS])
def test_what_is_quoted_is_said(message: str) -> None:
    parts = [re.escape(part.strip()) for part in message.split("…") if part.strip(" :;,()")]
    assert parts
    assert re.search(r"[^\n]*?".join(parts), TEXTS), message


def test_messages_are_quoted() -> None:
    """So that the test above cannot be of nothing."""
    assert len(QUOTED) > 50


def test_the_sites_list_has_a_section_for_each_family_that_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_package("mermaidx")
    monkeypatch.syspath_prepend(ROOT / "tools")
    import docs_hooks

    raised = {
        node.exc.func.id
        for module in MODULES
        for node in ast.walk(module)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and any(isinstance(argument, ast.JoinedStr) for argument in node.exc.args[:1])
    }
    listed = docs_hooks.errors()
    assert set(re.findall(r"^## (\w+)$", listed, re.MULTILINE)) >= raised & families()
    assert "- `` …: format is …, this version reads …; export the bundle again ``\n" in listed
