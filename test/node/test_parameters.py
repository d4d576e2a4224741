"""Parameters on a node in this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
import rclpy
from node_harness import DOMAIN
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from coop_perception.node.parameters import PARAMETERS
from coop_perception.node.settings import NodeParameters

TIMES = 300


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    it = Node("parameters", context=context)
    yield it
    it.destroy_node()
    context.shutdown()


def test_a_snapshot_has_all_parameters_and_stays_as_it_is(node: Node) -> None:
    parameters = NodeParameters(node)
    before = parameters.snapshot()
    assert before == {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in PARAMETERS}
    assert parameters.set({"refinement": False, "max_age": 2.0}) == ""
    assert (before["refinement"], before["max_age"]) == (True, 0.0)
    assert parameters.snapshot() == {**before, "refinement": False, "max_age": 2.0}
    assert parameters.value("max_age") == node.get_parameter("max_age").value == 2.0


@pytest.mark.parametrize(
    "refused",
    [
        Parameter("jpeg_quality", value=0),
        Parameter("restoration", value=1),
        Parameter("backend", value="none"),
        Parameter("image_formats", value=["jpeg", "heic"]),
        Parameter("image_formats", value=[]),
        Parameter("max_image_pixels", value=0),
        Parameter("use_sim_time", value="yes"),
        Parameter("cameras", value=[f"camera_{number}" for number in range(65)]),
        Parameter("cameras", value=["x" * 101]),
        Parameter("cameras", value=["\x1b[2J" * 100_000]),
        Parameter("engine_cache", value="/somewhere"),
        Parameter("backend", value="x" * 1_000_000),
        Parameter("max_age"),
        Parameter("no_such_parameter", value=1),
    ],
    ids=lambda parameter: parameter.name,
)
def test_what_is_refused_together_with_something_else_takes_nothing_over(node: Node, refused: Parameter) -> None:
    """Whether this node refuses it or rclpy does."""
    parameters = NodeParameters(node)
    before = parameters.snapshot()
    together = [Parameter("refinement", value=False), refused]
    try:
        result = node.set_parameters_atomically(together)
        assert not result.successful
        assert len(result.reason) < 1000
    except rclpy.exceptions.ParameterNotDeclaredException:
        pass  # as nodes answer who asks by a service with a refusal
    assert parameters.snapshot() == before
    assert node.get_parameter("refinement").value is True


def test_what_is_set_together_is_never_seen_apart(node: Node) -> None:
    parameters = NodeParameters(node)
    seen, done = set(), threading.Event()

    def read() -> None:
        while not done.is_set():
            snapshot = parameters.snapshot()
            seen.add((snapshot["refinement"], snapshot["restoration"]))

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # the reader comes between any two steps of the writer
    reader.start()
    try:
        for count in range(TIMES):
            assert parameters.set({"refinement": count % 2 == 0, "restoration": count % 2 == 0}) == ""
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert seen == {(True, True), (False, False)}
