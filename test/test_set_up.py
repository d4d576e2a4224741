"""What make setup says where it cannot work, and that it repairs the ROS wheels' CMake files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the setup reads, with nothing set up yet."""
    for name in (
        "tools",
        "requirements",
        "coop_perception_msgs",
        "training/pyproject.toml",
        "training/requirements.lock",
        "training/torch.lock",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for name in ("Makefile", "package.xml", "setup.py", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make_setup(checkout: Path, *arguments: str, path: Path, **environment: str) -> str:
    """Runs make setup, which has to fail, with the programs in `path` alone; returns what it says."""
    make = shutil.which("make")
    assert make is not None
    shell = shutil.which("sh")
    assert shell is not None
    failed = subprocess.run(
        [make, "--silent", f"SHELL={shell}", *arguments, "setup"],
        cwd=checkout,
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode != 0
    assert not (checkout / ".venv").exists()
    said, make_says = failed.stderr.splitlines()
    assert make_says.startswith("make: ***")
    return said


@pytest.mark.parametrize(
    ("programs", "missing"), [((), "C compiler"), (("cc",), "C++ compiler"), (("cc", "c++"), "make")]
)
def test_missing_tool_is_named_in_one_line(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, programs: tuple[str, ...], missing: str
) -> None:
    path = tmp_path_factory.mktemp("bin")
    for program in programs:
        (path / program).touch(mode=0o755)
    said = make_setup(checkout, f"PYTHON={PYTHON}", path=path)
    assert said.startswith(f"error: no {missing} found; install one")


@pytest.mark.parametrize(
    "lock", [*sorted((ROOT / "requirements").rglob("*.lock")), ROOT / "training/requirements.lock"]
)
def test_each_locked_release_has_its_checksums(lock: Path) -> None:
    """pip takes a file for none where a single one lacks them."""
    lines = lock.read_text().replace("\\\n", "").splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==[^ ]+( ; [^\\]+?)?( +--hash=sha256:[0-9a-f]{64})+", line), line[:200]


@pytest.mark.parametrize("python", ["/nowhere/python3", "false"])
def test_wrong_python_is_named_in_one_line(checkout: Path, python: str) -> None:
    said = make_setup(checkout, f"PYTHON={python}", path=Path("/usr/bin"))
    assert said.startswith(f"error: {python} is no Python 3.10 to 3.13")


def test_sourced_ros_of_another_python_is_named_in_one_line(checkout: Path) -> None:
    said = make_setup(checkout, f"PYTHON={PYTHON}", path=Path("/usr/bin"), AMENT_PREFIX_PATH="/opt/ros/other")
    assert said.startswith("error: a ROS 2 is sourced")
    assert "set PYTHON" in said


@pytest.mark.parametrize(
    ("target", "answer", "stays"),
    [("clean", "", True), ("distclean", "", True), ("distclean", "n\n", True), ("distclean", "y\n", False)],
)
def test_data_and_trainings_are_removed_on_demand_only(checkout: Path, target: str, answer: str, stays: bool) -> None:
    built = [checkout / name for name in (".venv", "build", "install", "log")]
    for folder in (*built, checkout / "out/data/camvid"):
        folder.mkdir(parents=True)
    done = subprocess.run(
        ["make", "--silent", target], cwd=checkout, input=answer, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not any(folder.exists() for folder in built)
    assert (checkout / "out/data/camvid").exists() == stays
    assert ("remove out/ for good?" in done.stdout) == (target == "distclean")


def test_cmake_files_are_repaired_for_this_python(checkout: Path, tmp_path: Path) -> None:
    cmake_file = tmp_path / "export.cmake"
    cmake_file.write_text('set(include "/opt/python/cp310-cp310/include/python3.10;/usr/include")\n')
    code = "import pathlib, repair_ros_wheels as r; f = pathlib.Path('export.cmake'); print(r.repair(f), r.repair(f))"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "tools")}
    repairs = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert repairs.stdout.split() == ["True", "False"]
    assert cmake_file.read_text() == f'set(include "{sysconfig.get_path("include")};/usr/include")\n'
