"""Prints the generated part of docs/conditions.md: a table of the conditions, then each one's equation and source."""

from __future__ import annotations

import inspect
import re
import textwrap

from coop_perception.degradations import CONDITIONS, Condition


def main() -> None:
    print("| condition | what | parameter | levels | needs depth |")
    print("| --- | --- | --- | --- | --- |")
    for condition in CONDITIONS.values():
        levels = ", ".join(f"{level:g}" for level in condition.levels)
        depth = "yes" if condition.needs_depth else ""
        print(f"| `{condition.name}` | {condition.summary} | {condition.parameter} | {levels} | {depth} |")
    for condition in CONDITIONS.values():
        print(f"\n### {condition.name}\n\n{explanation(condition)}")


def explanation(condition: Condition) -> str:
    """The docstring up to its arguments, as Markdown that shows equations."""
    text = inspect.getdoc(condition.function) or ""
    text = text.split("\nArgs:")[0].strip().replace("``", "`")
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return re.sub(r"\.\. math::\n((?: {4}.*\n?)+)", _math_block, text)


def _math_block(match: re.Match[str]) -> str:
    return f"```math\n{textwrap.dedent(match[1]).rstrip()}\n```\n"


if __name__ == "__main__":
    main()
