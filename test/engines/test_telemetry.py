"""ONNX Runtime's telemetry: off wherever the product uses it, unless somebody decides otherwise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("first", ["coop_perception.engines.onnxruntime", "coop_training.adapters.network"])
def test_home_stays_as_it_is(first: str, bundle: Path, tmp_path: Path) -> None:
    program = f"""
import pathlib, sys
import {first}
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
OnnxRuntimeEngine(pathlib.Path(sys.argv[1]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-c", program, str(bundle / "restoration.onnx")], check=True, timeout=60, env=environment
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_user_decides() -> None:
    program = "import coop_perception, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env=environment, capture_output=True)
    assert done.stdout == b"0\n"


def test_nothing_outside_the_packages_imports_it_first() -> None:
    """Within them, theirs is imported before; tests' conftest.py imports them."""
    for folder in ("benchmarks", "launch", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"^\s*(import|from) onnxruntime", file.read_text(), re.MULTILINE), file
