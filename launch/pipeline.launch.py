"""The perception node, brought up to active, with rviz and a recording on request.

ros2 launch coop_perception pipeline.launch.py cameras:=front,rear record:=drives/today rviz:=true
"""

import os
import signal
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.ros_adapters import get_ros_node
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
from lifecycle_msgs.msg import Transition

from coop_perception.launching.node_parameters import parameter_files
from coop_perception.launching.recorder import recorder
from coop_perception.launching.rviz import TEMPLATE_CAMERA, rviz_config
from coop_perception.launching.temporary import temporary_file
from coop_perception.launching.transport import default_profile, profile_environment
from coop_perception.resources import share
from coop_perception.topics import IMAGE, of

PACKAGE = "coop_perception"
RESPAWN_DELAY_S = 2.0


def given(context: LaunchContext, argument: str) -> str:
    return str(LaunchConfiguration(argument).perform(context))


def is_on(context: LaunchContext, argument: str) -> bool:
    return bool(IfCondition(LaunchConfiguration(argument)).evaluate(context))


def given_cameras(context: LaunchContext) -> list[str]:
    names = given(context, "cameras").strip("[] ").split(",")
    return [name for name in (camera.strip(" '\"") for camera in names) if name]


def sim_time(context: LaunchContext) -> list[dict[str, bool]]:
    """use_sim_time as the argument says; without one as SetUseSimTime does, which sets it for launch's own node alone;
    else as a file of parameters may."""
    if given(context, "use_sim_time"):
        return [{"use_sim_time": is_on(context, "use_sim_time")}]
    return [{"use_sim_time": True}] if get_ros_node(context).get_parameter("use_sim_time").value else []


def given_namespace(context: LaunchContext) -> str:
    """The node's, below those of groups that it is launched in; fully qualified or empty."""
    outer = context.launch_configurations.get("ros_namespace")
    return (make_namespace_absolute(prefix_namespace(outer, given(context, "namespace") or None)) or "").rstrip("/")


def given_images(context: LaunchContext) -> list[tuple[str, str]]:
    """Remappings of cameras' images: `front=/image_raw` for camera front."""
    pairs = []
    for entry in given(context, "image_topics").split(","):
        camera, equals, topic = (part.strip() for part in entry.partition("="))
        if equals and camera and topic:
            pairs.append((of(camera, IMAGE), topic))
        elif entry.strip():
            raise ValueError(f"image_topics has {entry.strip()!r}, expected CAMERA=TOPIC, as front=/image_raw")
    return pairs


def ended(event: ProcessExited, context: LaunchContext) -> None:
    """End the launch with the node: with status 1, where that did not end by itself in peace."""
    if context.is_shutdown:
        return
    if event.returncode not in (0, -signal.SIGINT):
        raise RuntimeError(f"the perception node ended with exit status {event.returncode}")
    context.emit_event_sync(Shutdown(reason="the perception node has ended"))


def perception(context: LaunchContext) -> list[Action]:
    """The node, what brings it up to active, and what records it."""

    # What is empty is as the parameters file decides.
    overrides: list[dict[str, Any]] = [*sim_time(context)]
    if bundle := given(context, "bundle"):
        overrides.append({"bundle": ParameterValue(str(Path(bundle).expanduser()), value_type=str)})
    if transport := given(context, "image_transport"):
        overrides.append({"image_transport": ParameterValue(transport, value_type=str)})
    if cameras := given_cameras(context):
        overrides.append({"cameras": cameras})
    autostart, respawn = is_on(context, "autostart"), is_on(context, "respawn")
    # One that is started again brings itself up: the dead one's services stay in the graph for a while, and a request
    # of launch's may go to them. Otherwise launch does, so that whoever waits for the transitions misses none.
    by_itself = ["--autostart"] if autostart and respawn else []
    warn = get_logger(PACKAGE).warning
    files = parameter_files(given(context, "params_file"), given_namespace(context), PACKAGE, warn)
    node = LifecycleNode(
        package=PACKAGE,
        executable="perception_node",
        name=PACKAGE,
        namespace=LaunchConfiguration("namespace"),
        parameters=[*(ParameterFile(file, allow_substs=True) for file in files), *overrides],
        arguments=[*by_itself, "--ros-args", "--log-level", LaunchConfiguration("log_level")],
        additional_env=profile_environment(given(context, "rmw_profile")),
        output="screen",
        remappings=given_images(context),
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        # Otherwise launch_ros would wait for the dead node's services for ever.
        on_exit=None if respawn else ended,
    )
    recording = []
    if directory := given(context, "record"):
        options = ["--use-sim-time"] if {"use_sim_time": True} in overrides else []
        recording = recorder(node, directory, options, restart=is_on(context, "respawn_recorder"))
    if by_itself or not autostart:
        return [*recording, node]

    def request(transition_id: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id))

    # Registered before the node starts, so that its first transition is not missed; once, so that whoever configures
    # the node again later also decides when to activate it.
    activate_once_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[request(Transition.TRANSITION_ACTIVATE)],
            handle_once=True,
        )
    )
    return [*recording, activate_once_configured, node, request(Transition.TRANSITION_CONFIGURE)]


def viewer(context: LaunchContext) -> list[Action]:
    """rviz, with the displays of config/pipeline.rviz for each camera."""
    if not is_on(context, "rviz"):
        return []
    template = share("config/pipeline.rviz").read_text()
    compressed = given(context, "image_transport") == "compressed"
    config = rviz_config(template, given_cameras(context) or [TEMPLATE_CAMERA], compressed)
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=["-d", temporary_file(config, ".rviz")],
            parameters=sim_time(context),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            description="Take the time from /clock; empty: as SetUseSimTime or params_file says, else not.",
            choices=["", "true", "false", "True", "False"],
        ),
        DeclareLaunchArgument(
            "params_file", default_value=str(share("config/pipeline.yaml")), description="The node's parameters (YAML)."
        ),
        DeclareLaunchArgument("autostart", default_value="true", description="Configure and activate the node."),
        DeclareLaunchArgument(
            "respawn", default_value="false", description="Start the node again when it has ended, be it killed."
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="The node's log level.",
            choices=["debug", "info", "warn", "error", "fatal"],
        ),
        DeclareLaunchArgument(
            "bundle", default_value="", description="Directory of the model bundle; empty: as params_file says."
        ),
        DeclareLaunchArgument(
            "cameras", default_value="", description="Cameras to serve, as front,rear; empty: as params_file says."
        ),
        DeclareLaunchArgument(
            "image_transport",
            default_value="",
            description="Raw or compressed input; empty: as params_file says.",
            choices=["", "raw", "compressed"],
        ),
        DeclareLaunchArgument(
            "image_topics",
            default_value="",
            description="Where cameras' images are, as front=/image_raw,rear=/cam/image: for other names than "
            "CAMERA/image_raw. camera_info is read from beside them.",
        ),
        DeclareLaunchArgument(
            "record",
            default_value="",
            description="New directory to record inputs and outputs to, with ros2 bag; empty: no recording.",
        ),
        DeclareLaunchArgument(
            "respawn_recorder",
            default_value="false",
            description="Start a recorder that has ended again, to record_2 and so on; otherwise it ends the launch.",
        ),
        DeclareLaunchArgument(
            "rmw_profile",
            default_value=default_profile(os.environ),
            description="Fast DDS profiles of the node's process (XML); none: as the environment has it.",
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="Show the cameras' topics in rviz."),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=perception), OpaqueFunction(function=viewer)])
