"""Conditions over time, and whether they need restoration."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coop_perception.model.clear_weather import BEGIN, END, needs_restoration
from coop_perception.model.condition_filter import LONGEST_GAP_S, SUREST, ConditionFilter
from coop_perception.model.conditions import Conditions

SIZE = (360, 480)
SHARE = st.floats(0, 1)
WITHIN = st.floats(2 * SUREST, 1 - 2 * SUREST)


def conditions(presence: Sequence[float], strength: Sequence[float] = (), familiarity: float = 1.0) -> Conditions:
    strength = strength or [0.5] * len(presence)
    return Conditions(np.array(presence, np.float32), np.array(strength, np.float32), familiarity)


FRAMES = st.builds(
    conditions,
    st.lists(SHARE, min_size=3, max_size=3),
    st.lists(SHARE, min_size=3, max_size=3),
    SHARE,
)


def log_odds(presence: float) -> float:
    return math.log(presence / (1 - presence))


def followed(rate: float, familiarity: float, before: float, after: float, seconds: float) -> tuple[float, float]:
    """Shares of a step in presence (in log-odds) and in strength that the filter has followed after that time."""
    it, steps = ConditionFilter(), round(seconds * rate)
    for index in range(3):
        it.update(conditions([before], [0.2], familiarity), index / rate, SIZE, seconds)
    for index in range(3, 3 + steps):
        now = it.update(conditions([after], [0.8], familiarity), index / rate, SIZE, seconds)
    of_presence = (log_odds(float(now.presence[0])) - log_odds(before)) / (log_odds(after) - log_odds(before))
    return of_presence, (float(now.strength[0]) - 0.2) / 0.6


@given(st.lists(WITHIN, min_size=1, max_size=4), SHARE, st.floats(0.01, 1), st.floats(0.01, 2), st.integers(1, 12))
def test_what_stays_the_same_is_itself(
    presence: list[float], strength: float, familiarity: float, step_s: float, count: int
) -> None:
    it, frame = ConditionFilter(), conditions(presence, [strength] * len(presence), familiarity)
    for index in range(count):
        now = it.update(frame, 100 + index * step_s, SIZE, 0.5)
        np.testing.assert_allclose(now.presence, frame.presence, atol=1e-5)
        np.testing.assert_allclose(now.strength, frame.strength, atol=1e-6)
        assert now.familiarity == pytest.approx(familiarity)


@settings(deadline=None)
@given(
    st.integers(2, 100),
    st.floats(0.01, 1),
    st.tuples(WITHIN, WITHIN).filter(lambda pair: abs(pair[0] - pair[1]) > 0.05),
    st.integers(1, 2),
)
def test_a_step_is_followed_by_63_percent_after_one_time_constant_at_any_rate(
    rate: int, familiarity: float, step: tuple[float, float], seconds: int
) -> None:
    for share in followed(rate, familiarity, *step, seconds):
        assert share == pytest.approx(1 - math.exp(-1), abs=2e-3)


@given(st.lists(FRAMES, min_size=1, max_size=5), FRAMES)
def test_an_unfamiliar_frame_counts_less(frames: list[Conditions], odd: Conditions) -> None:
    def after(familiarity: float) -> Conditions:
        it = ConditionFilter()
        for index, frame in enumerate(frames):
            before.append(it.update(frame, index * 0.1, SIZE, 0.5))
        return it.update(Conditions(odd.presence, odd.strength, familiarity), len(frames) * 0.1, SIZE, 0.5)

    before: list[Conditions] = []
    moved = [
        np.abs(after(familiarity).strength - before[len(frames) - 1].strength).sum() for familiarity in (0, 0.1, 0.9)
    ]
    assert moved[0] <= moved[1] + 1e-6 <= moved[2] + 2e-6


def test_after_a_tunnel_of_unfamiliar_frames_the_first_familiar_one_counts_for_several() -> None:
    def moved(familiarity: float) -> float:
        it = ConditionFilter()
        for index in range(100):
            it.update(conditions([0.9], [1.0], familiarity), index * 0.1, SIZE, 0.5)
        return 1.0 - float(it.update(conditions([0.1], [0.0]), 10.0, SIZE, 0.5).strength[0])

    assert moved(0.0) > 2 * moved(1.0)


def test_a_change_to_unfamiliar_weather_is_followed_within_two_time_constants() -> None:
    it = ConditionFilter()
    for index in range(30):
        it.update(conditions([0.05]), index * 0.1, SIZE, 0.5)
    found = [it.update(conditions([0.9], familiarity=0.0), 3 + index * 0.1, SIZE, 0.5) for index in range(10)]
    assert found[-1].presence[0] > 0.5
    assert found[-1].familiarity < 0.2


@pytest.mark.parametrize(
    ("stamp_s", "size"),
    [
        (9.0, SIZE),  # backwards
        (10.0, SIZE),  # not advancing: no time is known to have passed
        (10.0 + 2 * LONGEST_GAP_S, SIZE),
        (1.7e9, SIZE),  # from a simulation's clock to the system's
        (math.nan, SIZE),
        (10.1, (720, 1280)),
        (10.1, (*SIZE, "rear")),
    ],
)
def test_it_starts_anew_when_time_or_camera_jumps(stamp_s: float, size: tuple[object, ...]) -> None:
    it = ConditionFilter()
    for tenth in range(80, 101):
        it.update(conditions([0.95, 0.05]), tenth / 10, SIZE, 0.5)
    now = it.update(conditions([0.1, 0.6], [0.3, 0.7], 0.4), stamp_s, size, 0.5)
    np.testing.assert_allclose(now.presence, [0.1, 0.6], atol=1e-6)
    np.testing.assert_allclose(now.strength, [0.3, 0.7], atol=1e-6)
    assert now.familiarity == 0.4


@given(st.lists(FRAMES, min_size=1, max_size=5))
def test_no_time_constant_is_no_filter(frames: list[Conditions]) -> None:
    it = ConditionFilter()
    for index, frame in enumerate(frames):
        now = it.update(frame, index * 0.1, SIZE, 0.0)
        np.testing.assert_array_equal(now.presence, frame.presence)
        np.testing.assert_array_equal(now.strength, frame.strength)


ODD = st.sampled_from([math.nan, math.inf, -math.inf])


@given(st.lists(st.tuples(FRAMES, st.integers(0, 3), ODD), min_size=1, max_size=8), st.sampled_from([0.0, 0.5]))
def test_what_is_no_number_never_enters(frames: list[tuple[Conditions, int, float]], time_constant: float) -> None:
    """Nor does anything else of its frame."""
    it, without = ConditionFilter(), ConditionFilter()
    for index, (frame, where, odd) in enumerate(frames):
        broken = [frame.presence.copy(), frame.strength.copy(), frame.familiarity]
        if where in (0, 1):
            broken[where][1] = odd
        elif where == 2:
            broken[2] = odd
        now = it.update(Conditions(*broken), index * 0.1, SIZE, time_constant)
        assert np.isfinite(now.presence).all()
        assert np.isfinite(now.strength).all()
        assert math.isfinite(now.familiarity)
        if index == 0 and where != 3:
            assert not now.presence.any()
    good = conditions([0.2, 0.4, 0.6])
    stamp = len(frames) * 0.1 + 2 * LONGEST_GAP_S
    np.testing.assert_array_equal(
        it.update(good, stamp, SIZE, time_constant).presence, without.update(good, stamp, SIZE, time_constant).presence
    )


def test_one_wrong_frame_in_ten_names_nothing_else() -> None:
    """Fog at 15 Hz, and every tenth frame a certain error of the estimate."""
    it = ConditionFilter()
    for index in range(150):
        frame = conditions([0.01, 0.99]) if index % 10 == 9 else conditions([0.9, 0.1])
        assert it.update(frame, index / 15, SIZE, 0.5).presence.argmax() == 0


@settings(deadline=None)
@given(st.floats(0, 0.3), st.floats(0.7, 1))
def test_within_a_second_of_a_change_the_new_weather_is_named(low: float, high: float) -> None:
    for weather in ([low, high], [high, low]):
        it, stamps = ConditionFilter(), iter(range(1000))
        for _ in range(45):
            it.update(conditions(weather[::-1]), next(stamps) / 15, SIZE, 0.5)
        for _ in range(15):
            now = it.update(conditions(weather), next(stamps) / 15, SIZE, 0.5)
        assert now.presence.argmax() == int(np.argmax(weather))


def switches(presences: Sequence[float]) -> list[bool]:
    answers, before = [], False
    for presence in presences:
        before = needs_restoration(np.array([0.01, presence], np.float32), before)
        answers.append(before)
    return answers


def test_restoration_runs_while_any_condition_is_likely() -> None:
    assert switches([0.0, 0.05, 0.5, 0.9, 0.05, 0.0]) == [False, False, True, True, False, False]
    assert not needs_restoration(np.zeros(0, np.float32), True)


@given(st.lists(st.floats(END, BEGIN), max_size=30), st.sampled_from([0.0, 1.0]))
def test_it_does_not_flicker_between_its_thresholds(presences: list[float], first: float) -> None:
    assume(all(np.float32(END) <= presence < np.float32(BEGIN) for presence in presences))
    assert set(switches([first, *presences])) == {first == 1.0}
