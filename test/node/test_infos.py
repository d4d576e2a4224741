"""The camera_info that goes out with a frame."""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo

from coop_perception.node.infos import KEPT, CameraInfos


def info(second: int, focal: float) -> CameraInfo:
    message = CameraInfo()
    message.header.stamp.sec = second
    message.k[0] = focal
    return message


def test_the_one_of_the_frames_stamp_then_the_last_then_none() -> None:
    infos = CameraInfos()
    assert infos.of(Time(sec=1)) is None
    for second in (1, 2, 3):
        infos.put(info(second, 100.0 * second))
    assert infos.of(Time(sec=2)).k[0] == 200
    assert infos.of(Time(sec=2, nanosec=1)).k[0] == 300  # by the last one that arrived
    infos.put(info(1, 111.0))  # a recording starts anew
    assert infos.of(Time(sec=1)).k[0] == 111
    assert infos.of(Time(sec=9)).k[0] == 111


def test_one_larger_than_any_cameras_is_not_kept() -> None:
    infos = CameraInfos()
    infos.put(info(1, 100.0))
    for large in (CameraInfo(d=[0.0] * 10_000), CameraInfo(distortion_model="x" * 100_000)):
        with pytest.raises(ValueError, match="expected at most 65536; it is not kept"):
            infos.put(large)
    assert infos.of(Time(sec=0)).k[0] == 100


def test_old_ones_are_forgotten() -> None:
    infos = CameraInfos()
    for second in range(KEPT + 1):
        infos.put(info(second, float(second)))
    assert infos.of(Time(sec=0)).k[0] == KEPT
    assert infos.of(Time(sec=1)).k[0] == 1
