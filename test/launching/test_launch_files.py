"""What the launch files start, and what they do when that starts, changes its state or ends; with launch's stand-in.

Under the real launch system, where that is installed: test_launch.py.
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_launch
import pytest
import yaml
from fake_launch import ExecutableInPackage, FakeLaunch, IncludeLaunchDescription, LifecycleNode, Shutdown
from lifecycle_msgs.msg import Transition
from small_recording import write_bag

from coop_perception.recordings.messages import CAMERA_INFO_TYPE, COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.resources import share

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
ENDED = "the perception node ended with exit status -9"


class Graph:
    """What launch's own node sees of the perception node: nothing, until its topics are given."""

    def __init__(self, name: str = "/coop_perception", sim_time: bool = False) -> None:
        self.sim_time = sim_time
        namespace, _, base = name.rpartition("/")
        self.node = (base, namespace or "/")
        self.subscribed: dict[str, str] = {}
        self.published: dict[str, str] = {}

    def get_parameter(self, name: str) -> SimpleNamespace:
        assert name == "use_sim_time"
        return SimpleNamespace(value=self.sim_time)

    def get_node_names_and_namespaces(self) -> list[tuple[str, str]]:
        return [self.node] if self.subscribed else []

    def get_subscriber_names_and_types_by_node(self, *node: str) -> list[tuple[str, list[str]]]:
        assert node == self.node
        return [(topic, [kind]) for topic, kind in self.subscribed.items()]

    def get_publisher_names_and_types_by_node(self, *node: str) -> list[tuple[str, list[str]]]:
        assert node == self.node
        return [(topic, [kind]) for topic, kind in self.published.items()]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Launches pipeline.launch.py; `graph` and `group` are FakeLaunch's, the rest is its arguments."""

    def launch(**arguments: Any) -> FakeLaunch:
        graph, group = arguments.pop("graph", Graph()), arguments.pop("group", None)
        return FakeLaunch(monkeypatch, LAUNCH / "pipeline.launch.py", graph, group, **arguments)

    return launch


@pytest.fixture
def ros2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something of that name is on PATH."""
    (tmp_path / "ros2").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_arguments_the_file_of_parameters_decides(pipeline: Any) -> None:
    launched = pipeline()
    (node,) = launched.executed
    assert isinstance(node, LifecycleNode)
    assert (node.package, node.executable, node.node_name) == ("coop_perception", "perception_node", "/coop_perception")
    assert launched.parameters(node) == {"files": [str(share("config/pipeline.yaml"))]}
    assert (list(node.remappings), node.respawn) == ([], False)
    assert launched.requested() == [Transition.TRANSITION_CONFIGURE]


def test_arguments_override_it(pipeline: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.xml").touch()
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {status_period: 0.5}}")
    launched = pipeline(
        bundle="~/street",
        cameras="['front', \"rear/cam\"]",
        image_transport="compressed",
        use_sim_time="true",
        params_file="~/mine.yaml",
        rmw_profile="~/mine.xml",
        image_topics="front=/image_raw,rear/cam = /cam/image",
        log_level="debug",
    )
    (node,) = launched.executed
    assert launched.parameters(node) == {
        "files": [str(tmp_path / "mine.yaml")],
        "bundle": str(tmp_path / "street"),
        "cameras": ["front", "rear/cam"],
        "image_transport": "compressed",
        "use_sim_time": True,
    }
    assert set(node.additional_env.values()) == {str(tmp_path / "mine.xml")}
    assert node.remappings == [("front/image_raw", "/image_raw"), ("rear/cam/image_raw", "/cam/image")]
    assert [part for part in node.arguments if isinstance(part, str)] == ["--ros-args", "--log-level"]


@pytest.mark.parametrize("value", ["front,rear", "[front, rear]", "['front','rear']", ' "front" , "rear" '])
def test_lists_of_cameras_as_people_write_them(pipeline: Any, value: str) -> None:
    launched = pipeline(cameras=value)
    assert launched.parameters(launched.executed[0])["cameras"] == ["front", "rear"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("log_level", "loud"), ("image_transport", "theora"), ("use_sim_time", "maybe"), ("image_topics", "front")],
)
def test_arguments_that_cannot_be(pipeline: Any, argument: str, value: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=argument):
        pipeline(**{argument: value})


def test_it_is_activated_once_when_it_has_been_configured(pipeline: Any) -> None:
    launched = pipeline()
    for _ in range(2):  # the second time somebody else configures it
        launched.goes(launched.executed[0], "configuring", "inactive")
    assert launched.requested() == [Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE]


@pytest.mark.parametrize("autostart", ["true", "false"])
def test_what_is_started_again_brings_itself_up(pipeline: Any, autostart: str) -> None:
    launched = pipeline(respawn="true", autostart=autostart)
    (node,) = launched.executed
    assert ("--autostart" in node.arguments) == (autostart == "true")
    assert (node.respawn, node.on_exit, launched.requested()) == (True, None, [])


def test_without_autostart_the_transitions_are_left_to_others(pipeline: Any) -> None:
    launched = pipeline(autostart="false")
    launched.goes(launched.executed[0], "configuring", "inactive")
    assert launched.requested() == []
    assert "--autostart" not in launched.executed[0].arguments


def test_a_node_that_ends_ends_the_launch(pipeline: Any) -> None:
    launched = pipeline()
    with pytest.raises(RuntimeError, match=ENDED):
        launched.exits(launched.executed[0], -9)
    launched = pipeline()
    launched.exits(launched.executed[0], 0)
    assert isinstance(launched.context.events[-1], Shutdown)
    launched.exits(launched.executed[0], -9)  # what is killed while the launch ends is no failure


@pytest.mark.parametrize("outer", [None, "/fleet"])
def test_parameters_of_the_node_hold_in_any_namespace(pipeline: Any, tmp_path: Path, outer: str | None) -> None:
    """The file is written without one, as Nav2's are."""
    file = tmp_path / "parameters.yaml"
    file.write_text(
        "---\n"
        "/coop_perception:  # ours\n"
        "  ros__parameters:\n"
        "    bundle: $(env HOME)/street\n"
        "'/**':\n"
        "  ros__parameters: {status_period: 0.5}\n"
    )
    launched = pipeline(params_file=file, namespace="car", group={"ros_namespace": outer} if outer else {})
    files = launched.parameters(launched.executed[0])["files"]
    assert files[0] == str(file)  # of which /** is for the node
    content = yaml.safe_load(Path(files[1]).read_text())
    assert content == {
        "fleet/car" if outer else "car": {
            "coop_perception": {"ros__parameters": {"bundle": "$(env HOME)/street"}},
            "**": {"ros__parameters": {"status_period": 0.5}},
        }
    }


@pytest.mark.parametrize(
    "key", ["/**", "/car/coop_perception", "/*/coop_perception"], ids=["any", "in full", "pattern"]
)
def test_parameters_of_the_node_in_its_namespace_are_taken_as_they_are(
    pipeline: Any, tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text(yaml.safe_dump({key: {"ros__parameters": {"status_period": 0.5}}}))
    launched = pipeline(params_file=file, namespace="car")
    assert launched.parameters(launched.executed[0])["files"][0] == str(file)
    assert not caplog.records


def test_parameters_of_another_node_are_said(pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("perception_node: {ros__parameters: {status_period: 0.5}}")
    launched = pipeline(params_file=file, namespace="car")
    assert launched.parameters(launched.executed[0])["files"] == [str(file)]
    (said,) = caplog.messages
    assert said == (
        f"none of the parameters in {file} is for /car/coop_perception (keys: perception_node); "
        "write /** or /car/coop_perception above ros__parameters"
    )


@pytest.mark.parametrize(
    ("content", "says"), [("a: [", "is no YAML"), (b"\xff\xfe\x00", "is no YAML"), (None, "is no file")]
)
def test_files_of_parameters_that_cannot_be_read(
    pipeline: Any, tmp_path: Path, content: str | bytes | None, says: str
) -> None:
    file = tmp_path / "parameters.yaml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        pipeline(params_file=file)
    assert "\n" not in str(caught.value)


def serving(graph: Graph) -> None:
    """The node serves a camera whose image and mask have been remapped."""
    graph.subscribed = {
        "/cam/image/compressed": COMPRESSED_IMAGE_TYPE,
        "/cam/camera_info": CAMERA_INFO_TYPE,
        "/parameter_events": "rcl_interfaces/msg/ParameterEvent",
    }
    graph.published = {
        "/m": IMAGE_TYPE,
        "/car/front/coop/overlay": IMAGE_TYPE,
        "/car/front/coop/image_restored": IMAGE_TYPE,
        "/car/front/coop/image_restored/compressed": COMPRESSED_IMAGE_TYPE,
        "/car/front/coop/camera_info": CAMERA_INFO_TYPE,
        "/car/coop_perception/status": "coop_perception_msgs/msg/PipelineStatus",
        "/car/coop_perception/transition_event": "lifecycle_msgs/msg/TransitionEvent",
        "/rosout": "rcl_interfaces/msg/Log",
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }


RECORDED = [
    "/cam/camera_info",
    "/cam/image/compressed",
    "/cam/reference/condition",
    "/cam/reference/image",
    "/cam/reference/mask",
    "/car/coop_perception/status",
    "/car/front/coop/camera_info",
    "/car/front/coop/image_restored",
    "/diagnostics",
    "/m",
]


@pytest.mark.usefixtures("ros2")
def test_what_is_recorded_is_what_the_node_uses(
    pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = Graph("/car/coop_perception")
    launched = pipeline(graph=graph, group={"ros_namespace": "/car"}, record=tmp_path / "today")
    for _ in range(3):
        launched.time_passes()
    assert len(launched.processes) == 1  # the node serves nothing yet
    serving(graph)
    output = graph.published.pop("/m")  # of which launch hears later
    launched.time_passes()
    graph.published["/m"] = output
    launched.time_passes()
    assert len(launched.processes) == 1
    launched.time_passes()
    command = launched.process("record").cmd
    assert command[:6] == ["ros2", "bag", "record", "--output", str(tmp_path / "today"), "--regex"]
    assert len(command) == 7
    topics = [*graph.subscribed, *graph.published, *RECORDED, "/cam/image", "/cam/camera_info/x", "/x/m"]
    assert sorted({topic for topic in topics if re.search(command[6], topic)}) == RECORDED
    launched.time_passes()
    assert not caplog.messages
    graph.subscribed["/rear/image_raw"] = IMAGE_TYPE  # somebody has configured it anew
    for _ in range(2):
        launched.time_passes()
    (said,) = caplog.messages
    later = "/rear/image_raw, /rear/reference/condition, /rear/reference/image, /rear/reference/mask"
    assert said == f"record: not recorded, as the node uses it only now: {later}"
    assert len(launched.processes) == 2


@pytest.mark.usefixtures("ros2")
def test_simulated_time_is_the_recorders_as_well(pipeline: Any, tmp_path: Path) -> None:
    for given, of_launch, expected in (
        ("true", False, True),
        ("false", True, False),
        ("", False, None),
        ("", True, True),  # SetUseSimTime
    ):
        graph = Graph(sim_time=of_launch)
        launched = pipeline(graph=graph, record=tmp_path / "today", use_sim_time=given)
        assert launched.parameters(launched.executed[0]).get("use_sim_time") is expected
        serving(graph)
        launched.time_passes()
        launched.time_passes()
        assert ("--use-sim-time" in launched.process("record").cmd) == bool(expected)


@pytest.mark.usefixtures("ros2")
@pytest.mark.parametrize("status", [0, 2, -9])
def test_a_recorder_that_ends_ends_the_launch_or_is_started_again(pipeline: Any, tmp_path: Path, status: int) -> None:
    def recording(**arguments: str) -> FakeLaunch:
        launched = pipeline(graph=(graph := Graph()), record=tmp_path / "today", **arguments)
        serving(graph)
        launched.time_passes()
        launched.time_passes()
        return launched

    launched = recording()
    with pytest.raises(RuntimeError, match=f"the recorder ended with exit status {status}"):
        launched.exits(launched.process("record"), status)
    launched.context.is_shutdown = True
    launched.exits(launched.process("record"), status)

    launched = recording(respawn_recorder="true")
    (tmp_path / "today_2").mkdir()
    launched.exits(launched.process("record"), status)
    launched.time_passes()
    assert launched.processes[-1].cmd[4] == str(tmp_path / "today_3")
    assert launched.processes[-1].cmd[5:] == launched.processes[-2].cmd[5:]


def test_a_recorder_that_cannot_start_is_said_before_the_node_starts(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileExistsError, match=f"record: {tmp_path} exists already"):
        pipeline(record=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="record: there is no ros2 on PATH"):
        pipeline(record=tmp_path / "today")


def test_rviz_shows_the_cameras(pipeline: Any) -> None:
    launched = pipeline(rviz="true", cameras="left,right", image_transport="compressed", use_sim_time="true")
    rviz = launched.executed[1]
    assert (rviz.package, rviz.executable) == ("rviz2", "rviz2")
    flag, file = rviz.arguments
    assert flag == "-d"
    assert "left/image_raw/compressed" in Path(file).read_text()
    assert launched.parameters(rviz) == {"files": [], "use_sim_time": True}


def test_files_for_launched_processes_are_gone_when_the_launch_has_ended() -> None:
    script = (
        "from pathlib import Path; from coop_perception.launching.temporary import temporary_file as file; "
        "path = file('text', '.rviz'); assert Path(path).read_text() == 'text'; print(path)"
    )
    path = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    assert path.endswith(".rviz")
    assert not Path(path).exists()


class TestEvaluation:
    """Bring up, play, stop recording, score."""

    @pytest.fixture
    def launched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeLaunch:
        bag = write_bag(tmp_path / "bag")
        arguments = {"bag": bag, "out": tmp_path / "out", "condition": "fog", "bundle": "toy"}
        return FakeLaunch(monkeypatch, LAUNCH / "evaluation.launch.py", **arguments)

    @pytest.fixture
    def node(self) -> LifecycleNode:
        """Of the file that is included."""
        return LifecycleNode(package="coop_perception", executable="perception_node", name="the node")

    def test_each_begins_when_the_one_before_has_ended(
        self, launched: FakeLaunch, node: LifecycleNode, tmp_path: Path
    ) -> None:
        assert [process.name for process in launched.processes] == ["record", "degrade"]
        (included,) = [action for action in launched.executed if isinstance(action, IncludeLaunchDescription)]
        assert dict(included.launch_arguments)["cameras"] == "front"
        record = launched.process("record")
        for topic in ("/front/image_raw", "/front/coop/mask", "/front/reference/mask", "/coop_perception/status"):
            assert re.search(record.cmd[-1], topic)
        launched.goes(node, "activating", "active")
        launched.goes(node, "activating", "active")
        launched.exits(launched.process("play"), 0)
        assert launched.context.events == []
        launched.time_passes()
        (stop,) = launched.context.events
        assert stop.process_matcher(record)
        launched.exits(record, 0)
        score = launched.process("score")
        assert isinstance(score.cmd[0], ExecutableInPackage)
        assert score.cmd[1:4] == ["--recorded", str(tmp_path / "out/recording"), "--out"]
        assert "--allow-incomplete" in score.cmd
        launched.exits(score, 0)
        assert isinstance(launched.context.events[-1], Shutdown)

    def test_it_is_for_no_namespace(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Refused before the work: what it plays and records has fully qualified names."""
        group = {"ros_namespace": "/car"}
        with pytest.raises(ValueError, match="launched in that of a group: /car"):
            FakeLaunch(monkeypatch, LAUNCH / "evaluation.launch.py", group=group, bag=tmp_path, bundle="toy")

    @pytest.mark.parametrize(
        ("start", "goal", "says"),
        [("configuring", "unconfigured", "cannot be configured"), ("activating", "inactive", "cannot be activated")],
    )
    def test_it_ends_with_what_it_needs(
        self, launched: FakeLaunch, node: LifecycleNode, start: str, goal: str, says: str
    ) -> None:
        with pytest.raises(RuntimeError, match=f"the perception node {says}"):
            launched.goes(node, start, goal)
        with pytest.raises(RuntimeError, match="record failed"):
            launched.exits(launched.process("record"), 1)
        with pytest.raises(RuntimeError, match="degrade_node ended with exit status -9"):
            launched.exits(launched.process("degrade"), -9)
        with pytest.raises(RuntimeError, match=ENDED):
            launched.exits(node, -9)


class TestAgainstTheRealOne:
    """Only where launch and launch_ros are installed."""

    @pytest.mark.parametrize("name", fake_launch.MODULES)
    def test_what_the_stand_in_has_is_there_and_takes_these_arguments(self, name: str) -> None:
        pytest.importorskip("launch_ros", reason="ROS 2's launch_ros is not installed")
        real = importlib.import_module(name)
        for thing in fake_launch.MODULES[name]:
            found = getattr(real, "get_logger" if thing.__name__ == "getLogger" else thing.__name__)
            if found.__name__ in ("LaunchContext", "Action", "ProcessExited", "get_logger"):
                continue  # which launch itself makes
            taken = parameters_of(found)
            for parameter in inspect.signature(thing).parameters.values():
                assert parameter.name in taken, f"{name}.{thing.__name__}"
                if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                    assert taken[parameter.name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def parameters_of(function: Any) -> dict[str, inspect.Parameter]:
    """Also those that a class leaves to the classes before it."""
    functions = [function] if inspect.isfunction(function) else [kind.__init__ for kind in reversed(function.__mro__)]
    return {name: parameter for f in functions for name, parameter in inspect.signature(f).parameters.items()}


def test_the_graph_here_is_as_rclpy_has_it() -> None:
    from rclpy.node import Node

    for name in ("get_subscriber_names_and_types_by_node", "get_publisher_names_and_types_by_node"):
        assert list(inspect.signature(getattr(Node, name)).parameters)[1:3] == ["node_name", "node_namespace"]
