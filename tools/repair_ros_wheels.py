"""Makes the ROS wheels' CMake exports name this environment's Python headers.

The wheels were built elsewhere, and their exported CMake files still name that machine's Python and NumPy. Run with the
Python of the environment that holds the wheels.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_PYTHON = r"/opt/python/cp\d+-cp\d+"
REPLACEMENTS = {
    BUILD_PYTHON + r"/include/python3\.\d+": sysconfig.get_path("include"),
    BUILD_PYTHON + r"/lib/python3\.\d+/site-packages/numpy/_core/include": np.get_include(),
}


def repair(cmake_file: Path) -> bool:
    """Repairs one file in place; returns whether there was anything to repair."""
    text = repaired = cmake_file.read_text()
    for pattern, path in REPLACEMENTS.items():
        repaired = re.sub(pattern, path.replace("\\", r"\\"), repaired)
    if repaired != text:
        cmake_file.write_text(repaired)
    return repaired != text


if __name__ == "__main__":
    print(f"repaired {sum(map(repair, Path(sys.prefix, 'share').rglob('*.cmake')))} CMake files")
