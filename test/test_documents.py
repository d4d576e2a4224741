"""YAML and JSON from outside: read whole, or refused in one line and at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from coop_perception.documents import DEEPEST, LIMIT, DocumentError, parse_json, parse_yaml, read_json, read_yaml
from coop_perception.shown import LONGEST, plain, shown

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(12))
"""Nine to the twelfth, in 600 bytes."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(deadline=None, max_examples=30)
@given(VALUES)
def test_what_is_written_is_read(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value), "it") == value
    assert parse_json(json.dumps(value), "it") == value


@settings(deadline=None)
@given(st.text() | st.text("[]{}:,&*!<-?|>'\"#%@ \n\\u10.ade"))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_yaml, parse_json):
        said = ""
        try:
            parse(text, "it")
        except DocumentError as error:
            said = str(error)
        assert not said or said.startswith("it cannot be read as ")
        assert said.isprintable()
        assert len(said) < 300


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "its aliases written out"),
        ("&a [*a]", "nests deeper than"),
        ("- &a {k: 1}\n- <<: *a", r"merge keys \(<<\) are not taken"),
        ("a: 1\nb:\n  c: 1\n  c: 2", r"the key 'c' is there twice \(line 4, column 3\)"),
        ("[" * (DEEPEST + 2), "nests deeper than"),
        ("[" * LIMIT, "nests deeper than"),
        ('"\\ud800"', r"'\\ud800' has half of a surrogate pair"),
        ("!!python/object/apply:os.system [ls]", "the tag .* is not taken"),
        ("!!binary aGk=", "the tag .* is not taken"),
        ("1" + ":1" * 10_000, "too long for a number"),
        ("0x" + "f" * 10_000, "too long for a number"),
        ("2001-99-99", "month must be"),
        ("? [a]\n: b", "unhashable"),
        ("x" * (LIMIT + 1), f"{LIMIT} at most"),
        ("a: [", r"line 1, column 5"),
        ("a\x1b[2J: [", "unacceptable character"),
    ],
    ids=lambda value: value[:12],
)
def test_yaml_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=rf"^it cannot be read as YAML: .*{says}"):
        parse_yaml(text, "it")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ("[" * 100_000, "nests deeper than"),
        ("[" * (DEEPEST + 1) + "1" + "]" * (DEEPEST + 1), "nests deeper than"),
        ('"\\ud800"', "half of a surrogate pair"),
        ("1" * 10_000, "4300 digits"),
        ("{", "line 1"),
    ],
    ids=lambda value: value[:12],
)
def test_json_that_is_refused(text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=f"^it cannot be read as JSON: .*{says}"):
        parse_json(text, "it")


def test_plain_aliases_are_taken() -> None:
    assert parse_yaml("a: &a {steps: 1}\nb: *a", "it") == {"a": {"steps": 1}, "b": {"steps": 1}}


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_files_that_are_refused(read: object, tmp_path: Path) -> None:
    assert callable(read)
    large, pipe, latin = (tmp_path / name for name in ("large", "pipe", "latin"))
    large.write_text(" " * (LIMIT + 1))
    os.mkfifo(pipe)
    latin.write_bytes(b"\xe4")
    for path, says in (
        (tmp_path, "no regular file"),
        (Path("/dev/zero"), "no regular file"),
        (pipe, "no regular file"),
        (large, f"larger than the {LIMIT} bytes"),
        (latin, "can't decode byte 0xe4"),
    ):
        with pytest.raises(DocumentError, match=f"^{path}: cannot be read as .*{says}"):
            read(path)
    with pytest.raises(DocumentError, match=f"^{tmp_path}/none: no such file$"):
        read(tmp_path / "none")


@pytest.mark.parametrize("field", ["conditions: ", "classes: ", "input: ", "networks: ", "name: "])
def test_a_manifest_that_explodes_is_refused_at_once(field: str, tmp_path: Path) -> None:
    """In a process of its own: it would hold every thread of this one."""
    (tmp_path / "bundle.yaml").write_text(f"format: 1\nignore_id: 255\n{BOMB}{field}*a12\n")
    program = f"""
import pathlib
from coop_perception.model.bundle import BundleError, load_bundle
try:
    load_bundle(pathlib.Path({str(tmp_path)!r}))
except BundleError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.startswith(f"{tmp_path}/bundle.yaml: cannot be read as YAML: its aliases written out")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("short", "'short'"),
        ("x" * 1000, repr("x" * LONGEST) + "…"),
        ("\x1b[31m\n\u202e", r"'\x1b[31m\n\u202e'"),
        (1 << 20_000, "a number of 20001 bits"),
        (None, "None"),
        ([1, "a"], "[1, 'a']"),
    ],
    ids=range(6),
)
def test_values_in_messages(value: object, expected: str) -> None:
    assert shown(value) == expected


@given(VALUES)
def test_values_in_messages_are_short_and_printable(value: object) -> None:
    assert shown(value).isprintable()
    assert len(shown([value] * 100)) <= LONGEST + 1


@given(st.text(st.characters(codec=None)))
def test_texts_in_messages_are_printable(text: str) -> None:
    assert plain(text).isprintable()
    plain(text).encode()
