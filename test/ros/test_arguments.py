"""ROS's part of a command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from node_harness import DOMAIN, environment

from coop_perception.ros.arguments import ArgumentError, misdirected, own_arguments

NODE = "/coop_perception"


def file(folder: Path, content: object) -> list[str]:
    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump(content))
    return ["node", "--ros-args", "--params-file", str(path)]


def test_what_is_left_is_ones_own() -> None:
    args = ["node", "--autostart", "--ros-args", "-p", "a:=1", "--", "more"]
    assert own_arguments(args) == ["--autostart", "more"]


@pytest.mark.parametrize("text", [None, "coop_perception:\n  bundle: x\n", "a: [", "\0"])
def test_files_that_cannot_be_read_are_one_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "parameters.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ArgumentError, match=r"parameters\.yaml") as found:
        own_arguments(["node", "--ros-args", "--params-file", str(path)])
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("key", "node", "hit"),
    [
        ("/**", NODE, True),
        ("coop_perception", NODE, True),
        ("/coop_perception", NODE, True),
        ("/*", NODE, True),
        ("/car/coop_perception", "/car/coop_perception", True),
        ("/**/coop_perception", "/a/b/coop_perception", True),
        ("/*/coop_perception", "/a/b/coop_perception", False),
        ("coop_perception (old", NODE, False),
        ("perception_node", NODE, False),
        ("coop_perception", "/car1/coop_perception", False),
        ("/*", "/car/coop_perception", False),
    ],
)
def test_files_for_somebody_else_are_named(tmp_path: Path, key: str, node: str, hit: bool) -> None:
    lines = misdirected(file(tmp_path, {key: {"ros__parameters": {"bundle": "x"}}}), node)
    assert bool(lines) != hit
    for line in lines:
        assert f"is for {node} (keys: {key.lstrip('/')}); write /** or {node}" in line


def test_names_may_be_nested(tmp_path: Path) -> None:
    nested = {"car": {"coop_perception": {"ros__parameters": {"bundle": "x"}}}, "other": {"ros__parameters": {}}}
    assert misdirected(file(tmp_path, nested), "/car/coop_perception") == []
    (line,) = misdirected(file(tmp_path, nested), NODE)
    assert "(keys: car/coop_perception, other)" in line


def test_values_may_have_tags_of_other_readers(tmp_path: Path) -> None:
    """As launch writes what it overrides."""
    path = tmp_path / "parameters.yaml"
    path.write_text("/**:\n  ros__parameters:\n    cameras: !!python/tuple\n    - left\n")
    assert misdirected(["node", "--params-file", str(path)], NODE) == []


@given(st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_content_is_borne(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    assert len(misdirected(file(tmp_path_factory.mktemp("any"), content), NODE)) == 1


def test_both_nodes_end_with_status_1(tmp_path: Path) -> None:
    for module in ("perception_node", "degrade_node"):
        command = [
            sys.executable,
            "-m",
            f"coop_perception.commands.{module}",
            "--ros-args",
            "--params-file",
            "/no.yaml",
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(DOMAIN))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "/no.yaml" in done.stderr
