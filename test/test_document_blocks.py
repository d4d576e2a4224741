"""Command blocks of the documents: `make docs-test` runs them; here, that each is run or says why not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

from docs_test import NOT_RUN, Block, blocks  # noqa: E402

BLOCKS = blocks()


def named(found: list[Block]) -> list[str]:
    return [f"{block.page}:{block.line}" for block in found]


def test_each_block_is_run_or_says_why_not() -> None:
    assert named([block for block in BLOCKS if not block.run and not block.why]) == []
    assert sum(block.run for block in BLOCKS) >= 10


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_no_command_is_in_an_indented_block_which_nothing_would_run(page: Path) -> None:
    indented = re.findall(r"(?<=\n\n) {4}(?:\.venv/|coop-|make |ros2 |python |pip )[^\n]*", page.read_text())
    assert indented == []


def test_pages_that_are_left_out_whole_have_no_block_that_is_run() -> None:
    assert named([block for block in BLOCKS if block.run and block.page in NOT_RUN]) == []
    assert set(NOT_RUN) <= {block.page for block in BLOCKS}


def test_blocks_are_shell() -> None:
    for block in BLOCKS:
        done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.page}:{block.line}: {done.stderr}"
