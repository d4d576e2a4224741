"""Brings a lifecycle node up from outside, as a launch file's event handlers do."""

from __future__ import annotations

import time
from collections.abc import Callable

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import Executor
from rclpy.node import Node


class LifecycleError(RuntimeError):
    """A transition that did not come about; the message names the node and the transition."""


def bring_up(
    client: Node, executor: Executor, name: str, alive: Callable[[], bool] = lambda: True, timeout_s: float = 30.0
) -> None:
    """Configure and activate the node `name`.

    Args:
        client: a node to call from.
        executor: that `client` is in; it is spun here.
        name: the lifecycle node's fully qualified name.
        alive: whether the node's process still runs, where the caller knows.
        timeout_s: for the node to appear, and for each transition.

    Raises:
        LifecycleError: no such node, or it refuses a transition.
    """
    service = client.create_client(ChangeState, f"{name}/change_state")
    try:
        deadline = time.monotonic() + timeout_s
        while not service.service_is_ready():
            if not alive():
                raise LifecycleError(f"{name}: its process ended before it could be configured")
            if time.monotonic() > deadline:
                raise LifecycleError(f"{name}: no such lifecycle node within {timeout_s:.0f} s")
            time.sleep(0.05)  # wait_for_service would sleep for a quarter of a second
        for transition, label in (
            (Transition.TRANSITION_CONFIGURE, "configure"),
            (Transition.TRANSITION_ACTIVATE, "activate"),
        ):
            future = service.call_async(ChangeState.Request(transition=Transition(id=transition)))
            executor.spin_until_future_complete(future, timeout_s)
            response = future.result() if future.done() else None
            if response is None:
                raise LifecycleError(f"{name}: no answer to {label} within {timeout_s:.0f} s")
            if not response.success:
                raise LifecycleError(f"{name}: {label} failed; the node's log says why")
    finally:
        client.destroy_client(service)
