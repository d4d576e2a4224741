"""What the commands say about themselves."""

from __future__ import annotations

import importlib

import pytest
from smoke_run import run


@pytest.mark.parametrize(
    "module", ["train", "export", "evaluate", "adapt", "familiarity", "calibrate", "fine_labels", "peers.classical"]
)
def test_help_ends_with_an_example_of_options_that_there_are(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(importlib.import_module(f"coop_training.{module}").main, "--help")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    options, example = said.split("\nexample:\n")
    assert options.count(":\n\n") + options.count(":\n  ") >= 3  # groups beside the general options
    used = {word for word in example.split() if word.startswith("--")}
    assert used
    assert all(f"  {option} " in options for option in used)


@pytest.mark.parametrize("module", ["peers.choose", "peers.table", "adapters.segformer"])
def test_help_of_smaller_commands_ends_with_an_example(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(importlib.import_module(f"coop_training.{module}").main, "--help")
    assert ended.value.code == 0
    options, example = capsys.readouterr().out.split("\nexample:\n")
    assert example.strip()
    assert all(f"  {word} " in options for word in example.split() if word.startswith("--"))
