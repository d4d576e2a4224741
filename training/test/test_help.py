"""What the commands say about themselves."""

from __future__ import annotations

import runpy
from importlib.util import find_spec

import pytest


@pytest.mark.parametrize(
    "module", ["train", "export", "evaluate", "adapt", "familiarity", "calibrate", "fine_labels", "peers.classical"]
)
def test_help_ends_with_an_example_of_options_that_there_are(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    options, example = help_of(module, capsys).split("\nexample:\n")
    assert options.count(":\n\n") + options.count(":\n  ") >= 3  # groups beside the general options
    used = {word for word in example.split() if word.startswith("--")}
    assert used
    assert all(f"  {option} " in options for option in used)


@pytest.mark.parametrize("module", ["peers.choose", "peers.table", "adapters.segformer"])
def test_help_of_smaller_commands_ends_with_an_example(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    options, example = help_of(module, capsys).split("\nexample:\n")
    assert example.strip()
    assert all(f"  {word} " in options for word in example.split() if word.startswith("--"))


def help_of(module: str, capsys: pytest.CaptureFixture[str]) -> str:
    """As `python -m` runs it: a module that only defines its main would do nothing, and end with 0."""
    found = find_spec(f"coop_training.{module}")
    assert found
    assert found.origin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [module, "--help"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(found.origin, run_name="__main__")
    assert ended.value.code == 0
    return capsys.readouterr().out
