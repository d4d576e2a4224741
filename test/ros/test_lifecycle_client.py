"""Bringing a node up from outside, as long as it takes and no longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest
from lifecycle_msgs.srv import ChangeState
from node_harness import DOMAIN, Client, client
from rclpy.executors import SingleThreadedExecutor

from coop_perception.ros.lifecycle_client import LifecycleError, bring_up

NAME = "/slow"
TIMEOUT_S = 0.5


class SlowNode:
    """Answers a transition when it may."""

    def __init__(self, ours: Client) -> None:
        self.may_answer, self.asked = threading.Event(), threading.Event()
        self._service = ours.node.create_service(ChangeState, f"{NAME}/change_state", self._answer)
        ours.spin()

    def _answer(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        self.asked.set()
        self.may_answer.wait(60)
        response.success = True
        return response


@pytest.fixture
def slow() -> Iterator[SlowNode]:
    with client(DOMAIN) as theirs:
        node = SlowNode(theirs)
        yield node
        node.may_answer.set()


def up(slow: SlowNode, **options: object) -> None:
    with client(DOMAIN) as ours:
        executor = SingleThreadedExecutor(context=ours.node.context)
        ours.executor.remove_node(ours.node)
        executor.add_node(ours.node)
        bring_up(ours.node, executor, NAME, timeout_s=TIMEOUT_S, **options)  # type: ignore[arg-type]
        executor.shutdown()


def test_what_works_is_waited_for(slow: SlowNode) -> None:
    steps, asked_at = count(), []

    def work() -> int:
        if slow.asked.is_set():
            asked_at.append(time.monotonic())
            if asked_at[-1] - asked_at[0] > 4 * TIMEOUT_S:
                slow.may_answer.set()
        return next(steps)

    up(slow, work=work)


def test_what_does_nothing_is_not(slow: SlowNode) -> None:
    with pytest.raises(LifecycleError, match=r"/slow: (no answer to configure|no such lifecycle node) within 0 s"):
        up(slow, work=lambda: 3)


def test_what_has_ended_is_not(slow: SlowNode) -> None:
    with pytest.raises(LifecycleError, match="/slow: its process ended before it "):
        up(slow, work=count().__next__, alive=lambda: not slow.asked.is_set())
