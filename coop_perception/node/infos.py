"""Which camera_info goes with which frame."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from coop_perception.ros.bounds import check_info

KEPT = 32
"""About a second of them at 30 Hz, more than a frame can be behind."""


class CameraInfos:
    """The newest camera_info messages of one camera. One thread may put and another ask."""

    def __init__(self) -> None:
        self._by_stamp: dict[tuple[int, int], CameraInfo] = {}
        self._last: CameraInfo | None = None

    def put(self, info: CameraInfo) -> None:
        """Keep it.

        Raises:
            ValueError: as `check_info`.
        """
        check_info(info)
        stamp = (info.header.stamp.sec, info.header.stamp.nanosec)
        self._by_stamp.pop(stamp, None)  # so that it goes to the end
        self._by_stamp[stamp] = self._last = info
        if len(self._by_stamp) > KEPT:
            del self._by_stamp[next(iter(self._by_stamp))]

    def of(self, stamp: Time) -> CameraInfo | None:
        """The one with a frame's own stamp; where there is none, as with cameras that stamp them otherwise or send one
        once, the last that arrived; None before the first."""
        return self._by_stamp.get((stamp.sec, stamp.nanosec), self._last)
