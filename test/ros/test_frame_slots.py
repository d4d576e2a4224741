"""One slot per camera, newest wins."""

from __future__ import annotations

import threading
import time

from hypothesis import given
from hypothesis import strategies as st

from coop_perception.ros.frame_slots import FrameSlots


@given(st.lists(st.one_of(st.tuples(st.sampled_from("ab"), st.integers()), st.none()), max_size=30))
def test_newest_wins_and_every_frame_is_taken_or_handed_back(events: list[tuple[str, int] | None]) -> None:
    """None takes all that wait; anything else puts a frame. Model: a dictionary of the newest frames."""
    slots: FrameSlots[int] = FrameSlots("ab")
    waiting: dict[str, int] = {}
    for event in events:
        if event is None:
            if waiting:
                assert slots.take() == waiting
                waiting = {}
        else:
            camera, frame = event
            assert slots.put(camera, frame) == waiting.get(camera)
            waiting[camera] = frame
    if waiting:
        assert slots.take() == waiting


def test_take_waits_for_a_frame_and_close_wakes_it() -> None:
    slots: FrameSlots[int] = FrameSlots(["front"])
    taken: list[dict[str, int]] = []
    first = threading.Event()

    def work() -> None:
        while frames := slots.take():
            taken.append(frames)
            first.set()

    worker = threading.Thread(target=work)
    worker.start()
    slots.put("front", 1)
    assert first.wait(10)
    slots.close()
    worker.join(10)
    assert not worker.is_alive()
    assert taken == [{"front": 1}]


def test_a_window_ends_with_the_last_camera_or_with_its_time() -> None:
    slots: FrameSlots[int] = FrameSlots(["front", "rear"])
    slots.put("front", 1)
    begun = time.monotonic()
    assert slots.take(lambda: 0.2) == {"front": 1}
    assert 0.15 < time.monotonic() - begun < 10
    for camera in ("front", "rear"):
        slots.put(camera, 2)
    begun = time.monotonic()
    assert slots.take(lambda: 60.0) == {"front": 2, "rear": 2}
    assert time.monotonic() - begun < 30


def test_a_window_does_not_wait_for_a_camera_that_has_nothing_this_time() -> None:
    slots: FrameSlots[int] = FrameSlots(["front", "rear"])
    for number in (1, 2):
        slots.skip("rear")
        slots.put("front", number)
        begun = time.monotonic()
        assert slots.take(lambda: 10.0) == {"front": number}
        assert time.monotonic() - begun < 5
    slots.put("front", 3)
    begun = time.monotonic()
    assert slots.take(lambda: 0.2) == {"front": 3}
    assert time.monotonic() - begun > 0.15


def test_a_frame_within_the_window_replaces_and_joins() -> None:
    slots: FrameSlots[int] = FrameSlots(["front", "rear"])
    slots.put("front", 1)
    taken: list[dict[str, int]] = []
    worker = threading.Thread(target=lambda: taken.append(slots.take(lambda: 60.0)))
    worker.start()
    assert slots.put("front", 2) == 1
    slots.put("rear", 3)
    worker.join(10)
    assert taken == [{"front": 2, "rear": 3}]


def test_close_ends_a_window() -> None:
    slots: FrameSlots[int] = FrameSlots(["front", "rear"])
    slots.put("front", 1)
    taken: list[dict[str, int]] = []
    worker = threading.Thread(target=lambda: taken.append(slots.take(lambda: 60.0)))
    worker.start()
    slots.close()
    worker.join(10)
    assert taken == [{}]
