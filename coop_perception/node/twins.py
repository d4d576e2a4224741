"""Other nodes of this one's name: whoever asks or configures one of them, another may answer."""

from __future__ import annotations

import time

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from coop_perception.node.diagnostics import PERIOD_S
from coop_perception.topics import several_nodes

LEASE_S = 30.0
"""For about 20 s a node that died, as before one that is started again, is in the graph still."""


class Twins:
    """Looks for them from its creation on; the log says it when there are some.

    Args:
        node: whose name it is; it has the timer.
    """

    def __init__(self, node: Node) -> None:
        self.said = ""
        """What is wrong; empty where the node is alone."""
        self._node = node
        self._since: float | None = None
        node.create_timer(PERIOD_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _look(self) -> None:
        own = (self._node.get_name(), self._node.get_namespace())
        self.seen(self._node.get_node_names_and_namespaces().count(own), time.monotonic())

    def seen(self, count: int, now: float) -> None:
        """So many nodes of the name are in the graph."""
        before = self.said
        if count <= 1:
            self.said, self._since = "", None
            return
        self._since = now if self._since is None else self._since
        if now - self._since >= LEASE_S:
            self.said = several_nodes(count, self._node.get_fully_qualified_name())
        if self.said and not before:
            self._node.get_logger().warning(self.said)
