"""Decoding, networks and publishing overlap, and lose, mix up or hold back nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rclpy
from node_harness import DOMAIN, image_message, pixels
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import Header

from coop_perception.model.pipeline import Result
from coop_perception.node.settings import NodeParameters
from coop_perception.node.stage import Stage
from coop_perception.node.statistics import CameraStatistics
from coop_perception.node.worker import Channel, Worker

DEADLINE = 60


class Told(CameraStatistics):
    """Lets a test wait for what has become of so many frames."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()

    def processed(self, latency_ms: float, stages_ms: Mapping[str, float], *others: Any) -> None:
        super().processed(latency_ms, stages_ms, *others)
        with self._changed:
            self._changed.notify_all()

    def dropped(self, reason: str) -> None:
        super().dropped(reason)
        with self._changed:
            self._changed.notify_all()

    def wait(self, count: int) -> None:
        def fates() -> int:
            summary = self.summary()
            return summary.processed + sum(summary.dropped.values())

        with self._changed:
            assert self._changed.wait_for(lambda: fates() >= count, DEADLINE), self.summary()


class Camera:
    """Its outputs; tests look into each step by what they put in place of the hooks, each given the frame's number."""

    def __init__(self) -> None:
        self.on_decode: Callable[[], None] = lambda: None
        self.on_publish: Callable[[int], None] = lambda number: None
        self.published: list[int] = []

    def wanted(self) -> set[str]:
        self.on_decode()
        return {"mask"}

    def publish(self, header: Header, frame: np.ndarray, result: Result, *others: object) -> None:
        self.on_publish(header.stamp.sec)
        np.testing.assert_array_equal(result.mask, frame[..., 0])  # the frame's own result
        self.published.append(header.stamp.sec)


class Networks:
    """In place of the pipeline: `mask` is the red channel."""

    bundle = SimpleNamespace()

    def __init__(self) -> None:
        self.on_run: Callable[[int], None] = lambda number: None

    def run(self, frames: Sequence[np.ndarray], *others: object) -> list[Result]:
        self.on_run(int(frames[0][0, 0, 1]))
        return [Result(mask=frame[..., 0]) for frame in frames]


@contextmanager
def serving(networks: Networks, **outputs: Camera) -> Iterator[tuple[Worker, dict[str, Told]]]:
    context = Context()
    rclpy.init(args=["--ros-args", "--log-level", "fatal"], context=context, domain_id=DOMAIN)
    node = Node("worker", context=context)
    channels = {camera: Channel(output) for camera, output in outputs.items()}
    told = {camera: Told() for camera in channels}
    for camera, channel in channels.items():
        channel.statistics = told[camera]
    worker = Worker(node, channels, lambda: networks, NodeParameters(node))
    try:
        yield worker, told
    finally:
        worker.stop()
        node.destroy_node()
        context.shutdown()


def send(worker: Worker, number: int, camera: str = "front") -> None:
    """Frame `number`: its stamp's seconds, and in its green channel."""
    frame = pixels(number)
    frame[..., 1] = number
    worker.put(camera, image_message(frame, number))


def test_three_frames_are_in_work_at_once() -> None:
    """The first frame's publication and the second one's networks wait for each other and for the third one's decoding:
    one after the other, that would take for ever."""
    front, networks = Camera(), Networks()
    publishing, running, decoding, second = (threading.Event() for _ in range(4))
    decoded = [0]

    def on_decode() -> None:
        decoded[0] += 1
        if decoded[0] == 3:
            decoding.set()

    def on_run(number: int) -> None:
        if number == 2:
            running.set()
            assert decoding.wait(DEADLINE)
            assert publishing.wait(DEADLINE)
        if number == 3:  # or it may replace the second one
            assert second.wait(DEADLINE)

    def on_publish(number: int) -> None:
        if number == 1:
            publishing.set()
            assert running.wait(DEADLINE)
            assert decoding.wait(DEADLINE)
        if number == 2:
            second.set()

    front.on_decode, networks.on_run, front.on_publish = on_decode, on_run, on_publish
    with serving(networks, front=front) as (worker, told):
        send(worker, 1)
        assert publishing.wait(DEADLINE)
        send(worker, 2)
        assert running.wait(DEADLINE)
        send(worker, 3)
        told["front"].wait(3)
    assert front.published == [1, 2, 3]
    assert told["front"].summary().dropped == {}


@pytest.mark.parametrize("held", ["networks", "publishing"])
def test_nothing_queues_behind_a_step_that_is_held_up(held: str) -> None:
    """While it is, the newest frame replaces the others, each of which is counted; then it comes, and order is kept."""
    front, networks = Camera(), Networks()
    begun, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 1:
            begun.set()
            assert go_on.wait(DEADLINE)

    if held == "networks":
        networks.on_run = hold
    else:
        front.on_publish = hold
    with serving(networks, front=front) as (worker, told):
        send(worker, 1)
        assert begun.wait(DEADLINE)
        for number in range(2, 41):
            send(worker, number)
        go_on.set()
        told["front"].wait(40)
        summary = told["front"].summary()
    assert front.published[0] == 1
    assert front.published[-1] == 40
    assert front.published == sorted(front.published)
    assert summary.received == 40
    assert summary.processed == len(front.published)
    assert summary.dropped == {"superseded": 40 - len(front.published)}


def test_each_camera_has_slots_of_its_own() -> None:
    """One camera floods the node while it is held up; the other one's frame is not replaced by them."""
    cameras, networks = {"front": Camera(), "rear": Camera()}, Networks()
    begun, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 1:
            begun.set()
            assert go_on.wait(DEADLINE)

    networks.on_run = hold
    with serving(networks, **cameras) as (worker, told):
        send(worker, 1)
        assert begun.wait(DEADLINE)
        send(worker, 2, "rear")
        for number in range(3, 21):
            send(worker, number)
        go_on.set()
        told["front"].wait(19)
        told["rear"].wait(1)
    assert cameras["rear"].published == [2]
    assert cameras["front"].published[-1] == 20


def test_a_frame_that_takes_long_to_decode_holds_back_its_own_camera_alone() -> None:
    cameras, networks = {"front": Camera(), "rear": Camera()}, Networks()
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(DEADLINE)

    cameras["front"].on_decode = hold
    with serving(networks, **cameras) as (worker, told):
        send(worker, 1)
        assert begun.wait(DEADLINE)
        for number in range(2, 6):
            send(worker, number, "rear")
            told["rear"].wait(number - 1)
        assert cameras["front"].published == []
        go_on.set()
        told["front"].wait(1)
    assert cameras["rear"].published == [2, 3, 4, 5]
    assert cameras["front"].published == [1]


def test_a_frame_whose_header_is_larger_than_any_is_dropped() -> None:
    """Each output would have that header, too."""
    front = Camera()
    with serving(Networks(), front=front) as (worker, told):
        worker.put("front", image_message(pixels(), 1, "x" * 1001))
        told["front"].wait(1)
        send(worker, 2)
        told["front"].wait(2)
        assert told["front"].summary().dropped == {"malformed": 1}
    assert front.published == [2]


@pytest.mark.parametrize("step", ["decode", "run", "publish"])
def test_a_step_that_fails_costs_its_frame_alone(step: str) -> None:
    front, networks = Camera(), Networks()
    calls = [0]

    def fail(*number: int) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise ValueError("this one frame")

    if step == "run":
        networks.on_run = fail
    else:
        setattr(front, f"on_{step}", fail)
    with serving(networks, front=front) as (worker, told):
        for number in (1, 2, 3):
            send(worker, number)
            told["front"].wait(number)
        summary = told["front"].summary()
    assert front.published == [1, 3]
    assert (summary.processed, summary.dropped) == (2, {"failed": 1})


def test_what_the_networks_have_in_work_is_published_before_the_end() -> None:
    """And nothing behind it; no thread is left."""
    front, networks = Camera(), Networks()
    begun, go_on = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        begun.set()
        assert go_on.wait(DEADLINE)

    networks.on_run = hold
    before = threading.active_count()
    with serving(networks, front=front) as (worker, _):
        send(worker, 1)
        assert begun.wait(DEADLINE)
        send(worker, 2)
        ending = threading.Thread(target=worker.stop)
        ending.start()
        go_on.set()
        ending.join(DEADLINE)
        assert not ending.is_alive()
        assert front.published in ([1], [1, 2])  # the second one was in the networks' hands before the end, or was not
        assert threading.active_count() == before
        send(worker, 3)
    assert 3 not in front.published


def test_a_stage_begins_no_earlier_than_what_it_makes_can_be_used() -> None:
    """The following stage took long last time, and is at work: what comes meanwhile is only looked at when it is done,
    and then the newest alone."""
    results: list[int] = []
    slow, first, go_on = threading.Event(), threading.Event(), threading.Event()
    made: list[int] = []

    def follow(frames: Mapping[str, int]) -> None:
        results.append(frames["front"])
        if len(results) == 1:
            assert first.wait(DEADLINE)  # so long that nobody expects the next one to be done soon
        else:
            slow.set()
            assert go_on.wait(DEADLINE)

    following: Stage[int] = Stage("following", ["front"], follow)

    def make(frames: Mapping[str, int]) -> None:
        made.append(frames["front"])
        following.put(frames)

    stage: Stage[int] = Stage("first", ["front"], make, following)
    following.put({"front": 0})
    threading.Timer(1.0, first.set).start()  # the time that it is then expected to take again
    assert first.wait(DEADLINE)
    stage.put({"front": 1})
    assert slow.wait(DEADLINE)
    replaced = [stage.put({"front": number}) for number in range(2, 9)]
    go_on.set()
    stage.close(drain=True)
    assert stage.join(DEADLINE)
    following.close(drain=True)
    assert following.join(DEADLINE)
    assert len(made) <= 3  # 1, perhaps one that it took at once, and the newest
    assert made[-1] == results[-1] == 8
    assert sum(bool(each) for each in replaced) == 7 - (len(made) - 1)
