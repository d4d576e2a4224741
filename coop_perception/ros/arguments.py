"""ROS's own part of a command line: what is left without it, and parameter files that are for somebody else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml
from rclpy._rclpy_pybind11 import RCLError
from rclpy.utilities import remove_ros_args

from coop_perception.shown import plain

_PARAMETERS = "ros__parameters"


class ArgumentError(ValueError):
    """Arguments behind --ros-args that cannot be used; one line."""


def own_arguments(args: Sequence[str]) -> list[str]:
    """A process's arguments without its name and ROS's.

    Raises:
        ArgumentError: ROS cannot read its part; a file of parameters is missing or broken.
    """
    try:
        return list(remove_ros_args(list(args))[1:])
    except RCLError as error:
        raise ArgumentError(one_line(error)) from error


def one_line(error: Exception) -> str:
    """rcl's errors name source files of its own behind what is wrong."""
    text = re.sub(r",? at \S+\.[ch]p*:\d+", "", str(error))
    return " ".join(text.split())


def misdirected(args: Sequence[str], node: str) -> list[str]:
    """A line for each file of parameters of which nothing is for a node.

    Args:
        args: of the process, whose files ROS has read already.
        node: fully qualified name.
    """
    lines = []
    for file in (Path(file) for flag, file in pairwise(args) if flag == "--params-file"):
        try:
            keys = parameter_keys(file.read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue  # ROS has understood it, in which nothing is lost
        if not any(is_key_of(key, node) for key in keys):
            names = plain(", ".join(key.lstrip("/") for key in keys) or "none", 200)
            lines.append(
                f"none of the parameters in {file} is for {node} (keys: {names}); write /** or {node} above "
                f"{_PARAMETERS}"
            )
    return lines


def parameter_keys(text: str) -> list[str]:
    """Names of nodes that a file of parameters is for, patterns as they are, with a stroke before.

    Raises:
        yaml.YAMLError: it is no YAML.
        RecursionError: it is too deep.
    """
    return list(_keys(yaml.compose(text, yaml.SafeLoader), ""))  # not loaded: values are of any tag


def is_key_of(key: str, node: str) -> bool:
    """Whether parameters under a key are a node's, as rcl has it: `*` is one name, `**` any number of them.

    Args:
        key: of `parameter_keys`.
        node: fully qualified name.
    """
    names = {"**": r"(/\w+)*", "*": r"/\w+"}
    parts = (names.get(part, "/" + re.escape(part)) for part in key[1:].split("/"))
    return re.fullmatch("".join(parts), node) is not None


def _keys(part: yaml.Node | None, name: str) -> Iterator[str]:
    if isinstance(part, yaml.MappingNode):
        for key, inner in part.value:
            if key.value == _PARAMETERS:
                yield name or "/"
            else:
                yield from _keys(inner, f"{name}/{str(key.value).strip('/')}")
