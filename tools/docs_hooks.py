"""What mkdocs does to the pages of docs/: generated parts, links that leave docs/, equations as MathML, drawings."""

from __future__ import annotations

import ast
import html
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import mermaidx
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "reporting.md",
}
"""Files of the repository's root, and the pages that they become."""
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "multiple of"}


def on_files(files: Any, config: Any) -> Any:
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text().replace('="docs/', '="')))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    markdown = re.sub(r"^<!-- generated: (\w+) -->$", lambda found: GENERATED[found[1]](), markdown, flags=re.MULTILINE)
    return re.sub(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)", lambda found: _link(found, page.file.src_uri), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Equations as MathML and drawings as SVG, so that pages fetch nothing; bars that tables have escaped in code."""
    content = re.sub(r"<td.*?</td>", lambda found: found[0].replace("\\|", "|"), content, flags=re.DOTALL)
    content = re.sub(
        r'<pre class="mermaid"><code>(.*?)</code></pre>',
        lambda found: f'<div class="drawing">{mermaidx.render(html.unescape(found[1])).svg()}</div>',
        content,
        flags=re.DOTALL,
    )
    return re.sub(
        r'(<(span|div) class="arithmatex">)\s*\\[(\[](.*?)\\[)\]]\s*(</\2>)',
        lambda found: (
            found[1] + convert(html.unescape(found[3]), display="block" if found[2] == "div" else "inline") + found[4]
        ),
        content,
        flags=re.DOTALL,
    )


def _link(found: re.Match[str], page: str) -> str:
    """The same link where it stays in docs/, else one to the page that the file has become, else its text alone."""
    text, target, anchor = found[1], found[2], found[3] or ""
    source = next((name for name, uri in OUTSIDE.items() if uri == page), f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    site = OUTSIDE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
    if site is None:
        return text
    return f"[{text}]({posixpath.relpath(site, posixpath.dirname(page) or '.')}{anchor})"


@cache
def messages() -> str:
    """Each message and service with its file, whose comments say what the fields mean."""
    files = sorted((ROOT / "coop_perception_msgs").glob("msg/*.msg")) + sorted(
        (ROOT / "coop_perception_msgs").glob("srv/*.srv")
    )
    return "\n".join(
        f"## {path.stem}\n\n`coop_perception_msgs/{path.parent.name}/{path.stem}`\n\n```python\n{path.read_text()}```\n"
        for path in files
    )


@cache
def commands() -> str:
    """What each command says of itself."""
    calls = [
        (point.name, point.module, ())
        for point in sorted(entry_points(group="console_scripts"), key=lambda point: point.name)
        if point.module.startswith(("coop_perception.", "coop_training."))
    ]
    module = next(module for name, module, _ in calls if name == "evaluate_bag")
    calls.append(("evaluate_bag compare", module, ("compare",)))
    return "\n".join(f"### {name}\n\n```text\n{_help(module, *words)}```\n" for name, module, words in sorted(calls))


def _help(module: str, *words: str) -> str:
    call = [sys.executable, "-c", f"from {module} import main; main()", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "110"}
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.replace(f"{ROOT}/", "")


@cache
def configuration() -> str:
    """Sections and fields of a training configuration, from the classes that read it."""
    module = ast.parse((ROOT / "training/coop_training/config.py").read_text())
    sections = [
        node
        for node in module.body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "_Section" for base in node.bases)
    ]
    lines = []
    for section in sorted(sections, key=lambda section: section.name != "TrainConfig"):  # the file itself first
        lines += [f"### {section.name}", "", _one_line(ast.get_docstring(section) or ""), ""]
        lines += ["| field | type | default | limits | meaning |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(cells)} |" for cells in _fields(section)]
        lines.append("")
    return "\n".join(lines)


def _fields(section: ast.ClassDef) -> Iterator[tuple[str, ...]]:
    for node, after in zip(section.body, [*section.body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        match after:
            case ast.Expr(ast.Constant(str(text))):
                meaning = _one_line(text)
            case _:
                meaning = ""
        default, limits = _default(node.value)
        yield f"`{node.target.id}`", f"`{_cell(ast.unparse(node.annotation))}`", default, limits, _cell(meaning)


def _default(value: ast.expr | None) -> tuple[str, str]:
    if value is None:
        return "required", ""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Field"):
        return f"`{_cell(ast.unparse(value))}`", ""
    limits = [f"{_LIMITS[k.arg]} {ast.unparse(k.value)}" for k in value.keywords if k.arg in _LIMITS]
    given = [*value.args, *(k.value for k in value.keywords if k.arg == "default")]
    made = [k.value for k in value.keywords if k.arg == "default_factory"]
    default = f"`{_cell(ast.unparse(given[0]))}`" if given else f"`{ast.unparse(made[0])}()`" if made else "required"
    return default, ", ".join(limits)


@cache
def errors() -> str:
    """Each message that the code raises, below its family and where docs/troubleshooting.md has that."""
    messages: dict[str, set[str]] = {}
    for folder in ("coop_perception", "training/coop_training", "tools"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Raise(ast.Call(ast.Name(family), [ast.Constant(str()) | ast.JoinedStr() as text, *_])):
                        messages.setdefault(family, set()).add(_message(text))
    parts = re.split(r"^## (.+)\n", (ROOT / "docs/troubleshooting.md").read_text(), flags=re.MULTILINE)
    lines = []
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for family in re.findall(r"`([A-Z]\w+(?:Error|Interrupted))`", text):
            if found := messages.pop(family, set()):
                lines += [f"## {family}", "", f"What helps: [{title}](../troubleshooting.md#{anchor}).", ""]
                lines += [*(f"- `` {message} ``" for message in sorted(found) if re.search(r"\w{3}", message)), ""]
    return "\n".join(lines)


def _message(text: ast.Constant | ast.JoinedStr) -> str:
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return _one_line("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


GENERATED: dict[str, Callable[[], str]] = {
    "messages": messages,
    "commands": commands,
    "configuration": configuration,
    "errors": errors,
}
