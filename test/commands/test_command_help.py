"""What the commands say about themselves."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("module", "words"),
    [("build_engines", []), ("demo", []), ("evaluate_bag", []), ("evaluate_bag", ["compare"]), ("make_bag", [])],
)
def test_help_is_in_groups_and_ends_with_an_example_of_options_that_there_are(
    module: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"coop_perception.commands.{module}").main([*words, "--help"])
    assert ended.value.code == 0
    options, example = capsys.readouterr().out.split("\nexample:\n")
    assert options.count(":\n  --") >= 2  # groups beside the general options
    used = {word for word in example.split() if word.startswith("--")}
    assert used
    assert all(f"  {option} " in options for option in used)


@pytest.mark.parametrize("module", ["degrade_node", "perception_node"])
def test_help_of_a_node_has_its_parameters_and_an_example(module: str) -> None:
    command = [sys.executable, "-m", f"coop_perception.commands.{module}", "--help"]  # it takes the process's signals
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    options, example = done.stdout.split("\nexample:\n")
    assert "parameters (--ros-args -p NAME:=VALUE):" in options
    used = {word.partition(":=")[0] for word in example.split() if ":=" in word and "/" not in word}
    assert used
    assert all(f"  {parameter}" in options for parameter in used)


@pytest.mark.parametrize(
    ("module", "words", "says"),
    [
        ("make_bag", [], "the following arguments are required: --out"),
        ("make_bag", ["--out", "x", "--condition", "mist"], "invalid choice: 'mist'"),
        ("evaluate_bag", [], "no recording is given"),
        ("evaluate_bag", ["compare", "a"], "RUN_B"),
        ("build_engines", ["--backend", "cuda"], "invalid choice: 'cuda'"),
    ],
)
def test_wrong_usage_is_one_line(module: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"coop_perception.commands.{module}").main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(module)
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "line", "offered"),
    [
        ("make_bag", "make_bag --sto", ["--storage "]),
        ("make_bag", "make_bag --out x --storage ", ["mcap", "sqlite3"]),
        ("evaluate_bag", "evaluate_bag --ski", ["--skip-when-clear "]),
        ("perception_node", "perception_node --aut", ["--autostart "]),
    ],
)
def test_the_shell_completes_options_and_choices(module: str, line: str, offered: list[str], tmp_path: Path) -> None:
    """Asked as the shell asks, and nothing else is done: no recording, no node."""
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
    asked |= {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
    command = [sys.executable, "-m", f"coop_perception.commands.{module}"]
    subprocess.run(command, env=os.environ | asked, cwd=tmp_path, check=True, timeout=60)
    assert answer.read_text().split("\n") == offered
    assert list(tmp_path.iterdir()) == [answer]
