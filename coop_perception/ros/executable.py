"""A node as a process of its own."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from coop_perception.ros.arguments import misdirected, one_line
from coop_perception.ros.initialising import initialise
from coop_perception.ros.shutdown_signals import ShutdownSignals, exit_now
from coop_perception.ros.spinning import spin
from coop_perception.shown import plain


def run(make_node: Callable[[], Node], name: str, args: Sequence[str], signals: ShutdownSignals) -> int:
    """Spin a node until a signal, whatever its callbacks raise.

    rclpy's own handlers shut its context down from a thread while Python raises KeyboardInterrupt wherever the main
    thread happens to be, also while that cleans up: now and then both get in each other's way. Here only the context is
    shut down, which ends spin, and what waits for `context.ok()`.

    Args:
        make_node: called once ROS is initialised.
        name: of the executable, for messages.
        args: with --ros-args.
        signals: of the process.

    Returns:
        The exit status: 0 after a signal; 1 where the node cannot be made of these arguments; the node's own
        `exit_status` where it shut ROS down itself.
    """
    signals.shut_down = rclpy.try_shutdown
    try:
        initialise(args, signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
    except Exception as error:
        signals.end()
        rclpy.try_shutdown()
        if signals.received.is_set():  # ROS was shut down in the middle
            return 0
        if not isinstance(error, (RCLError, InvalidParameterTypeException, InvalidParameterValueException)):
            raise
        lists = '; a list is given as "[a, b]"' if "ARRAY" in str(error) else ""
        print(f"{name}: {plain(one_line(error))}{lists}", file=sys.stderr)
        return 1
    for line in misdirected(args, node.get_fully_qualified_name()):
        node.get_logger().warning(line)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        spin(executor, node)
    finally:
        status = int(getattr(node, "exit_status", 0))  # where the node itself has ended
        node.destroy_node()
        signals.end()
        rclpy.try_shutdown()
    if set(threading.enumerate()) - {threading.main_thread(), signals.thread}:
        exit_now(status)  # a network still runs or loads
    return status
