"""A node as a process of its own, which SIGINT and SIGTERM end cleanly whatever it is doing."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

GRACE_S = 1.5
"""How long after a signal the process may take to end by itself."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
WATCHER = "signals"


def run(make_node: Callable[[], Node], name: str, args: Sequence[str]) -> int:
    """Spin a node until SIGINT or SIGTERM.

    rclpy's own handlers shut its context down from a thread while Python raises KeyboardInterrupt wherever the main
    thread happens to be, also while that cleans up: now and then both get in each other's way. Here a signal interrupts
    nothing. It wakes a thread that shuts the context down, which ends spin, and what waits for `context.ok()`.

    Args:
        make_node: called once ROS is initialised.
        name: of the executable, for messages.
        args: with --ros-args.

    Returns:
        The exit status: 0 after a signal; 1 where the node cannot be made of these arguments.
    """
    stopping, ended = threading.Event(), threading.Event()
    _shut_down_on_signals(stopping, ended)
    try:
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
        node = make_node()
    except Exception as error:
        ended.set()
        rclpy.try_shutdown()
        if stopping.is_set():  # ROS was shut down in the middle
            return 0
        if not isinstance(error, (RCLError, InvalidParameterTypeException, InvalidParameterValueException)):
            raise
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except ExternalShutdownException:
        pass
    except Exception:
        if not stopping.is_set():  # else a callback wanted something of ROS when the signal came
            raise
    finally:
        node.destroy_node()
        ended.set()
        rclpy.try_shutdown()
    if any(thread.name != WATCHER for thread in threading.enumerate() if thread is not threading.main_thread()):
        _exit()  # a network still runs or loads, and Python cannot end while a thread is in foreign code
    return 0


def _shut_down_on_signals(stopping: threading.Event, ended: threading.Event) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)

    def watch() -> None:
        os.read(reading, 1)
        deadline = time.monotonic() + GRACE_S
        stopping.set()
        while not ended.wait(0.05):
            rclpy.try_shutdown()  # again and again: the signal may come before ROS is initialised
            if time.monotonic() > deadline:
                _exit()

    threading.Thread(target=watch, name=WATCHER, daemon=True).start()


def _exit() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
