"""One slot per camera, newest wins."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from coop_perception.frame_slots import FrameSlots


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
