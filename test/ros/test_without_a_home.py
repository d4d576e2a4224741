"""A user without a home directory, or with one that is nobody's to write to, as containers have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from node_harness import DOMAIN, NODE, client, environment

from coop_perception.ros.lifecycle_client import bring_up

PLACES = ("HOME", "COOP_PERCEPTION_CACHE", "XDG_CACHE_HOME", "ROS_LOG_DIR", "ROS_HOME")


@pytest.mark.parametrize("home", [None, "/proc/none"])  # in which root makes no folder either
def test_the_node_serves(home: str | None, bundle: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    variables = {name: value for name, value in environment(DOMAIN).items() if name not in PLACES}
    variables |= {"HOME": home} if home else {"XDG_CACHE_HOME": "/proc/none"}  # the user of the tests has one
    command = [sys.executable, "-m", "coop_perception.commands.perception_node"]
    command += ["--ros-args", "-p", f"bundle:={bundle}"]
    with client(DOMAIN) as ours, log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=variables)
        try:
            bring_up(ours.node, ours.executor, NODE, lambda: process.poll() is None)
        finally:
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
    said = log.read_text()
    assert "no place for log files" in said
    assert "no place for a cache" in said
