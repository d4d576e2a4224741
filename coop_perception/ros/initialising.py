"""ROS for this process, also where it finds no place for its log files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.logging import get_logger

from coop_perception.shown import plain


def initialise(args: Sequence[str] | None = None, **options: Any) -> None:
    """`rclpy.init`, which ends a process without a home directory, or with one that it may not write to: for want of
    log files, nobody should want for a node. They go to a temporary directory then, which is said.
    """
    said = _place_for_logs()
    rclpy.init(args=None if args is None else list(args), **options)
    if said:
        get_logger("coop_perception").warning(said)


def _place_for_logs() -> str:
    """Set $ROS_LOG_DIR where nothing else can be written to; what to say of that."""
    if os.environ.get("ROS_LOG_DIR"):  # somebody's wish: rclpy says what is wrong with it
        return ""
    home = os.environ.get("HOME")
    ros_home = os.environ.get("ROS_HOME") or (f"{home}/.ros" if home else "")
    try:
        if not ros_home:
            raise OSError("there is no home directory")
        logs = Path(ros_home).expanduser() / "log"
        logs.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logs):
            return ""
    except (OSError, RuntimeError) as error:
        try:
            os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="coop_perception-log-")
        except OSError:
            return ""  # rclpy says what it lacks
        return f"no place for log files ({plain(error, 200)}): they are in {os.environ['ROS_LOG_DIR']}; set ROS_LOG_DIR"
