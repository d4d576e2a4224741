"""A camera's conditions from frame to frame."""

from __future__ import annotations

import numpy as np
import pytest

from coop_perception.model.condition_filter import LONGEST_GAP_S
from coop_perception.model.conditions import Conditions
from coop_perception.model.over_time import DEFAULT, CameraConditions, OverTime

SIZE = (480, 640)
TENTH = 10**8


def seen(presence: float) -> Conditions:
    return Conditions(np.array([presence, 0.01], np.float32), np.array([0.5, 0.0], np.float32), 1.0)


def restored(presences: list[float], how: OverTime) -> list[bool]:
    camera = CameraConditions()
    return [camera.take(seen(p), index * TENTH, SIZE, how)[1] for index, p in enumerate(presences)]


def test_a_frame_between_two_limits_is_treated_as_the_one_before() -> None:
    unfiltered = OverTime(time_constant_s=0)
    assert restored([0.1, 0.35, 0.5, 0.35, 0.1, 0.35], unfiltered) == [False, False, True, True, False, False]


def test_one_frame_alone_is_not_weather() -> None:
    assert restored([0.01, 0.01, 0.9, 0.01], DEFAULT) == [False] * 4
    assert restored([0.01] + [0.9] * 10, DEFAULT)[-1]


@pytest.mark.parametrize("constant", [0.0, 0.5])
@pytest.mark.parametrize(
    ("stamp_ns", "size", "expected"),
    [
        (11 * TENTH, SIZE, True),  # the next frame
        (11 * TENTH, (720, 1280), False),
        (9 * TENTH, SIZE, False),
        (10 * TENTH, SIZE, False),
        (10 * TENTH + round(2e9 * LONGEST_GAP_S), SIZE, False),
    ],
)
def test_where_time_or_camera_jumps_nothing_was_restored_before(
    stamp_ns: int, size: tuple[int, int], expected: bool, constant: float
) -> None:
    camera = CameraConditions()
    for tenth in range(11):
        assert camera.take(seen(0.35 if tenth == 10 else 0.9), tenth * TENTH, SIZE, OverTime(constant))[1]
    assert camera.take(seen(0.35), stamp_ns, size, OverTime(constant))[1] == expected


def test_every_frame_is_restored_where_none_is_skipped() -> None:
    assert restored([0.0, 0.9], OverTime(skip_when_clear=False)) == [True, True]


@pytest.mark.parametrize("constant", [0.0, 0.5])
def test_what_holds_is_the_filtered_estimate(constant: float) -> None:
    camera = CameraConditions()
    camera.take(seen(0.1), 0, SIZE, OverTime(constant))
    now, _ = camera.take(seen(0.9), TENTH, SIZE, OverTime(constant))
    assert now.presence[0] == pytest.approx(0.9) if constant == 0 else 0.1 < now.presence[0] < 0.5
