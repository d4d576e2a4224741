"""launch and launch_ros without processes: what a launch file starts, and what follows from events that a test makes.

Only what the product uses is there, by the names and arguments of the real packages (which a test compares).
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

Entities = "Iterable[Any] | Callable[[Any, LaunchContext], Iterable[Any] | None]"


class LaunchContext:
    def __init__(self, configurations: dict[str, Any], observer: Any) -> None:
        self.launch_configurations, self.observer = configurations, observer
        self.is_shutdown = False
        self.events: list[Any] = []

    def emit_event_sync(self, event: Any) -> None:
        self.events.append(event)
        self.is_shutdown |= isinstance(event, Shutdown)


@dataclass
class LaunchDescription:
    initial_entities: Sequence[Any]


class Action:
    pass


@dataclass(eq=False)
class LaunchConfiguration:
    variable_name: str

    def perform(self, context: LaunchContext) -> str:
        return str(context.launch_configurations[self.variable_name])


@dataclass(eq=False)
class PathJoinSubstitution:
    substitutions: Sequence[Any]


@dataclass(eq=False)
class ExecutableInPackage:
    executable: str
    package: str


@dataclass(eq=False)
class FindPackageShare:
    package: str


@dataclass(eq=False)
class PythonLaunchDescriptionSource:
    launch_file_path: Any


@dataclass(eq=False)
class IfCondition:
    predicate_expression: LaunchConfiguration

    def evaluate(self, context: LaunchContext) -> bool:
        text = self.predicate_expression.perform(context).strip().lower()
        assert text in ("true", "1", "false", "0"), f"{self.predicate_expression.variable_name}: {text!r}"
        return text in ("true", "1")


@dataclass(eq=False)
class DeclareLaunchArgument(Action):
    name: str
    default_value: str | None = field(default=None, kw_only=True)
    description: str = field(kw_only=True)
    choices: Sequence[str] | None = field(default=None, kw_only=True)


@dataclass(eq=False, kw_only=True)
class EmitEvent(Action):
    event: Any


@dataclass(eq=False, kw_only=True)
class OpaqueFunction(Action):
    function: Callable[[LaunchContext], Iterable[Any] | None]


@dataclass(eq=False)
class RegisterEventHandler(Action):
    event_handler: Any


@dataclass(eq=False, kw_only=True)
class TimerAction(Action):
    period: float
    actions: Sequence[Any]


@dataclass(eq=False)
class IncludeLaunchDescription(Action):
    launch_description_source: Any
    launch_arguments: Iterable[tuple[str, Any]] = field(kw_only=True)


@dataclass(eq=False, kw_only=True)
class Process(Action):
    """What `ExecuteProcess` and `Node` have in common."""

    name: str | None = None
    output: str | None = None
    on_exit: Entities | None = None
    additional_env: dict[str, str] | None = None
    respawn: bool = False
    respawn_delay: float | None = None


@dataclass(eq=False, kw_only=True)
class ExecuteProcess(Process):
    cmd: Sequence[Any]


@dataclass(eq=False, kw_only=True)
class Node(Process):
    package: str
    executable: str
    namespace: Any = ""
    parameters: Sequence[Any] = ()
    arguments: Sequence[Any] = ()
    remappings: Sequence[tuple[str, str]] = ()
    node_name: str = field(default="", init=False)


@dataclass(eq=False, kw_only=True)
class LifecycleNode(Node):
    pass


@dataclass(eq=False, kw_only=True)
class OnProcess:
    target_action: Action | Callable[[Action], bool]
    handle_once: bool = False

    def matches(self, event: Any) -> bool:
        if isinstance(self.target_action, Action):
            return event.action is self.target_action
        return self.target_action(event.action)


@dataclass(eq=False, kw_only=True)
class OnProcessStart(OnProcess):
    on_start: Entities


@dataclass(eq=False, kw_only=True)
class OnProcessExit(OnProcess):
    on_exit: Entities


@dataclass(eq=False, kw_only=True)
class OnStateTransition:
    entities: Entities
    target_lifecycle_node: LifecycleNode | None = None
    start_state: str | None = None
    goal_state: str | None = None
    handle_once: bool = False

    def matches(self, event: Any) -> bool:
        asked = (self.start_state or event.start_state, self.goal_state or event.goal_state)
        node = self.target_lifecycle_node
        return asked == (event.start_state, event.goal_state) and (node is None or node is event.action)


@dataclass(kw_only=True)
class Shutdown:
    reason: str


@dataclass(kw_only=True)
class SignalProcess:
    signal_number: int
    process_matcher: Callable[[Action], bool]


@dataclass(kw_only=True)
class ChangeState:
    lifecycle_node_matcher: Callable[[Action], bool]
    transition_id: int


@dataclass(kw_only=True)
class ProcessExited:
    action: Process
    returncode: int

    @property
    def process_name(self) -> str:
        return str(self.action.name)


@dataclass(eq=False)
class ParameterFile:
    param_file: str
    allow_substs: bool = field(default=False, kw_only=True)


@dataclass(eq=False)
class ParameterValue:
    value: Any
    value_type: type | None = field(default=None, kw_only=True)


def matches_action(target_action: Action) -> Callable[[Action], bool]:
    return lambda action: action is target_action


def get_ros_node(context: LaunchContext) -> Any:
    return context.observer


def prefix_namespace(base_ns: str | None, ns: str | None) -> str | None:
    if ns is None or base_ns is None or ns.startswith("/"):
        return ns if ns is not None else base_ns
    return f"{base_ns.rstrip('/')}/{ns}"


def make_namespace_absolute(ns: str | None) -> str | None:
    return ns if ns is None or ns.startswith("/") else f"/{ns}"


MODULES = {
    "launch": (Action, LaunchContext, LaunchDescription),
    "launch.actions": (
        *(DeclareLaunchArgument, EmitEvent, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction),
        *(RegisterEventHandler, TimerAction),
    ),
    "launch.conditions": (IfCondition,),
    "launch.event_handlers": (OnProcessExit, OnProcessStart),
    "launch.events": (Shutdown, matches_action),
    "launch.events.process": (ProcessExited, SignalProcess),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.logging": (logging.getLogger,),
    "launch.substitutions": (LaunchConfiguration, PathJoinSubstitution),
    "launch_ros": (),
    "launch_ros.actions": (LifecycleNode, Node),
    "launch_ros.event_handlers": (OnStateTransition,),
    "launch_ros.events": (),
    "launch_ros.events.lifecycle": (ChangeState,),
    "launch_ros.parameter_descriptions": (ParameterFile, ParameterValue),
    "launch_ros.ros_adapters": (get_ros_node,),
    "launch_ros.substitutions": (ExecutableInPackage, FindPackageShare),
    "launch_ros.utilities": (make_namespace_absolute, prefix_namespace),
}
"""What is where, as the real packages have it."""


class FakeLaunch:
    """A launch file that is being launched.

    executed: what it has started and included so far, in that order. timers: those that wait.

    Args:
        monkeypatch: puts the fake packages in place.
        file: the launch file.
        observer: what launch sees of the graph of nodes.
        group: launch configurations of the group that it is in, such as `ros_namespace`.
        arguments: of the launch file.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        file: Path,
        observer: Any = None,
        group: dict[str, Any] | None = None,
        **arguments: object,
    ) -> None:
        for name, things in MODULES.items():
            module = ModuleType(name)
            for thing in things:
                setattr(module, "get_logger" if thing is logging.getLogger else thing.__name__, thing)
            monkeypatch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("launched", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.context = LaunchContext({**(group or {}), **arguments}, observer)
        self.executed: list[Any] = []
        self.timers: list[TimerAction] = []
        self._handlers: list[Any] = []
        self._execute(module.generate_launch_description().initial_entities)

    @property
    def processes(self) -> list[Process]:
        return [action for action in self.executed if isinstance(action, Process)]

    def process(self, name: str) -> Any:
        """The only one of that name that has been started."""
        (found,) = [process for process in self.processes if process.name == name]
        return found

    def parameters(self, node: Node) -> dict[str, Any]:
        """The node's own, whose files' names are the key `files`."""
        files = [part.param_file for part in node.parameters if isinstance(part, ParameterFile)]
        own = {name: value for part in node.parameters if isinstance(part, dict) for name, value in part.items()}
        return {"files": files, **{name: self._performed(value) for name, value in own.items()}}

    def requested(self) -> list[int]:
        """Ids of the transitions that launch has asked for."""
        return [event.transition_id for event in self.context.events if isinstance(event, ChangeState)]

    def exits(self, process: Process, status: int) -> None:
        event = ProcessExited(action=process, returncode=status)
        self._react(process.on_exit, event)
        self._handle(OnProcessExit, "on_exit", event)

    def goes(self, node: LifecycleNode, start: str, goal: str) -> None:
        """From one state to another."""
        self._handle(OnStateTransition, "entities", SimpleNamespace(action=node, start_state=start, goal_state=goal))

    def time_passes(self) -> None:
        """Until all timers that wait have fired."""
        timers, self.timers = self.timers, []
        for timer in timers:
            self._execute(timer.actions)

    def _performed(self, value: Any) -> Any:
        if isinstance(value, ParameterValue):
            text = self._performed(value.value)
            return {"true": True, "false": False}[text.lower()] if value.value_type is bool else text
        return value.perform(self.context) if isinstance(value, LaunchConfiguration) else value

    def _execute(self, entities: Iterable[Any]) -> None:
        for entity in entities:
            if isinstance(entity, DeclareLaunchArgument):
                self._declare(entity)
            elif isinstance(entity, OpaqueFunction):
                self._execute(entity.function(self.context) or [])
            elif isinstance(entity, RegisterEventHandler):
                self._handlers.append(entity.event_handler)
            elif isinstance(entity, EmitEvent):
                self.context.emit_event_sync(entity.event)
            elif isinstance(entity, TimerAction):
                self.timers.append(entity)
            else:
                assert isinstance(entity, Action)
                assert entity not in self.executed
                self.executed.append(entity)
                if isinstance(entity, Node):
                    outer = self.context.launch_configurations.get("ros_namespace")
                    namespace = make_namespace_absolute(prefix_namespace(outer, self._performed(entity.namespace)))
                    entity.node_name = f"{(namespace or '').rstrip('/')}/{entity.name}"
                self._handle(OnProcessStart, "on_start", SimpleNamespace(action=entity))

    def _declare(self, argument: DeclareLaunchArgument) -> None:
        configurations = self.context.launch_configurations
        if argument.default_value is not None:
            configurations.setdefault(argument.name, argument.default_value)
        if argument.name not in configurations:
            raise RuntimeError(f"Included launch description missing required argument '{argument.name}'")
        if argument.choices is not None and configurations[argument.name] not in argument.choices:
            raise RuntimeError(f'Argument "{argument.name}" provided value is not valid: {argument.choices}')

    def _handle(self, kind: type, reaction: str, event: Any) -> None:
        for handler in list(self._handlers):
            if isinstance(handler, kind) and handler.matches(event):
                if handler.handle_once:
                    self._handlers.remove(handler)
                self._react(getattr(handler, reaction), event)

    def _react(self, reaction: Any, event: Any) -> None:
        self._execute((reaction(event, self.context) if callable(reaction) else reaction) or [])
