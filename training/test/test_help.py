"""What the commands say about themselves."""

from __future__ import annotations

import importlib

import pytest
from smoke_run import run


@pytest.mark.parametrize(
    "module", ["train", "export", "evaluate", "adapt", "familiarity", "calibrate", "peers.classical"]
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
