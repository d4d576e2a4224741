"""What rclpy's lifecycle leaves to its users: saying what went wrong in a transition, ending in the right state, and
coming up unasked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, TypeVar

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from coop_perception.engines.cuda import GpuLostError
from coop_perception.node.failure import FailureReport
from coop_perception.shown import plain


class _Reporting(Protocol):
    """A lifecycle node that says on /diagnostics why it does not serve."""

    failure: FailureReport
    context: Context

    def get_logger(self) -> Any: ...


Node = TypeVar("Node", bound=_Reporting)
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def logged(
    otherwise: TransitionCallbackReturn, *expected: type[Exception]
) -> Callable[[Transition[Node]], Transition[Node]]:
    """rclpy swallows what a transition raises (its issue 1673): log it and return `otherwise`.

    Args:
        otherwise: FAILURE goes back to the state before; ERROR goes on to `on_error`.
        expected: errors whose message says all; others are logged with their type.
    """

    def decorate(transition: Transition[Node]) -> Transition[Node]:
        @wraps(transition)
        def wrapper(node: Node, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                result = transition(node, state)
                if result == TransitionCallbackReturn.SUCCESS:
                    node.failure.clear()
                return result
            except Exception as error:
                if getattr(node, "exit_status", 0):  # it ends, and has said why
                    return otherwise
                kind = "" if isinstance(error, expected) else f"{type(error).__name__}: "
                reason = f"{transition.__name__}: {kind}{plain(error)}"
                node.get_logger().error(reason)
                if node.context.ok():
                    node.failure.say(reason)
                return otherwise

        return wrapper

    return decorate


def refusing(change_state: Callable[[Any, Any], Any], request: Any, response: Any) -> Any:
    """rclpy lets a transition that the state does not allow end the whole process (its issue 1209): refuse it."""
    try:
        return change_state(request, response)
    except RCLError:
        response.success = False
        return response


def end(node: Any) -> None:
    """End the node's process with status 1, unless it was told to end anyway.

    Args:
        node: that is spun by `coop_perception.ros.executable.run`.
    """
    if node.context.ok():
        node.exit_status = 1
        rclpy.try_shutdown(context=node.context)


def end_without_gpu(node: Any, error: GpuLostError) -> None:
    """End the node's process as `end` does, with a line that says why."""
    if node.context.ok():
        node.get_logger().fatal(f"the GPU is lost, and only a new process can use it: {plain(error)}")
    end(node)


def autostart(node: LifecycleNode, stay: bool = False) -> None:
    """Have a new node configure and activate itself once its executor spins, before it serves anybody's request.

    Args:
        node: that is spun by `coop_perception.ros.executable.run`.
        stay: whether it waits to be brought up by others where that fails, in the state before; otherwise its process
            ends with status 1, so that whoever manages services sees it.
    """

    def bring_up() -> None:
        node.destroy_guard_condition(begin)
        done = TransitionCallbackReturn.SUCCESS
        if (node.trigger_configure() == done and node.trigger_activate() == done) or stay:
            return
        end(node)

    begin = node.create_guard_condition(bring_up)  # no timer: with use_sim_time that would wait for /clock
    begin.trigger()
