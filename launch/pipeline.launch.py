"""The perception node, brought up to active, with rviz and a recording on request.

ros2 launch coop_perception pipeline.launch.py cameras:=front,rear record:=drives/today rviz:=true
"""

import os
import signal
from tempfile import NamedTemporaryFile

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from lifecycle_msgs.msg import Transition

from coop_perception.launching.bag_commands import record_command
from coop_perception.launching.rviz import TEMPLATE_CAMERA, rviz_config
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
    return [camera.strip() for camera in given(context, "cameras").strip("[] ").split(",") if camera.strip()]


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
    overrides = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    for name in ("bundle", "image_transport"):
        if value := given(context, name):
            overrides[name] = ParameterValue(value, value_type=str)
    if cameras := given_cameras(context):
        overrides["cameras"] = cameras
    autostart, respawn = is_on(context, "autostart"), is_on(context, "respawn")
    # One that is started again brings itself up: the dead one's services stay in the graph for a while, and a request
    # of launch's may go to them. Otherwise launch does, so that whoever waits for the transitions misses none.
    by_itself = ["--autostart"] if autostart and respawn else []
    node = LifecycleNode(
        package=PACKAGE,
        executable="perception_node",
        name=PACKAGE,
        namespace=LaunchConfiguration("namespace"),
        parameters=[ParameterFile(LaunchConfiguration("params_file"), allow_substs=True), overrides],
        arguments=[*by_itself, "--ros-args", "--log-level", LaunchConfiguration("log_level")],
        additional_env=profile_environment(given(context, "rmw_profile")),
        output="screen",
        remappings=given_images(context),
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_S,
        # Otherwise launch_ros would wait for the dead node's services for ever.
        on_exit=None if respawn else ended,
    )
    recorder = []
    if directory := given(context, "record"):
        command = record_command(directory, cameras, given(context, "namespace"))
        if is_on(context, "use_sim_time"):
            command.append("--use-sim-time")
        recorder = [ExecuteProcess(cmd=command, name="record", output="screen")]
    if by_itself or not autostart:
        return [*recorder, node]

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
    return [*recorder, activate_once_configured, node, request(Transition.TRANSITION_CONFIGURE)]


def viewer(context: LaunchContext) -> list[Action]:
    """rviz, with the displays of config/pipeline.rviz for each camera."""
    if not is_on(context, "rviz"):
        return []
    template = share("config/pipeline.rviz").read_text()
    compressed = given(context, "image_transport") == "compressed"
    with NamedTemporaryFile("w", prefix="coop_perception_", suffix=".rviz", delete=False) as file:
        file.write(rviz_config(template, given_cameras(context) or [TEMPLATE_CAMERA], compressed))
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=["-d", file.name],
            parameters=[{"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock."),
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
            "rmw_profile",
            default_value=default_profile(os.environ),
            description="Fast DDS profiles of the node's process (XML); none: as the environment has it.",
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="Show the cameras' topics in rviz."),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=perception), OpaqueFunction(function=viewer)])
