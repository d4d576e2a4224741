"""The launch file under the real launch system, included by another one as a vehicle's own would."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from node_harness import DEADLINE, DOMAIN, NODE, client, environment
from toy_bundle import write_toy_bundle

from coop_perception.lifecycle_client import bring_up
from coop_perception_msgs.msg import PipelineStatus

pytest.importorskip("launch_ros", reason="launch_ros is not installed; the launch file runs under `ros2 launch` only")

FILE = Path(__file__).resolve().parent.parent / "launch/pipeline.launch.py"
VEHICLE = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file, *arguments = sys.argv[1:]
pipeline = IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[a.split(":=", 1) for a in arguments]
)
service = LaunchService(noninteractive=True)  # passes SIGINT on to the node
service.include_launch_description(LaunchDescription([GroupAction([pipeline])]))
sys.exit(service.run())
"""


@contextmanager
def launched(log: Path, **arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """`log` gets what the launch and its node print."""
    given = [f"{name}:={value}" for name, value in arguments.items()]
    command = [sys.executable, "-c", VEHICLE, str(FILE), *given]
    env = {**environment(DOMAIN), "ROS_LOG_DIR": str(log.parent)}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_brings_the_node_up_to_active_as_the_parameters_file_says(tmp_path: Path) -> None:
    parameters = {
        "bundle": str(write_toy_bundle(tmp_path / "toy")),
        "cameras": ["left", "right"],
        "status_period": 0.1,
    }
    params_file, log = tmp_path / "parameters.yaml", tmp_path / "launch.log"
    params_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    with client(DOMAIN) as ours:
        status = ours.listen(PipelineStatus, f"/car{NODE}/status")  # published by an active node only
        ours.spin()
        with launched(log, namespace="car", params_file=params_file) as launch:
            ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
    assert status, log.read_text()
    assert [camera.name for camera in status[0].cameras] == ["left", "right"]
    assert launch.returncode == 0, log.read_text()
    assert "process has finished cleanly" in log.read_text()


def test_without_autostart_the_transitions_are_left_to_others(tmp_path: Path) -> None:
    log = tmp_path / "launch.log"
    bundle = write_toy_bundle(tmp_path / "toy")
    with client(DOMAIN) as ours, launched(log, autostart="false", bundle=bundle) as launch:
        bring_up(ours.node, ours.executor, NODE)
        assert ours.state() == "active"
    # A transition that the launch asks for all the same is refused or abandoned, and one of these says so.
    assert launch.returncode == 0, log.read_text()
    assert "launch_ros.actions.lifecycle_node" not in log.read_text()
