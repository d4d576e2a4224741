"""Plays a recording through the perception node, records what it publishes, and scores that.

ros2 launch coop_perception evaluation.launch.py bag:=drives/today out:=out/fog condition:=fog level:=2

With a condition, the recording goes through degrade_node first, and its own images are the reference.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown, matches_action
from launch.events.process import ProcessExited, SignalProcess
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.substitutions import ExecutableInPackage, FindPackageShare

from coop_perception.evaluation.results import FILES
from coop_perception.launching.bag_commands import record_command, recorded_topics, replay
from coop_perception.launching.transport import default_profile, profile_environment
from coop_perception.replacing import open_results
from coop_perception.resources import share

PACKAGE = "coop_perception"
SETTLE_S = 5.0
"""How long outputs may take to be recorded after the last image was played."""


def evaluation(context: LaunchContext) -> list[Action]:
    """Bring up, play, stop recording, score: each begins when the one before has ended."""

    def given(argument: str) -> str:
        return LaunchConfiguration(argument).perform(context)

    namespace = context.launch_configurations.get("ros_namespace", "")
    if namespace.strip("/"):
        raise ValueError(f"an evaluation is for no namespace, and is launched in that of a group: {namespace}")
    out = Path(given("out"))
    recording = out / "recording"
    if recording.exists():
        raise FileExistsError(f"{recording} exists already; name another folder, as out:=DIR")
    open_results(out, FILES, force=False)
    condition = given("condition")
    replayed = replay(Path(given("bag")), given("image_topic") or None, bool(condition), float(given("rate")))
    environment = profile_environment(given("rmw_profile"))
    play = ExecuteProcess(cmd=replayed.command, name="play", additional_env=environment, output="screen")
    record = ExecuteProcess(
        cmd=record_command(str(recording), recorded_topics(replayed.camera)), name="record", output="screen"
    )
    bundle = ["--bundle", given("bundle")] if given("bundle") else []
    # The degrade node drops images that it cannot follow; their references are played all the same.
    incomplete = ["--allow-incomplete"] if condition else []
    score = ExecuteProcess(
        cmd=[
            ExecutableInPackage("evaluate_bag", PACKAGE),
            *["--recorded", str(recording), "--out", str(out), *bundle, *incomplete],
        ],
        name="score",
        output="screen",
    )
    degrade = Node(
        package=PACKAGE,
        executable="degrade_node",
        name="degrade",
        parameters=[
            {
                "cameras": [replayed.camera],
                "image_transport": replayed.transport,
                "depth_image": replayed.depth,
                "condition": condition,
                "level": int(given("level")),
                "seed": int(given("seed")),
            }
        ],
        additional_env=environment,
        output="screen",
    )
    pipeline = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([FindPackageShare(PACKAGE), "launch/pipeline.launch.py"])),
        launch_arguments={
            "cameras": replayed.camera,
            "image_transport": replayed.transport,
            "bundle": given("bundle"),
            "params_file": given("params_file"),
            "rmw_profile": given("rmw_profile"),
        }.items(),
    )

    stop_recording = EmitEvent(event=SignalProcess(signal_number=signal.SIGINT, process_matcher=matches_action(record)))

    def fail_when(start: str, goal: str, reason: str) -> RegisterEventHandler:
        """Fail when the perception node goes from one state to another."""
        return RegisterEventHandler(OnStateTransition(start_state=start, goal_state=goal, entities=[fail(reason)]))

    def must_run(name: str, process: Action | Callable[[Action], bool]) -> RegisterEventHandler:
        """Fail when a process ends before the evaluation does."""

        def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:
            return [] if context.is_shutdown else [fail(f"{name} ended with exit status {event.returncode}")]

        return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=ended))

    def when_done(process: Action, following: Action) -> RegisterEventHandler:
        """Go on when a process has ended, but not when it failed."""

        def go_on(event: ProcessExited, context: LaunchContext) -> list[Action]:
            if context.is_shutdown:
                return []
            if event.returncode not in (0, -signal.SIGINT):
                return [fail(f"{event.process_name} failed")]
            return [following]

        return RegisterEventHandler(OnProcessExit(target_action=process, on_exit=go_on))

    return [
        record,  # from the beginning, for it takes a while until it listens
        RegisterEventHandler(OnStateTransition(goal_state="active", entities=[play], handle_once=True)),
        fail_when("configuring", "unconfigured", "the perception node cannot be configured"),
        fail_when("activating", "inactive", "the perception node cannot be activated"),
        must_run("the perception node", lambda action: isinstance(action, LifecycleNode)),  # of the included file
        must_run("degrade_node", degrade),
        when_done(play, TimerAction(period=SETTLE_S, actions=[stop_recording])),
        when_done(record, score),
        when_done(score, EmitEvent(event=Shutdown(reason="evaluation done"))),
        *([degrade] if condition else []),
        pipeline,
    ]


def fail(reason: str) -> OpaqueFunction:
    """Ends the launch, with an exit status that says so."""

    def raise_it(context: LaunchContext) -> None:
        raise RuntimeError(reason)

    return OpaqueFunction(function=raise_it)


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("bag", description="The recording to play."),
        DeclareLaunchArgument("out", default_value="out/evaluation", description="Folder of recording and results."),
        DeclareLaunchArgument("image_topic", default_value="", description="Of the recording; empty: its only one."),
        DeclareLaunchArgument("rate", default_value="1.0", description="Pace; 1 is the recording's own."),
        DeclareLaunchArgument(
            "condition", default_value="", description="Adverse condition to apply on the way; empty: none."
        ),
        DeclareLaunchArgument("level", default_value="2", description="Level of the condition, from 1 (mild)."),
        DeclareLaunchArgument("seed", default_value="0", description="Seed of the condition."),
        DeclareLaunchArgument("bundle", default_value="", description="Model bundle; empty: the installed one."),
        DeclareLaunchArgument(
            "params_file", default_value=str(share("config/pipeline.yaml")), description="The node's parameters (YAML)."
        ),
        DeclareLaunchArgument(
            "rmw_profile",
            default_value=default_profile(os.environ),
            description="Fast DDS profiles of the processes that publish (XML); none: as the environment has it.",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=evaluation)])
