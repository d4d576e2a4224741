"""`ros2 bag record` beside a launched node, of the topics that the node turns out to use."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rclpy.node import Node

from coop_perception.launching.bag_commands import record_command, used_topics
from coop_perception.topics import NODE

if TYPE_CHECKING:
    from launch import Action, LaunchContext
    from launch.actions import ExecuteProcess, TimerAction
    from launch.events.process import ProcessExited
    from launch_ros.actions import LifecycleNode

LOOK_S = 0.5
RESTART_S = 2.0


def recorder(node: LifecycleNode, directory: str, options: Sequence[str], restart: bool) -> list[Action]:
    """Records once the node serves, in whatever namespace and with whatever remappings and parameters it does.

    A recorder that ends before the launch does ends that with status 1, unless it is to be started again.

    Args:
        node: the perception node, not yet started.
        directory: of the recording; those of recorders that are started again get `_2`, `_3` behind it.
        options: more of `ros2 bag record`.
        restart: whether a recorder that has ended is started again.

    Raises:
        FileExistsError, FileNotFoundError: it cannot be recorded to, or there is no `ros2`.
    """
    # Here, as launch is there under `ros2 launch` alone.
    from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler, TimerAction
    from launch.event_handlers import OnProcessStart
    from launch.logging import get_logger
    from launch_ros.ros_adapters import get_ros_node

    path = Path(directory).expanduser()
    if path.exists():
        raise FileExistsError(f"record: {path} exists already; name another folder")
    if shutil.which("ros2") is None:  # launch would log that it could not be started, and go on
        raise FileNotFoundError("record: there is no ros2 on PATH; source ROS 2, and install ros2bag")
    topics: set[str] = set()
    begun = False

    def look(context: LaunchContext) -> list[Action]:
        """Record when two looks have seen the same: what a node has made arrives piece by piece. Warn of what it uses
        only later, with other cameras say, which is not recorded."""
        nonlocal topics, begun
        seen = topics_of(get_ros_node(context), node.node_name)
        again = after(LOOK_S, OpaqueFunction(function=look))
        if begun:
            if later := sorted(seen - topics):
                get_logger(NODE).warning(f"record: not recorded, as the node uses it only now: {', '.join(later)}")
            topics |= seen
            return [again]
        begun = bool(seen) and seen == topics
        topics = seen
        return [again, record(path)] if begun else [again]

    def after(period_s: float, action: Action) -> TimerAction:
        return TimerAction(period=period_s, actions=[action])

    def record(folder: Path) -> ExecuteProcess:
        command = [*record_command(str(folder), topics), *options]
        return ExecuteProcess(cmd=command, name="record", output="screen", on_exit=ended)

    def ended(event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        if not restart:
            raise RuntimeError(f"the recorder ended with exit status {event.returncode}")
        folders = (path.with_name(f"{path.name}_{number}") for number in range(2, 1 << 30))
        return [after(RESTART_S, record(next(folder for folder in folders if not folder.exists())))]

    started = OnProcessStart(target_action=node, on_start=[OpaqueFunction(function=look)], handle_once=True)
    return [RegisterEventHandler(started)]


def topics_of(observer: Node, name: str) -> set[str]:
    """What is to be recorded of the node of that name, as far as an observer in its graph knows.

    Args:
        observer: in the same domain.
        name: fully qualified.
    """
    namespace, _, base = name.rpartition("/")
    namespace = namespace or "/"
    if (base, namespace) not in observer.get_node_names_and_namespaces():
        return set()
    subscribed, published = (
        {topic: types[0] for topic, types in names(base, namespace)}
        for names in (observer.get_subscriber_names_and_types_by_node, observer.get_publisher_names_and_types_by_node)
    )
    return used_topics(subscribed, published)
