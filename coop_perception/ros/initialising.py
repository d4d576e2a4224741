"""ROS for this process, also where it finds no place for its log files, or no shared memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.logging import get_logger

from coop_perception.ros.shared_memory import FOLDER, remove_dead, without_where_full
from coop_perception.shown import plain


def initialise(args: Sequence[str] | None = None, **options: Any) -> None:
    """`rclpy.init`, which ends a process without a home directory, or with one that it may not write to: for want of
    log files, nobody should want for a node. They go to a temporary directory then, which is said. Shared memory of
    dead processes is given back, and none is used where there is no room for it, which is said, too.
    """
    said = [_place_for_logs()]
    removed = remove_dead()
    variables, no_shared_memory = without_where_full(os.environ)
    os.environ.update(variables)
    said.append(no_shared_memory)
    rclpy.init(args=None if args is None else list(args), **options)
    logger = get_logger("coop_perception")
    if removed:
        logger.info(f"removed {removed} segments of shared memory that dead processes had left in {FOLDER}")
    for line in filter(None, said):
        logger.warning(line)


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
