"""Files of parameters as launch arguments: whose they are, also under a namespace."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

from yaml import YAMLError

from coop_perception.launching.temporary import temporary_file
from coop_perception.ros.arguments import is_key_of, misdirected, parameter_keys


def parameter_files(file: str, namespace: str, name: str, warn: Callable[[str], object]) -> list[str]:
    """What gives a node the parameters of a file that may have been written without its namespace, as Nav2's files are.

    Args:
        file: YAML; substitutions of launch may be in it.
        namespace: the node's, fully qualified or empty.
        name: the node's.
        warn: called when nothing in the file is for the node.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is no YAML.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"params_file: {path} is no file")
    node = f"{namespace}/{name}"
    try:
        keys = parameter_keys(path.read_text())
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"params_file: {path} is no YAML: {' '.join(str(error).split())}") from error
    whole = any(is_key_of(key, node) for key in keys)
    if any(is_key_of(key, f"/{name}") and not is_key_of(key, node) for key in keys):
        return [*([str(path)] if whole else []), temporary_file(_below(namespace, path.read_text()), ".yaml")]
    for line in misdirected(["--params-file", str(path)], node):
        warn(line)
    return [str(path)]


def _below(namespace: str, text: str) -> str:
    """The keys of a file of parameters below a namespace; the text stays, for its substitutions' sake."""
    relative = re.sub(r"""(?m)^(["']?)/""", r"\1", re.sub(r"(?m)^---.*$", "", text))
    return f"{namespace.strip('/')}:\n{indent(relative, '  ')}"
