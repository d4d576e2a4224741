"""That what drives TensorRT fits its real Python bindings, the oldest supported and newer ones.

They are imported with stubs of the libraries below them. `make setup-training` puts them into folders of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from set_up_packages import SET_UP

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
INSTALLED = Path(sys.prefix, "tensorrt")
VERSIONS = sorted(lock.stem for lock in (ROOT / "requirements/tensorrt_bindings").glob("*.lock"))
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")


@pytest.fixture
def stubs(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Libraries of the names that the bindings of a version ask for."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "no C compiler, with which the messages are built, too"
    major = request.getfixturevalue("version").partition(".")[0]
    for library in LIBRARIES:
        name = f"lib{library}.so.{major}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run([*command, str(HERE / "tensorrt_stub.c")], check=True, timeout=60)
    return tmp_path


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_and_overload_is_there(version: str, stubs: Path) -> None:
    bindings = INSTALLED / version
    if not (SET_UP or bindings.is_dir()):
        pytest.skip(f"the bindings of TensorRT {version} are not in {bindings}: make setup-training")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "test")])}
    done = subprocess.run(
        [sys.executable, str(HERE / "tensorrt_bindings.py"), str(bindings), str(stubs)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == version
