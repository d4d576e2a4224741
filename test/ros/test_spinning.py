"""A node that goes on, whatever its callbacks raise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from node_harness import (
    DOMAIN,
    NODE,
    RELIABLE,
    Client,
    connected,
    executable,
    image_message,
    pixels,
    publish_until,
    set_parameters,
)
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from coop_perception.ros.lifecycle_client import bring_up
from coop_perception.ros.spinning import spin


@pytest.fixture
def ours() -> Iterator[Client]:
    it = Client(DOMAIN)
    try:
        yield it
    finally:
        it.close()


def test_a_callback_that_raises_is_named_and_the_next_ones_are_called(capfd: pytest.CaptureFixture[str]) -> None:
    context = Context()
    context.init(domain_id=DOMAIN)
    node = Node("spun", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    raised = []

    def stumbling() -> None:
        raised.append(len(raised))
        if len(raised) < 3:
            again.trigger()
            raise ValueError("no such time\x1b[2J")
        context.shutdown()

    again = node.create_guard_condition(stumbling)
    again.trigger()
    spin(executor, node)
    assert raised == [0, 1, 2]
    assert "stumbling: ValueError: no such time\\x1b[2J; going on" in capfd.readouterr().err


def bad_clock(ours: Client, log: Path) -> None:
    """A /clock before the beginning of time, until the node has said what it thinks of it."""
    clock = Clock()
    clock.clock.sec = -1
    publisher = ours.node.create_publisher(Clock, "/clock", 10)
    said = "clock_callback: ValueError: Seconds value must not be negative; going on"
    publish_until(ours, publisher, clock, lambda: said in log.read_text(), "the log says so")
    for _ in range(10):
        publisher.publish(clock)


def test_the_perception_node_outlives_a_clock_that_cannot_be(ours: Client, bundle: Path, tmp_path: Path) -> None:
    log, parameters = tmp_path / "log", {"bundle": str(bundle), "use_sim_time": "true", **RELIABLE}
    with executable("perception_node", DOMAIN, log, **parameters):
        bring_up(ours.node, ours.executor, NODE)
        ours.spin()
        bad_clock(ours, log)
        masks = ours.listen(Image, "/front/coop/mask")
        publisher = connected(ours, Image, "/front/image_raw")
        publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
        refused = set_parameters(ours, use_sim_time=False)
        assert refused == "parameter use_sim_time is read when the node is configured; clean it up first"


def test_the_degrade_node_outlives_a_clock_that_cannot_be(ours: Client, tmp_path: Path) -> None:
    log, parameters = tmp_path / "log", {"use_sim_time": "true", "level": 0}
    ours.spin()
    with executable("degrade_node", DOMAIN, log, **parameters):
        bad_clock(ours, log)
        degraded: list[Any] = ours.listen(Image, "/front/image_raw")
        publisher = connected(ours, Image, "/front/clean/image_raw")
        publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(degraded), "an image")
