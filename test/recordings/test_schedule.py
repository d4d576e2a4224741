"""Schedules of conditions, and the conditions that they name together."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS, ORDER, degrade, degrade_by
from coop_perception.documents import DocumentError
from coop_perception.recordings.schedule import Schedule, ScheduleError, Segment, always, read_schedule

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
DEPTH = np.linspace(3, 90, 24 * 32, dtype=np.float32).reshape(24, 32)
INTRINSICS = Intrinsics.from_fov(32, 24)


def written(folder: Path, text: str) -> Path:
    path = folder / "schedule.yaml"
    path.write_text(text)
    return path


def test_a_drive_through_fog_and_rain(tmp_path: Path) -> None:
    schedule = read_schedule(
        written(
            tmp_path,
            """
            segments:
              - {condition: fog, start: 2, end: 4, level: [0, 2]}
              - {condition: fog, start: 4, end: 6, level: 2}
              - {condition: rain, start: 5, end: 9, parameter: [0.005, 0.015]}
              - {condition: jpeg, start: 8, end: 10, level: 1}
            """,
        )
    )
    mild, middle, _ = CONDITIONS["fog"].levels
    assert (schedule.unit, schedule.end, schedule.needs_depth) == ("seconds", 10, True)
    assert schedule.conditions == ("fog", "rain", "jpeg")
    found = {at: schedule.parameters(at, math.nan) for at in (0, 2, 2.5, 3, 3.5, 4, 5, 7, 8, 10)}
    assert found == {
        0: {},
        2: {"fog": 0},
        2.5: {"fog": mild / 2},
        3: {"fog": mild},
        3.5: {"fog": pytest.approx((mild + middle) / 2)},
        4: {"fog": middle},
        5: {"fog": middle, "rain": 0.005},
        7: {"rain": pytest.approx(0.01)},
        8: {"rain": pytest.approx(0.0125), "jpeg": CONDITIONS["jpeg"].levels[0]},
        10: {},
    }


def test_shares_of_the_recording(tmp_path: Path) -> None:
    text = "{unit: share, segments: [{condition: gaussian_blur, start: 0.5, end: 1, level: 4}]}"
    schedule = read_schedule(written(tmp_path, text))
    assert schedule.parameters(math.nan, 0.49) == {}
    assert schedule.parameters(math.nan, 0.5) == {"gaussian_blur": CONDITIONS["gaussian_blur"].levels[3]}
    assert not schedule.needs_depth


def test_what_is_always_there_is_at_its_level() -> None:
    parameters = always({"fog": 3, "jpeg": 2}).parameters(1e6, 0.999)
    assert parameters == {"fog": CONDITIONS["fog"].levels[2], "jpeg": CONDITIONS["jpeg"].levels[1]}


@given(st.sampled_from(list(CONDITIONS)), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_lies_between_its_ends(condition: str, first: float, last: float, share: float) -> None:
    highest = len(CONDITIONS[condition].levels)
    segment = Segment(condition, 3, 7, (first * highest, last * highest))
    ends = sorted(CONDITIONS[condition].at(level) for level in segment.ramp)
    parameters = Schedule((segment,)).parameters(3 + 3.99 * share, 0)
    levels = [CONDITIONS[condition].at(level) for level in range(highest + 1)]
    assert min(levels) - 1e-9 <= parameters[condition] <= max(levels) + 1e-9
    assert ends[0] - 1e-9 <= parameters[condition] <= ends[1] + 1e-9


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "expected 'segments:' with a list of segments"),
        ("{segments: {}}", "expected 'segments:' with a list of segments"),
        ("{segments: [], units: share}", "'units' is not known; expected unit, segments"),
        ("{segments: [], unit: minutes}", "unit is 'minutes', expected one of seconds, share"),
        ("{segments: [fog]}", "segments[0] is 'fog', expected condition, start, end, level"),
        ("{segments: [{condition: mist}]}", "segments[0].condition is 'mist', expected one of gaussian_blur"),
        ("{segments: [{condition: [fog]}]}", "segments[0].condition is ['fog'], expected one of"),
        ("{segments: [{condition: fog, begin: 1}]}", "segments[0].'begin' is not known; expected condition, start"),
        ("{segments: [{condition: fog, end: 1}]}", "segments[0].start is None, expected 0 or more (seconds)"),
        ("{segments: [{condition: fog, start: -1, end: 1}]}", "segments[0].start is -1, expected 0 or more"),
        ("{segments: [{condition: fog, start: .nan, end: 1}]}", "segments[0].start is nan, expected 0 or more"),
        ("{segments: [{condition: fog, start: true, end: 1}]}", "segments[0].start is True, expected 0 or more"),
        ("{segments: [{condition: fog, start: 2, end: 2, level: 1}]}", "segments[0].end is 2, expected more than"),
        (
            "{unit: share, segments: [{condition: fog, start: 0, end: 20, level: 1}]}",
            "segments[0].end is 20, expected 0..1 (share of the recording)",
        ),
        ("{segments: [{condition: fog, start: 0, end: 1}]}", "segments[0] has neither of level and parameter"),
        (
            "{segments: [{condition: fog, start: 0, end: 1, level: 1, parameter: 0.1}]}",
            "segments[0] has both of level and parameter",
        ),
        (
            "{segments: [{condition: fog, start: 0, end: 1, level: 4}]}",
            "segments[0].level is 4, expected a number or [at start, at end], each 0..3 (levels of fog)",
        ),
        ("{segments: [{condition: fog, start: 0, end: 1, level: [1]}]}", "segments[0].level is [1], expected a number"),
        ("{segments: [{condition: fog, start: 0, end: 1, level: high}]}", "segments[0].level is 'high', expected"),
        (
            "{segments: [{condition: jpeg, start: 0, end: 1, parameter: [50, 101]}]}",
            "segments[0].parameter is 101.0: jpeg: quality is 101.0, expected 1..100",
        ),
        (
            "{segments: [{condition: rain, start: 0, end: 1, parameter: -0.1}]}",
            "segments[0].parameter is -0.1: rain: beta is -0.1",
        ),
        (
            "{segments: [{condition: fog, start: 0, end: 5, level: 1}, {condition: fog, start: 4, end: 6, level: 2}]}",
            "segments[1].start is 4, but fog lasts until 5 by segments[0]; expected one segment",
        ),
    ],
)
def test_what_is_no_schedule_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ScheduleError) as error:
        read_schedule(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert says in message
    assert "\n" not in message


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="no-such"):
        read_schedule(tmp_path / "no-such.yaml")
    with pytest.raises(DocumentError, match=r"schedule\.yaml"):
        read_schedule(written(tmp_path, "{segments: ["))


def test_the_order_of_several_conditions_is_lights_own() -> None:
    """Whatever their order in the file; every condition has a place in it."""
    assert sorted(ORDER) == sorted(CONDITIONS)
    both = {"gaussian_noise": 0.1, "fog": 0.02}
    arguments = {"seed": 3, "frame": 5, "depth": DEPTH, "intrinsics": INTRINSICS}
    together = degrade_by(IMAGE, both, **arguments)
    np.testing.assert_array_equal(together, degrade_by(IMAGE, dict(reversed(both.items())), **arguments))
    foggy = degrade_by(IMAGE, {"fog": 0.02}, **arguments)
    np.testing.assert_array_equal(together, degrade_by(foggy, {"gaussian_noise": 0.1}, **arguments))


@pytest.mark.parametrize("condition", list(CONDITIONS))
def test_one_condition_is_what_it_is_alone_and_none_is_the_image(condition: str) -> None:
    arguments = {"seed": 3, "frame": 5, "depth": DEPTH, "intrinsics": INTRINSICS}
    known = CONDITIONS[condition]
    alone = degrade(IMAGE, condition, 2, **arguments)
    np.testing.assert_array_equal(degrade_by(IMAGE, {condition: known.at(2)}, **arguments), alone)
    np.testing.assert_array_equal(degrade_by(IMAGE, {condition: known.at(0)}, **arguments), IMAGE)
    little, much = (
        np.abs(degrade_by(IMAGE, {condition: known.at(level)}, **arguments).astype(int) - IMAGE).mean()
        for level in (0.6, len(known.levels))
    )
    assert 0 < little < much


def test_an_unknown_condition_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown condition 'mist'"):
        degrade_by(IMAGE, {"mist": 1}, seed=0)
