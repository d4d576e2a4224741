"""Spinning that goes on, whatever a callback raises."""

from __future__ import annotations

import time
import traceback
from typing import Any

from rclpy import executors, task
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, ExternalShutdownException
from rclpy.node import Node

from coop_perception.shown import plain

REPEAT_LOG_S = 5.0
PAUSE_S = 0.01
"""After what the executor itself raises, which it may well raise again at once."""


def spin(executor: Executor, node: Node) -> None:
    """Spin until ROS is shut down. rclpy would let the first exception of a callback end the process, whoever sent
    what it cannot take: a /clock before the beginning of time is enough. Here the log says it, and the next ones get
    their chance.
    """
    steady = Clock(clock_type=ClockType.STEADY_TIME)  # /clock may be what is wrong
    loggers: dict[str, Any] = {}
    while node.context.ok():
        try:
            executor.spin()
        except ExternalShutdownException:
            return
        except Exception as error:
            if not node.context.ok():  # a callback wanted something of ROS when it was shut down
                return
            callback = _callback(error)
            # Loggers of their own: throttling what one raises shall not hide what another does.
            logger = loggers.setdefault(callback, node.get_logger().get_child(callback or "executor"))
            logger.error(
                f"{callback or 'the executor'}: {type(error).__name__}: {plain(error, 200)}; going on",
                throttle_duration_sec=REPEAT_LOG_S,
                throttle_time_source_type=steady,
            )
            if not callback:
                time.sleep(PAUSE_S)


def _callback(error: Exception) -> str:
    """The name of the callback that raised it; empty where none did."""
    frames = [(frame.filename, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
    run = [index for index, (file, _) in enumerate(frames) if file == task.__file__]
    called = [name for file, name in frames[run[-1] + 1 :] if file != executors.__file__] if run else []
    return called[0] if called else ""
