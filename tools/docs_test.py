"""Types what the documents say to type, in a clean clone of the last commit: each ```sh block below `<!-- run -->`.

All blocks of all pages in one clone, in order, each in a shell of its own that stops at the first error. A block that
is not run says why, in `<!-- not run: why -->` above it, or its whole page does so here.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_RUN = {
    "docs/adapt.md": "recordings of a camera",
    "docs/conditions.md": "minutes each; the tests of make_bag and evaluate_bag run the same",
    "docs/evaluation.md": "recordings of yours; test/evaluation runs the same",
    "docs/howto/degrade.md": "ROS 2's command line",
    "docs/nav2.md": "Nav2",
    "docs/reference/launch.md": "ROS 2's command line",
    "docs/training.md": "data sets and hours",
    "docs/transport.md": "ROS 2's command line, or root",
}
"""Pages none of whose blocks is run, and what each would need."""
DRIVES = {"monday": 1, "tuesday": 2, "wednesday": 3}
"""Recordings that pages take to be the reader's: of the sample drive, by seed."""
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>run|not run: (?P<why>[^\n]+)) -->\n)?^```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    text: str
    run: bool
    why: str
    """It is not run; empty where it is, or where nothing says so."""


def blocks(pages: Sequence[str] = ()) -> list[Block]:
    """The command blocks of these pages, or of all: README first, since it sets up, then docs/ by name."""
    chosen = pages or [
        "README.md",
        "CONTRIBUTING.md",
        *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
    ]
    found = []
    for page in chosen:
        text = (ROOT / page).read_text()
        for block in _BLOCK.finditer(text):
            line = text.count("\n", 0, block.start("text")) + 1
            run = block["mark"] == "run"
            found.append(Block(page, line, block["text"], run, "" if run else block["why"] or NOT_RUN.get(page, "")))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="*", help="pages, relative to the repository's root (default: all)")
    chosen = blocks(parser.parse_args().pages)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    failed = 0
    with tempfile.TemporaryDirectory(prefix="docs-test-") as folder:
        clone = Path(folder, "coop_perception")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        subprocess.run(["make", "--silent", "setup-training"], cwd=clone, env=environment, check=True)
        for name, seed in DRIVES.items():
            make_bag = [".venv/bin/make_bag", "--out", f"drives/{name}", "--seed", str(seed), "--frames", "60"]
            subprocess.run(make_bag, cwd=clone, env=environment, check=True)
        for block in chosen:
            place = f"{block.page}:{block.line}"
            if not block.run:
                print(f"not run  {place}: {block.why}", flush=True)
                continue
            started = time.monotonic()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=clone,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            print(f"{'FAILED' if done.returncode else 'ran'}  {place}, {time.monotonic() - started:.0f} s", flush=True)
            if done.returncode:
                failed += 1
                print(done.stdout[-2000:], flush=True)
    print(f"{sum(block.run for block in chosen)} blocks run, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
