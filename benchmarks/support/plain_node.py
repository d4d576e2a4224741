"""The node that one writes first: typed messages, a copy of each, three calls of eager PyTorch in the callback.

What it does not do is the point: it shares no memory between message and network, lets ten images wait, and always
computes and publishes both the mask and the restored image. What costs nothing to do well it does well: messages are
filled by `tobytes`, gradients are off, PyTorch has all cores.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from support.eager import eager_pass

from coop_perception import topics
from coop_perception.model.bundle import load_bundle

DEPTH = 10


class PlainNode(Node):
    """Serves one camera with a bundle's networks."""

    def __init__(self, bundle: Path, camera: str) -> None:
        super().__init__("plain_node")
        self._run = eager_pass(load_bundle(bundle))
        self._mask = self.create_publisher(Image, topics.of(camera, topics.MASK), DEPTH)
        self._restored = self.create_publisher(Image, topics.of(camera, topics.RESTORED), DEPTH)
        self.create_subscription(Image, topics.of(camera, topics.IMAGE), self._on_image, DEPTH)

    def _on_image(self, message: Image) -> None:
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        values = self._run(pixels.copy())
        self._publish(self._mask, message, values["mask"][0], "mono8")
        self._publish(self._restored, message, values["restored"][0], "rgb8")

    def _publish(self, publisher: Publisher, source: Image, array: NDArray[np.uint8], encoding: str) -> None:
        message = Image(header=source.header, encoding=encoding)
        message.height, message.width = array.shape[:2]
        message.step = array.nbytes // array.shape[0]
        message.data = array.tobytes()
        publisher.publish(message)


def main() -> None:
    bundle, camera = sys.argv[1:]
    rclpy.init()
    try:
        rclpy.spin(PlainNode(Path(bundle), camera))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == "__main__":
    main()
