"""Prints the generated parts of docs/conditions.md: a table of the conditions and each one's equation and source; with
--suites, the families of the realistic suite and the mixtures."""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable

from coop_perception.degradations import CONDITIONS
from coop_perception.degradations.realistic.suites import MIXED, REALISTIC, Variant


def main() -> None:
    if "--suites" in sys.argv:
        suites()
    else:
        conditions()


def conditions() -> None:
    print("| condition | what | parameter | levels | needs depth |")
    print("| --- | --- | --- | --- | --- |")
    for condition in CONDITIONS.values():
        levels = ", ".join(f"{level:g}" for level in condition.levels)
        depth = "yes" if condition.needs_depth else ""
        print(f"| `{condition.name}` | {condition.summary} | {condition.parameter} | {levels} | {depth} |")
    for condition in CONDITIONS.values():
        print(f"\n### {condition.name}\n\n{explanation(condition.function)}")


def suites() -> None:
    print("| family | what | variants | source |")
    print("| --- | --- | --- | --- |")
    families: dict[str, list[Variant]] = {}
    for variant in REALISTIC:
        families.setdefault(variant.family, []).append(variant)
    for family, variants in families.items():
        texts = [" ".join((inspect.getdoc(function) or "").split()) for function in variants[0].functions]
        what = " ".join(re.split(r"(?<=[a-z)])[.:](?: |$)", text)[0] + "." for text in texts[:1])
        what = "a clear image as another camera takes it: nothing is to be mended" if variants[0].clear else what
        sources = [found[1] for text in texts if (found := re.search(r"Source: (.*?)(?: Args| Returns|$)", text))]
        names = "; ".join(variant.name.removeprefix(f"{family} ") for variant in variants)
        print(f"| `{family}` | {what.replace('``', '`')} | {names} | {sources[0] if sources else ''} |")
    print("\nMixed, in physical order: " + "; ".join(variant.name for variant in MIXED) + ".")


def explanation(function: Callable[..., object]) -> str:
    """The docstring up to its arguments, as Markdown that shows equations."""
    text = inspect.getdoc(function) or ""
    text = text.split("\nArgs:")[0].strip().replace("``", "`")
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    return re.sub(r"\.\. math::\n((?: {4}.*\n?)+)", _math_block, text)


def _math_block(match: re.Match[str]) -> str:
    return f"```math\n{textwrap.dedent(match[1]).rstrip()}\n```\n"


if __name__ == "__main__":
    main()
