"""What rclpy's lifecycle leaves to its users: saying what went wrong in a transition, ending in the right state, and
coming up unasked."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from rclpy._rclpy_pybind11 import RCLError
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from coop_perception.shown import plain

Node = TypeVar("Node", bound=LifecycleNode)
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
                return transition(node, state)
            except Exception as error:
                kind = "" if isinstance(error, expected) else f"{type(error).__name__}: "
                node.get_logger().error(f"{transition.__name__}: {kind}{plain(error)}")
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


def autostart(node: LifecycleNode) -> None:
    """Have a new node configure and activate itself once its executor spins, before it serves anybody's request.

    A transition that fails is logged and leaves the node in the state before, as one that somebody asks for does.
    """

    def bring_up() -> None:
        node.destroy_guard_condition(begin)
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()

    begin = node.create_guard_condition(bring_up)  # no timer: with use_sim_time that would wait for /clock
    begin.trigger()
