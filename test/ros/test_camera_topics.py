"""What remapping a camera's image does to the other topics that it is read from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import rclpy
from node_harness import DOMAIN
from rclpy.context import Context
from rclpy.node import Node

from coop_perception.ros.camera_topics import camera_topics


@contextmanager
def node(*remappings: str, namespace: str = "/") -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    arguments = ["--ros-args", *(word for remapping in remappings for word in ("-r", remapping))]
    made = Node("reader", context=context, namespace=namespace, cli_args=arguments)
    try:
        yield made
    finally:
        made.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize(
    ("remappings", "compressed", "expected"),
    [
        ((), False, ("/front/image_raw", "/front/camera_info")),
        ((), True, ("/front/image_raw/compressed", "/front/camera_info")),
        (("front/image_raw:=/cam/image_rect",), False, ("/cam/image_rect", "/cam/camera_info")),
        (("front/image_raw:=/cam/image_rect",), True, ("/cam/image_rect/compressed", "/cam/camera_info")),
        (("front/image_raw:=/image_raw",), False, ("/image_raw", "/camera_info")),
        (("front/image_raw/compressed:=/a/b/compressed",), True, ("/a/b/compressed", "/a/camera_info")),
        (("front/image_raw:=/a/b", "front/camera_info:=/c/info"), False, ("/a/b", "/c/info")),
        (("front/camera_info:=/c/info",), True, ("/front/image_raw/compressed", "/c/info")),
    ],
)
def test_a_remapped_image_takes_the_rest_with_it(
    remappings: tuple[str, ...], compressed: bool, expected: tuple[str, str]
) -> None:
    with node(*remappings) as ours:
        assert camera_topics(ours, "front/image_raw", "front/camera_info", compressed) == expected


def test_namespaces_hold() -> None:
    with node(namespace="/car") as ours:
        found = camera_topics(ours, "front/image_raw", "front/camera_info", compressed=False)
        assert found == ("/car/front/image_raw", "/car/front/camera_info")
