"""The launch file under the real launch system, included by another one as a vehicle's own would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import stand_in_ros2_bag
import yaml
from lifecycle_msgs.msg import Transition
from node_harness import (
    DEADLINE,
    DOMAIN,
    NODE,
    Client,
    change_state,
    client,
    environment,
    publish_until,
    set_parameters,
)
from sensor_msgs.msg import CompressedImage
from small_recording import COUNT, write_bag
from toy_bundle import HEIGHT, WIDTH, write_toy_bundle

from coop_perception.images import fill_compressed
from coop_perception.recordings.recording import Recording
from coop_perception.ros.lifecycle_client import bring_up
from coop_perception_msgs.msg import PipelineStatus

pytest.importorskip("launch_ros", reason="launch_ros is not installed; the launch file runs under `ros2 launch` only")

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
VEHICLE = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetRemap, SetUseSimTime

file, group, *arguments = sys.argv[1:]
pipeline = IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=[a.split(":=", 1) for a in arguments]
)
service = LaunchService(noninteractive=True)  # passes SIGINT on to the node
service.include_launch_description(LaunchDescription([GroupAction([*eval(group), pipeline])]))
sys.exit(service.run())
"""


@contextmanager
def launched(
    log: Path, file: str = "pipeline.launch.py", group: str = "[]", **arguments: object
) -> Iterator[subprocess.Popen[bytes]]:
    """`log` gets what the launch and its node print. `ros2 bag` is the stand-in.

    Args:
        log: in a folder of the test's own.
        file: in launch/.
        group: actions (Python) in the same group, before the file is included.
        arguments: of the file.
    """
    if not (log.parent / "bin").exists():
        stand_in_ros2_bag.install(log.parent / "bin")
    given = [f"{name}:={value}" for name, value in arguments.items()]
    command = [sys.executable, "-c", VEHICLE, str(LAUNCH / file), group, *given]
    env = {**environment(DOMAIN), "ROS_LOG_DIR": str(log.parent)}
    env["PATH"] = f"{log.parent / 'bin'}{os.pathsep}{env['PATH']}"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=env)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def jpeg(second: int) -> CompressedImage:
    message = CompressedImage()
    message.header.stamp.sec = second
    fill_compressed(message, np.zeros((HEIGHT, WIDTH, 3), np.uint8), "jpeg", 90)
    return message


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


def test_cameras_image_transport_profile_and_recording_are_arguments(tmp_path: Path) -> None:
    log, record = tmp_path / "launch.log", tmp_path / "recording"
    bundle = write_toy_bundle(tmp_path / "toy")
    with client(DOMAIN) as ours:
        status = ours.listen(PipelineStatus, f"{NODE}/status")
        ours.spin()
        with launched(
            log, bundle=bundle, cameras="left,rear/cam", image_transport="compressed", record=record
        ) as launch:
            ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
            ours.wait(lambda: ours.node.count_subscribers(f"{NODE}/status") > 2, "beside two of ours, the recorder")
            seen = len(status)
            ours.wait(lambda: len(status) > seen + 3, "status that was recorded")
            topics = {name for name, _ in ours.node.get_topic_names_and_types()}
            variables = Path(f"/proc/{process_of('perception_node')}/environ").read_bytes().decode().split("\0")
    assert [camera.name for camera in status[0].cameras] == ["left", "rear/cam"]
    assert "/rear/cam/image_raw/compressed" in topics
    assert f"FASTRTPS_DEFAULT_PROFILES_FILE={LAUNCH.parent / 'config/fastdds.xml'}" in variables
    with Recording(record) as recording:
        assert recording.topics["/coop_perception/status"].count > 0


def test_what_is_recorded_is_what_the_node_uses(tmp_path: Path) -> None:
    """In its group's namespace, with its group's remappings, and the transport of its parameters."""
    log, record, params_file = tmp_path / "launch.log", tmp_path / "recording", tmp_path / "parameters.yaml"
    bundle = str(write_toy_bundle(tmp_path / "toy"))
    parameters = {"bundle": bundle, "cameras": ["front"], "image_transport": "compressed", "status_period": 0.1}
    params_file.write_text(yaml.safe_dump({"coop_perception": {"ros__parameters": parameters}}))
    group = "[PushRosNamespace('car'), SetRemap('front/image_raw', '/cam/image'), SetRemap('front/coop/mask', 'm')]"
    with client(DOMAIN) as ours:
        image = ours.node.create_publisher(CompressedImage, "/cam/image/compressed", 10)
        status = ours.listen(PipelineStatus, f"/car/one{NODE}/status")
        ours.spin()
        with launched(log, group=group, namespace="one", params_file=params_file, record=record) as launch:
            ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
            ours.wait(lambda: image.get_subscription_count() == 2 or launch.poll() is not None, "node and recorder")
            ours.wait(lambda: ours.node.count_subscribers("/car/one/m") == 1, "outputs are recorded")
            publish_until(ours, image, jpeg(1), lambda: status[-1].cameras[0].frames_processed > 9, "ten frames")
    assert launch.returncode == 0, log.read_text()
    with Recording(record) as recording:
        recorded = {name: info.count for name, info in recording.topics.items()}
    for name in ("m", "front/coop/confidence", "coop_perception/status", "coop_perception/model_info"):
        assert recorded[f"/car/one/{name}"] > 0
    assert recorded["/cam/image/compressed"] > 0
    assert not [name for name in recorded if name.endswith(("overlay", "image_restored/compressed", "image_raw"))]


def test_what_the_node_uses_only_later_is_said(tmp_path: Path) -> None:
    """It is given another camera while it is recorded."""
    log, bundle = tmp_path / "launch.log", write_toy_bundle(tmp_path / "toy")
    with client(DOMAIN) as ours, launched(log, bundle=bundle, record=tmp_path / "recording") as launch:
        ours.spin()
        ours.wait(lambda: ours.node.count_subscribers("/front/coop/mask") > 0 or launch.poll() is not None, "recorder")
        assert change_state(ours, Transition.TRANSITION_DEACTIVATE)
        assert change_state(ours, Transition.TRANSITION_CLEANUP)
        assert set_parameters(ours, cameras=["rear"]) == ""
        assert change_state(ours, Transition.TRANSITION_CONFIGURE)
        assert change_state(ours, Transition.TRANSITION_ACTIVATE)
        said = "not recorded, as the node uses it only now: /rear/camera_info"
        ours.wait(lambda: said in log.read_text() or launch.poll() is not None, said)
    assert launch.returncode == 0, log.read_text()


@pytest.mark.parametrize("restart", [False, True], ids=["ends the launch", "is started again"])
def test_a_recorder_that_dies(tmp_path: Path, restart: bool) -> None:
    log, record, bundle = tmp_path / "launch.log", tmp_path / "recording", write_toy_bundle(tmp_path / "toy")
    recorder = "stand_in_ros2_bag.py"
    with (
        client(DOMAIN) as ours,
        launched(log, bundle=bundle, record=record, respawn_recorder=str(restart).lower()) as launch,
    ):
        ours.wait(lambda: process_of(recorder) is not None or launch.poll() is not None, "the recorder runs")
        kill(ours, launch, recorder)
        if restart:
            second = tmp_path / "recording_2"
            ours.wait(lambda: second.exists() or launch.poll() is not None, "a second recording")
        else:
            assert launch.wait(DEADLINE) == 1
    if restart:
        assert launch.returncode == 0, log.read_text()
    else:
        assert "the recorder ended with exit status -9" in log.read_text()


def test_nothing_is_recorded_over(tmp_path: Path) -> None:
    log, record = tmp_path / "launch.log", tmp_path / "recording"
    record.mkdir()
    with launched(log, record=record) as launch:
        assert launch.wait(DEADLINE) == 1
    assert f"record: {record} exists already" in log.read_text()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("somebody_else:\n  ros__parameters: {bundle: /x}\n", "is for /car/coop_perception (keys: somebody_else)"),
        ("a: [", "is no YAML"),
        (None, "is no file"),
    ],
    ids=["another node's", "broken", "missing"],
)
def test_files_of_parameters_that_do_not_serve_are_said(tmp_path: Path, content: str | None, says: str) -> None:
    log, params_file = tmp_path / "launch.log", tmp_path / "parameters.yaml"
    if content is not None:
        params_file.write_text(content)
    with client(DOMAIN) as ours, launched(log, namespace="car", autostart="false", params_file=params_file) as launch:
        ours.wait(lambda: says in log.read_text() or launch.poll() is not None, says)
    assert says in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("argument", ["", "false"])
def test_the_group_says_whether_time_is_simulated_and_the_argument_knows_better(tmp_path: Path, argument: str) -> None:
    log, bundle = tmp_path / "launch.log", write_toy_bundle(tmp_path / "toy")
    arguments = {"use_sim_time": argument} if argument else {}
    with client(DOMAIN) as ours, launched(log, group="[SetUseSimTime(True)]", bundle=bundle, **arguments) as launch:
        status = ours.listen(PipelineStatus, f"{NODE}/status")
        ours.spin()
        ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
        simulated = status[0].header.stamp.sec == 0
    assert simulated == (not argument), log.read_text()


def process_of(executable: str) -> int | None:
    """The id of the launched process of that name."""

    def is_it(process: Path) -> bool:
        try:
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            return False
        return f"/{executable}\0".encode() in command and f"ROS_DOMAIN_ID={DOMAIN}\0".encode() in variables

    return next((int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and is_it(p)), None)


def kill(ours: Client, launch: subprocess.Popen[bytes], executable: str) -> None:
    """With SIGKILL, as soon as it is there."""
    ours.wait(lambda: process_of(executable) is not None or launch.poll() is not None, f"{executable} runs")
    process = process_of(executable)
    assert process is not None
    os.kill(process, signal.SIGKILL)


def test_a_killed_node_is_started_again_and_comes_up(tmp_path: Path) -> None:
    log, bundle = tmp_path / "launch.log", write_toy_bundle(tmp_path / "toy")
    with client(DOMAIN) as ours, launched(log, bundle=bundle, respawn="true") as launch:
        status = ours.received[f"{NODE}/status"]
        ours.spin()
        ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
        kill(ours, launch, "perception_node")
        ours.wait(lambda: log.read_text().count("process started with pid") == 2, "the node is started again")
        status.clear()
        ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the second one")
    assert launch.returncode == 0, log.read_text()
    assert log.read_text().count("waiting for images") == 2


def test_a_node_that_dies_ends_the_launch(tmp_path: Path) -> None:
    log, bundle = tmp_path / "launch.log", write_toy_bundle(tmp_path / "toy")
    with client(DOMAIN) as ours, launched(log, bundle=bundle) as launch:
        status = ours.listen(PipelineStatus, f"{NODE}/status")
        ours.spin()
        ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
        kill(ours, launch, "perception_node")
        assert launch.wait(DEADLINE) == 1
    assert "the perception node ended with exit status -9" in log.read_text()


@pytest.mark.parametrize(
    ("parameters", "says"),
    [({"overlay_opacity": 7.0}, "overlay_opacity"), ({"cameras": 3}, "cameras")],
    ids=["refused", "of another type"],
)
def test_a_node_that_refuses_its_parameters_ends_the_launch(
    tmp_path: Path, parameters: dict[str, object], says: str
) -> None:
    """Before it has answered any request."""
    params_file, log = tmp_path / "parameters.yaml", tmp_path / "launch.log"
    params_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
    with launched(log, params_file=params_file) as launch:
        assert launch.wait(DEADLINE) == 1
    assert says in log.read_text()
    assert "the perception node ended with exit status 1" in log.read_text()


def test_images_of_any_name_are_an_argument(tmp_path: Path) -> None:
    log, bundle = tmp_path / "launch.log", write_toy_bundle(tmp_path / "toy")
    arguments = {"cameras": "front,rear", "image_topics": "front=/image_raw,rear=/cam/image"}
    with client(DOMAIN) as ours, launched(log, bundle=bundle, **arguments) as launch:
        status = ours.listen(PipelineStatus, f"{NODE}/status")
        ours.spin()
        ours.wait(lambda: bool(status) or launch.poll() is not None, "status of the active node")
        topics = {name for name, _ in ours.node.get_topic_names_and_types()}
    assert {"/image_raw", "/camera_info", "/cam/image", "/cam/camera_info"} <= topics, log.read_text()


@pytest.mark.parametrize(
    ("argument", "value"), [("log_level", "loud"), ("image_transport", "theora"), ("image_topics", "front")]
)
def test_arguments_that_cannot_be(tmp_path: Path, argument: str, value: str) -> None:
    log = tmp_path / "launch.log"
    with launched(log, **{argument: value}) as launch:
        assert launch.wait(DEADLINE) == 1
    assert argument in log.read_text()


def test_rviz_shows_the_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for rviz keeps the configuration that it is given."""
    log, shown, rviz = tmp_path / "launch.log", tmp_path / "shown", tmp_path / "prefix/lib/rviz2/rviz2"
    index = tmp_path / "prefix/share/ament_index/resource_index/packages"
    for folder in (rviz.parent, index):
        folder.mkdir(parents=True)
    (index / "rviz2").touch()
    rviz.write_text(f'#!/bin/sh\ncp "$2" {shown}.part && mv {shown}.part {shown}\n')
    rviz.chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'prefix'}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}")
    arguments = {"rviz": "true", "cameras": "left,right", "image_transport": "compressed", "autostart": "false"}
    with client(DOMAIN) as ours, launched(log, **arguments) as launch:
        ours.wait(lambda: shown.exists() or launch.poll() is not None, "rviz is started")
    assert "left/image_raw/compressed" in shown.read_text(), log.read_text()
    assert "right/coop/overlay" in shown.read_text()


def test_a_profile_that_is_not_there_is_said(tmp_path: Path) -> None:
    log = tmp_path / "launch.log"
    with launched(log, rmw_profile=tmp_path / "nowhere.xml") as launch:
        assert launch.wait(DEADLINE) == 1
    assert "nowhere.xml is no file" in log.read_text()


@pytest.mark.parametrize("condition", ["", "gaussian_noise"])
def test_evaluation_plays_records_and_scores(tmp_path: Path, condition: str) -> None:
    bag, out, log = write_bag(tmp_path / "bag"), tmp_path / "out", tmp_path / "launch.log"
    bundle = write_toy_bundle(tmp_path / "toy")
    arguments = {"bag": bag, "out": out, "bundle": bundle, "condition": condition, "level": 1}
    with launched(log, "evaluation.launch.py", **arguments) as launch:
        assert launch.wait(3 * DEADLINE) == 0, log.read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["mode"] == "recorded"
    assert 0 < summary["frames"]["processed"] <= summary["frames"]["read"] <= COUNT, log.read_text()
    if condition:  # the recording's own images are the reference: noise of level 1 is a standard deviation of 13
        assert 20 < summary["image_degraded"]["psnr"] < 30
    else:
        assert summary["mask"]["pa"] == 1.0


def test_evaluation_ends_when_something_it_needs_does_not_work(tmp_path: Path) -> None:
    bag, out, log = write_bag(tmp_path / "bag"), tmp_path / "out", tmp_path / "launch.log"
    with launched(log, "evaluation.launch.py", bag=bag, out=out, bundle=tmp_path / "nowhere") as launch:
        assert launch.wait(2 * DEADLINE) == 1
    assert "the perception node cannot be configured" in log.read_text()
    (out / "recording").mkdir(exist_ok=True)
    with launched(log, "evaluation.launch.py", bag=bag, out=out) as launch:
        assert launch.wait(DEADLINE) == 1
    assert "exists already" in log.read_text()


def test_evaluation_ends_when_the_node_cannot_be_activated(tmp_path: Path) -> None:
    bag, log = write_bag(tmp_path / "bag"), tmp_path / "launch.log"
    override = {"qos_overrides./front/image_raw.subscription.reliability": "none"}
    params_file = tmp_path / "parameters.yaml"
    params_file.write_text(yaml.safe_dump({"/**": {"ros__parameters": override}}))
    arguments = {"bag": bag, "out": tmp_path / "out", "bundle": write_toy_bundle(tmp_path / "toy")}
    with launched(log, "evaluation.launch.py", params_file=params_file, **arguments) as launch:
        assert launch.wait(2 * DEADLINE) == 1
    assert "the perception node cannot be activated" in log.read_text()


@pytest.mark.parametrize(("executable", "name"), [("perception_node", "the perception node"), ("degrade_node",) * 2])
def test_evaluation_ends_when_a_node_dies(tmp_path: Path, executable: str, name: str) -> None:
    bag, log = write_bag(tmp_path / "bag"), tmp_path / "launch.log"
    arguments = {"bag": bag, "out": tmp_path / "out", "bundle": write_toy_bundle(tmp_path / "toy"), "condition": "fog"}
    with client(DOMAIN) as ours, launched(log, "evaluation.launch.py", **arguments) as launch:
        kill(ours, launch, executable)
        assert launch.wait(2 * DEADLINE) == 1
    assert f"{name} ended with exit status -9" in log.read_text()
