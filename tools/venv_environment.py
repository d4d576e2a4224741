"""What sourcing install/setup.bash does, for every process of the virtual environment that this file is copied into.

A .pth file imports it when Python starts. That happens before ros_wheels_bootstrapper, which sorts later, executes
Python anew with LD_LIBRARY_PATH extended by the ROS wheels' libraries: the loader reads that variable only at the start
of a process, and ROS opens type supports by library name.
"""

import os
import sys

BOOTSTRAPPED = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
INSTALL = os.path.join(os.path.dirname(sys.prefix), "install")  # noqa: PTH118, PTH120 (pathlib would slow every start)


def prepend(variable: str, *paths: str) -> None:
    present = filter(None, os.environ.get(variable, "").split(os.pathsep))
    os.environ[variable] = os.pathsep.join([*paths, *present])


if sys.prefix not in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
    if os.environ.pop(BOOTSTRAPPED, None):
        # Started by a process of another such environment, whose libraries and packages are not for this one.
        for variable in ("AMENT_PREFIX_PATH", "LD_LIBRARY_PATH"):
            os.environ.pop(variable, None)
    prepend("AMENT_PREFIX_PATH", f"{INSTALL}/coop_perception", f"{INSTALL}/coop_perception_msgs", sys.prefix)
    prepend("LD_LIBRARY_PATH", f"{INSTALL}/coop_perception_msgs/lib")
