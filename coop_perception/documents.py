"""YAML and JSON from outside: the only place that parses any.

What is read is bounded, whatever the file holds: its size, how deep it nests, and how much it would be if each of its
aliases were written out, as whoever goes through it does. Merge keys (`<<`) and tags are not taken, nor keys that are
there twice: one of them would be lost without a word.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from coop_perception.shown import plain, shown

LIMIT = 256 * 1024
"""Bytes of a file, some thirty times what the manifest of `models/street` has."""
DEEPEST = 32
"""Levels of sequences and mappings."""
LONGEST_NUMBER = 100
"""Characters of anything in YAML that is no string; some take time that grows with the square of it."""
_TOO_DEEP = f"it nests deeper than {DEEPEST} levels"
_TAG = "tag:yaml.org,2002:"
_KINDS = {_TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")}


class DocumentError(ValueError):
    """A file that cannot be read as YAML or JSON: one line, which names it."""


def read_yaml(path: Path, limit: int = LIMIT) -> Any:
    """What a YAML file holds.

    Args:
        path: a regular file, in UTF-8.
        limit: bytes that it may have; with its aliases written out it may be twice as large.

    Raises:
        DocumentError: there is no such file, or it is not to be read.
    """
    return parse_yaml(_text(path, "YAML", limit), f"{path}:", limit)


def parse_yaml(text: str, source: str, limit: int = LIMIT) -> Any:
    """What a YAML text holds; `source` begins the message of its DocumentError."""
    try:
        _check_length(text, limit)
        return _bounded(yaml.load(text, _Loader), limit)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise _error(source, "YAML", error) from error


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """What a JSON file holds; as `read_yaml`."""
    return parse_json(_text(path, "JSON", limit), f"{path}:", limit)


def parse_json(text: str, source: str, limit: int = LIMIT) -> Any:
    """What a JSON text holds; as `parse_yaml`."""
    try:
        _check_length(text, limit)
        return _bounded(json.loads(text, object_pairs_hook=_distinct), limit)
    except (ValueError, RecursionError) as error:
        raise _error(source, "JSON", error) from error


def _text(path: Path, kind: str, limit: int) -> str:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ValueError(f"it is larger than the {limit} bytes that are read")
        return data.decode()
    except (OSError, ValueError) as error:
        raise _error(f"{path}:", kind, error) from error


def _check_length(text: str, limit: int) -> None:
    if len(text) > limit:
        raise ValueError(f"it has {len(text)} characters, {limit} at most are read")


def _error(source: str, kind: str, error: Exception) -> DocumentError:
    if isinstance(error, FileNotFoundError):
        return DocumentError(f"{plain(source)} no such file")
    if isinstance(error, OSError):
        reason = error.strerror or type(error).__name__
    elif isinstance(error, RecursionError):
        reason = _TOO_DEEP
    elif isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        reason = f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})"
    else:
        reason = str(error)
    return DocumentError(f"{plain(source)} cannot be read as {kind}: {plain(reason, 200)}")


class _Loader(yaml.SafeLoader):
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST + 1:
            raise ValueError(_TOO_DEEP)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merges no key into others: `construct_object` refuses it."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag == _TAG + "merge":
            raise _refusal(node, "merge keys (<<) are not taken; write the fields out")
        if node.tag not in _KINDS:
            raise _refusal(node, f"the tag {shown(node.tag)} is not taken")
        if node.tag != _TAG + "str" and isinstance(node, yaml.ScalarNode) and len(node.value) > LONGEST_NUMBER:
            raise _refusal(node, f"{shown(node.value)} is too long for a number; put a string in quotes")
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if key in seen:
                    raise _refusal(key_node, f"the key {shown(key)} is there twice")
                seen.add(key)
        return mapping


def _refusal(node: yaml.Node, reason: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=reason, problem_mark=node.start_mark)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {shown(key)} is there twice")
        mapping[key] = value
    return mapping


def _bounded(document: Any, limit: int) -> Any:
    """The document, once it has been gone through as a program would: what is aliased once for each alias.

    Raises:
        ValueError: it is deeper than DEEPEST, written out more than twice `limit`, or has half of a surrogate pair.
    """
    left = 2 * limit
    waiting = [(document, 0)]
    while waiting:
        value, depth = waiting.pop()
        inner: list[Any] = []
        if isinstance(value, str):
            _check_characters(value)
        elif isinstance(value, dict):
            inner = [each for pair in value.items() for each in pair]
        elif isinstance(value, list):
            inner = value
        left -= 1 + len(value if isinstance(value, str) else inner)
        if left < 0:
            raise ValueError(f"its aliases written out, it is larger than {2 * limit} bytes")
        if inner and depth == DEEPEST:
            raise ValueError(_TOO_DEEP)
        waiting += [(each, depth + 1) for each in inner]
    return document


def _check_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(text)} has half of a surrogate pair, which is no character") from error
