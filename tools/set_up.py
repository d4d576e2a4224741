"""Creates and updates .venv and install/; quick where both are up to date. Run it with the Python for .venv.

Without --training: what the vehicle's side needs to run. With it: also what tests, linters and training need.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable
from pathlib import Path

from steps import Command, SetupError, Step, digest, files

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BUILD = ROOT / "build"
INSTALL = ROOT / "install"
LOGS = ROOT / "log"
TOOLS = ROOT / "tools"
REQUIREMENTS = ROOT / "requirements"
TENSORRT_BINDINGS = sorted((REQUIREMENTS / "tensorrt_bindings").glob("*.lock"))
TRAINING = ROOT / "training"
VENV_PYTHON = str(VENV / "bin/python")
BASE_PYTHON = os.path.realpath(sys.executable)  # where this is .venv's: the one that .venv was made with
CONSTRAINTS = VENV / "constraints.txt"


def sourced_ros() -> str | None:
    """Name of the ROS 2 distribution that this shell has sourced, or None.

    Raises SetupError where one is sourced that this Python cannot use, and that would be in the way of any other.
    """
    distribution = os.environ.get("ROS_DISTRO")
    if distribution and imports("rclpy"):
        return distribution
    if os.environ.get("AMENT_PREFIX_PATH"):
        raise SetupError(
            f"a ROS 2 is sourced (AMENT_PREFIX_PATH is set), but {BASE_PYTHON} cannot import its rclpy; "
            "set PYTHON to the Python of that ROS 2, or use a shell in which none is sourced"
        )
    return None


def imports(module: str) -> bool:
    """Whether the Python that .venv is made with can import `module`."""
    return subprocess.run([BASE_PYTHON, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def check_tools(ros: str | None) -> None:
    """Raises SetupError unless all is there that pip does not install."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not (imports("venv") and imports("ensurepip")):
        raise SetupError(f"{BASE_PYTHON} has no venv; install it (Debian, Ubuntu: apt install python{version}-venv)")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        raise SetupError(f"{BASE_PYTHON} has no Python.h; install it (Debian, Ubuntu: apt install python{version}-dev)")
    for tool, choices in (
        ("C compiler", [os.environ.get("CC", "cc"), "gcc", "clang"]),
        ("C++ compiler", [os.environ.get("CXX", "c++"), "g++", "clang++"]),
        ("make", ["make", "gmake"]),
    ):
        if not any(map(shutil.which, choices)):
            raise SetupError(f"no {tool} found; install one (Debian, Ubuntu: apt install build-essential)")
    if ros:
        for tool, package in (("colcon", "python3-colcon-common-extensions"), ("cmake", "cmake")):
            if not shutil.which(tool):
                raise SetupError(f"no {tool} found; install it (Debian, Ubuntu: apt install {package})")
    elif (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"the ROS 2 wheels are for x86-64 Linux, and this is {platform.machine()} {platform.system()}; "
            "install ROS 2 Jazzy and source it"
        )


def remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def create_venv(ros: str | None) -> Iterable[Command]:
    remove(VENV, BUILD, INSTALL)
    options = ["--system-site-packages"] if ros else []
    yield [BASE_PYTHON, "-m", "venv", *options, str(VENV)]
    if ros and imports("numpy"):
        # That ROS 2's messages are compiled against its own NumPy: what is installed beside it has to go with that.
        command = [BASE_PYTHON, "-c", "import numpy; print(f'numpy=={numpy.__version__}')"]
        CONSTRAINTS.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)


def pip_install(*arguments: str) -> Command:
    constraints = [f"--constraint={CONSTRAINTS}"] if CONSTRAINTS.exists() else []
    options = ["--no-input", "--disable-pip-version-check", "--progress-bar=off", *constraints]
    return [VENV_PYTHON, "-m", "pip", "install", *options, *arguments]


def install_locked(*locks: Path) -> Command:
    """Locks name all that is needed, with checksums: nothing else is installed, nor anything that was changed."""
    return pip_install("--require-hashes", "--no-deps", *(f"--requirement={path}" for path in locks))


def install_editable(project: Path) -> Command:
    return pip_install("--no-deps", "--no-build-isolation", f"--editable={project}")


def install_ros_wheels() -> Iterable[Command]:
    remove(BUILD, INSTALL)
    yield install_locked(REQUIREMENTS / "ros.lock")
    yield [VENV_PYTHON, str(TOOLS / "repair_ros_wheels.py")]
    site_packages = next(VENV.glob("lib/python3*/site-packages"))
    messages = INSTALL / "coop_perception_msgs" / site_packages.relative_to(VENV)
    module = "coop_perception_environment"
    shutil.copy(TOOLS / "venv_environment.py", site_packages / f"{module}.py")
    (site_packages / f"{module}.pth").write_text(f"{messages}\nimport {module}\n")


def colcon_build(ros: str | None, package: str) -> Command:
    path = f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = [
        f"PATH={path}",
        f"COLCON_DEFAULTS_FILE={ROOT / 'colcon_defaults.yaml'}",
        f"COLCON_LOG_PATH={LOGS}",
        f"MAKEFLAGS=-j{os.cpu_count()}",  # else those of the make that runs this, and a limit on the machine's load
    ]
    if not ros:
        environment += [f"AMENT_PREFIX_PATH={VENV}", f"CMAKE_PREFIX_PATH={VENV}"]
    # Run by .venv's Python, which so becomes that of the executables that it installs.
    colcon = [VENV_PYTHON, shutil.which("colcon", path=path) or "colcon"]
    cmake_arguments = [f"-DPython3_EXECUTABLE={VENV_PYTHON}", "-DBUILD_TESTING=OFF"]
    return ["env", *environment, *colcon, "build", "--packages-select", package, "--cmake-args", *cmake_arguments]


def install_package(ros: str | None) -> Iterable[Command]:
    yield colcon_build(ros, "coop_perception")
    yield install_editable(ROOT)


def install_training(ros: str | None) -> Iterable[Command]:
    if ros:
        yield pip_install("--no-build-isolation", f"--requirement={REQUIREMENTS / 'dev.in'}", f"--editable={TRAINING}")
    else:
        yield install_locked(TRAINING / "requirements.lock", REQUIREMENTS / "dev.lock")
        # Which of its builds that is, for CUDA or for the CPU, is for pip's configuration to say: no checksum can.
        yield pip_install(f"--requirement={TRAINING / 'torch.lock'}")
        yield install_editable(TRAINING)


def install_tensorrt_bindings() -> Iterable[Command]:
    """TensorRT's Python bindings alone, each version in a folder of its own, where nothing but a test of them finds it:
    the oldest that is supported (JetPack 6's), the last of 10 and the newest. They are imported without the libraries,
    whose package downloads gigabytes."""
    remove(VENV / "tensorrt")
    for lock in TENSORRT_BINDINGS:
        yield [*install_locked(lock), f"--target={VENV / 'tensorrt' / lock.stem}"]


def steps(ros: str | None, *, training: bool) -> Iterable[Step]:
    python = digest(BASE_PYTHON, sys.version, str(ros))
    yield Step("Python environment", VENV / ".python", python, lambda: create_venv(ros))

    wheels = [REQUIREMENTS / "ros.lock", TOOLS / "repair_ros_wheels.py", TOOLS / "venv_environment.py"]
    base = python if ros else digest(python, *wheels)
    if not ros:
        yield Step("ROS 2 wheels", VENV / ".ros", base, install_ros_wheels)

    vehicle = REQUIREMENTS / ("vehicle.in" if ros else "vehicle.lock")
    install = pip_install(f"--requirement={vehicle}") if ros else install_locked(vehicle)
    yield Step("Vehicle requirements", VENV / ".vehicle", digest(base, vehicle), lambda: [install])

    messages = digest(base, *files(ROOT / "coop_perception_msgs"))
    yield Step("Messages", INSTALL / ".messages", messages, lambda: [colcon_build(ros, "coop_perception_msgs")])

    # Installed as links, and Python code in place: only what there is matters, not its contents.
    linked = map(str, files(ROOT / "launch", ROOT / "config", ROOT / "models/street"))
    package = digest(base, *(ROOT / name for name in ("package.xml", "setup.py", "setup.cfg")), *linked)
    yield Step("Package", INSTALL / ".package", package, lambda: install_package(ros))

    if training:
        requirements = [REQUIREMENTS / name for name in ("dev.lock", "dev.in")]
        requirements += [TRAINING / name for name in ("requirements.lock", "torch.lock", "pyproject.toml")]
        development = digest(base, *requirements)
        yield Step("Training and test requirements", VENV / ".training", development, lambda: install_training(ros))

        bindings = digest(base, *TENSORRT_BINDINGS)
        yield Step("TensorRT's bindings", VENV / ".tensorrt", bindings, install_tensorrt_bindings)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", action="store_true", help="also install what tests, linters and training need")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    if os.environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):  # run by .venv's Python, or below it
        for variable in ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH"):
            os.environ.pop(variable, None)

    started = time.monotonic()
    lock = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends
    try:
        ros = sourced_ros()
        planned = list(steps(ros, training=arguments.training))
        if all(step.is_done() for step in planned):
            print("The environment is up to date.")
            return 0
        check_tools(ros)
        for step in planned:
            if not step.is_done():
                step.do(LOGS / "setup.log")
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Set up in {time.monotonic() - started:.0f} s, with {f'ROS 2 {ros}' if ros else 'ROS 2 Jazzy from wheels'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
