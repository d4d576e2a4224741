"""What /diagnostics says of a node that is to serve and cannot: an active one reports itself (`Serving`)."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.timer import Timer
from std_msgs.msg import Header

from coop_perception import topics
from coop_perception.node.diagnostics import PERIOD_S, lifecycle_status


class FailureReport:
    """Once a second, from a failed transition to the next that succeeds, an ERROR with the reason."""

    def __init__(self, node: Node) -> None:
        self._node, self._reason = node, ""
        self._publisher: Publisher | None = None
        self._timer: Timer | None = None

    def say(self, reason: str) -> None:
        self._reason = reason
        if self._publisher is None:
            self._publisher = self._node.create_publisher(DiagnosticArray, topics.DIAGNOSTICS, 10)
            self._timer = self._node.create_timer(
                PERIOD_S, self._publish, clock=Clock(clock_type=ClockType.STEADY_TIME)
            )
        self._publish()

    def clear(self) -> None:
        if self._publisher is not None:
            self._node.destroy_timer(self._timer)
            self._node.destroy_publisher(self._publisher)
            self._publisher = self._timer = None

    def _publish(self) -> None:
        assert self._publisher is not None  # the timer is gone with it
        status = lifecycle_status(self._node.get_fully_qualified_name(), DiagnosticStatus.ERROR, self._reason)
        stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(DiagnosticArray(header=Header(stamp=stamp), status=[status]))
