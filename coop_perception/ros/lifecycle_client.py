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
    client: Node,
    executor: Executor,
    name: str,
    alive: Callable[[], bool] = lambda: True,
    timeout_s: float = 30.0,
    work: Callable[[], object] = lambda: None,
) -> None:
    """Configure and activate the node `name`.

    Args:
        client: a node to call from.
        executor: that `client` is in; it is spun here.
        name: the lifecycle node's fully qualified name.
        alive: whether the node's process still runs, where the caller knows.
        timeout_s: for the node to appear, and for each transition; while `work` changes, none of it has passed.
        work: says something else when the node has done more, where the caller knows.

    Raises:
        LifecycleError: no such node, or it refuses a transition.
    """
    service = client.create_client(ChangeState, f"{name}/change_state")
    try:
        patience = _Patience(timeout_s, work)
        while not service.service_is_ready():
            if not alive():
                raise LifecycleError(f"{name}: its process ended before it could be configured")
            if patience.over():
                raise LifecycleError(f"{name}: no such lifecycle node within {timeout_s:.0f} s")
            time.sleep(0.05)  # wait_for_service would sleep for a quarter of a second
        for transition, label in (
            (Transition.TRANSITION_CONFIGURE, "configure"),
            (Transition.TRANSITION_ACTIVATE, "activate"),
        ):
            future = service.call_async(ChangeState.Request(transition=Transition(id=transition)))
            patience = _Patience(timeout_s, work)
            while not future.done():
                executor.spin_until_future_complete(future, 0.2)
                if future.done():
                    break
                if not alive():
                    raise LifecycleError(f"{name}: its process ended before it answered to {label}")
                if patience.over():
                    raise LifecycleError(f"{name}: no answer to {label} within {timeout_s:.0f} s")
            response = future.result()
            if response is None or not response.success:
                raise LifecycleError(f"{name}: {label} failed; the node's log says why")
    finally:
        client.destroy_client(service)


class _Patience:
    """Time that passes only while nothing is done."""

    def __init__(self, timeout_s: float, work: Callable[[], object]) -> None:
        self._timeout_s, self._work = timeout_s, work
        self._done, self._since = work(), time.monotonic()

    def over(self) -> bool:
        done = self._work()
        if done != self._done:
            self._done, self._since = done, time.monotonic()
        return time.monotonic() > self._since + self._timeout_s
