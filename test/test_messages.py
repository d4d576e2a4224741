"""The built messages, between real processes: this file is both the test and, run as a script, the other process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from node_harness import DOMAIN
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image
from set_up_packages import WITH_WHEELS

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception_msgs.msg import CameraStatus, DropCount, ModelInfo, ModelNetwork, PipelineStatus, SemanticClass

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
DEADLINE = 30.0  # [s]
WHEELS = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"  # set by the ROS wheels in .venv, not by a ROS 2 installation


def model_info() -> ModelInfo:
    return ModelInfo(
        bundle_name="street",
        format_version=2,
        classes=[SemanticClass(id=c.id, name=c.name, rgb=np.array(c.rgb, dtype=np.uint8)) for c in CAMVID_CLASSES],
        networks=[ModelNetwork(name="segmenter", file="segmenter.onnx", sha256="0" * 64)],
        conditions=["fog", "gaussian_noise"],
        input_height=352,
        input_smallest=128,
        input_largest=2048,
        backend="onnxruntime",
    )


def image() -> Image:
    pixels = np.random.default_rng(0).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    message = Image(height=360, width=480, encoding="rgb8", step=3 * 480, data=pixels.tobytes())
    message.header.stamp.sec = 17
    message.header.frame_id = "front"
    return message


MESSAGES = {"model_info": model_info, "image": image}


def publish(name: str) -> None:
    """Publishes one message and stays until standard input closes."""
    rclpy.init()
    message = MESSAGES[name]()
    publisher = rclpy.create_node("publisher").create_publisher(type(message), name, LATCHED)
    publisher.publish(message)
    sys.stdin.read()
    rclpy.shutdown()


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A ROS context of its own domain, on this machine alone; processes started under it join that domain."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context)
    yield context
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("name", MESSAGES)
def test_message_arrives_unchanged_from_another_process(name: str, context: Context) -> None:
    expected = MESSAGES[name]()
    received: list[object] = []
    node = rclpy.create_node("subscriber", context=context)
    node.create_subscription(type(expected), name, received.append, LATCHED)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    with subprocess.Popen([sys.executable, __file__, name], stdin=subprocess.PIPE) as publisher:
        deadline = time.monotonic() + DEADLINE
        while not received and publisher.poll() is None and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.1)
        assert publisher.stdin is not None
        publisher.stdin.close()
    executor.shutdown()
    assert received == [expected]


def test_ignore_id_is_that_of_masks() -> None:
    assert ModelInfo.IGNORE_ID == IGNORE_ID


def test_status_counts_beyond_32_bits() -> None:
    dropped = DropCount(reason=DropCount.SUPERSEDED, count=2**33)
    camera = CameraStatus(name="front", frames_received=2**40, dropped=[dropped])
    assert PipelineStatus(cameras=[camera]).cameras[0].dropped[0].count == 2**33


@pytest.mark.skipif(not WITH_WHEELS, reason="ROS 2 is an installation that is sourced, and not .venv's own")
@pytest.mark.parametrize("foreign", [{}, {WHEELS: "1", "LD_LIBRARY_PATH": "/nowhere", "AMENT_PREFIX_PATH": "/nowhere"}])
def test_venv_needs_no_sourcing(foreign: dict[str, str], tmp_path: Path) -> None:
    """Neither from an empty environment, nor from one that another such venv's Python has left its marks on."""
    code = (
        "import coop_perception_msgs.msg, ament_index_python as index;"
        "coop_perception_msgs.msg.ModelInfo.__class__.__import_type_support__();"
        "print(index.get_package_share_directory('coop_perception'))"
    )
    environment = {"HOME": str(tmp_path), **foreign}
    command = [sys.executable, "-c", code]
    share = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert Path(share.strip(), "package.xml").is_file()


if __name__ == "__main__":
    publish(sys.argv[1])
