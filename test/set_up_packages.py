"""What `make setup-training` installs for tests alone."""

from __future__ import annotations

import importlib
import platform
import sys
from pathlib import Path
from typing import Any

import pytest

VENV = Path(__file__).resolve().parents[1] / ".venv"
_IN_VENV = Path(sys.prefix).resolve() == VENV.resolve()
SET_UP = _IN_VENV and (VENV / ".training").exists()
"""Whether these tests run where it has been. `colcon test` in a sourced ROS 2 has what package.xml names, no more."""
WITH_WHEELS = _IN_VENV and (VENV / ".ros").exists()
"""Whether ROS 2 is .venv's own, out of wheels, and none is sourced."""


def set_up_package(name: str) -> Any:
    """A module of such a package: where it was set up and is missing, that is a fault and no reason to skip."""
    if SET_UP:
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed, and make setup-training has not been here")


def tensorrt_rtx() -> Any:
    """TensorRT for RTX, which is set up on x86-64 alone: its files for aarch64 have not been tried."""
    if platform.machine() != "x86_64":
        pytest.skip(f"tensorrt-rtx-cu13 is set up on x86-64 alone, and this is {platform.machine()}")
    return set_up_package("tensorrt_rtx")
