"""The perception node, brought up to active, with rviz on request.

ros2 launch coop_perception pipeline.launch.py bundle:=/path/to/bundle rviz:=true
"""

from launch.actions import DeclareLaunchArgument, EmitEvent, RegisterEventHandler
from launch.conditions import IfCondition
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

PACKAGE = "coop_perception"


def generate_launch_description() -> LaunchDescription:
    def share(*parts: str) -> PathJoinSubstitution:
        return PathJoinSubstitution([FindPackageShare(PACKAGE), *parts])

    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node and its topics."),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="Take the time from /clock."),
        DeclareLaunchArgument(
            "params_file", default_value=share("config", "pipeline.yaml"), description="The node's parameters (YAML)."
        ),
        DeclareLaunchArgument("autostart", default_value="true", description="Configure and activate the node."),
        DeclareLaunchArgument("log_level", default_value="info", description="The node's log level."),
        DeclareLaunchArgument(
            "bundle", default_value=share("models", "street"), description="Directory of the model bundle."
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="Show the first camera's topics in rviz."),
    ]
    node = LifecycleNode(
        package=PACKAGE,
        executable="perception_node",
        name=PACKAGE,
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            ParameterFile(LaunchConfiguration("params_file"), allow_substs=True),
            {
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
                "bundle": ParameterValue(LaunchConfiguration("bundle"), value_type=str),
            },
        ],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    autostart = IfCondition(LaunchConfiguration("autostart"))

    def transition(transition_id: int) -> EmitEvent:
        event = ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition_id)
        return EmitEvent(event=event, condition=autostart)

    # Registered before the node starts, so that its first transition is not missed.
    activate_once_configured = RegisterEventHandler(
        OnStateTransition(
            target_lifecycle_node=node,
            start_state="configuring",
            goal_state="inactive",
            entities=[transition(Transition.TRANSITION_ACTIVATE)],
        )
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", share("config", "pipeline.rviz")],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [*arguments, activate_once_configured, node, transition(Transition.TRANSITION_CONFIGURE), rviz]
    )
