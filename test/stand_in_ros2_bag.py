"""Stands in for `ros2 bag play` and `record`, which have no wheels, with the options that the launch files use.

Put on PATH as `ros2` (`install`), in front of the real one.
"""

from __future__ import annotations

import argparse
import importlib
import re
import signal
import sys
import threading
import time
from pathlib import Path

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import StoragePlugin, Writer

from coop_perception.recordings.recording import Recording


def install(folder: Path) -> None:
    """Make a folder to put on PATH."""
    folder.mkdir()
    (folder / "ros2").write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    (folder / "ros2").chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True).add_parser("bag").add_subparsers(required=True)
    playing, recording = commands.add_parser("play"), commands.add_parser("record")
    playing.set_defaults(run=play)
    playing.add_argument("bag", type=Path)
    playing.add_argument("--rate", type=float)
    playing.add_argument("--delay", type=float)
    playing.add_argument("--topics", nargs="+")
    playing.add_argument("--remap", nargs="+", default=[])
    recording.set_defaults(run=record)
    recording.add_argument("--output", type=Path)
    recording.add_argument("--regex")
    recording.add_argument("--use-sim-time", action="store_true")
    options = parser.parse_args()
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    options.run(options)


def message_type(name: str) -> type:
    package, _, kind = name.partition("/msg/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def play(options: argparse.Namespace) -> None:
    names = dict(rule.split(":=") for rule in options.remap)
    node = Node("player")
    with Recording(options.bag) as recording:
        publishers = {
            topic: node.create_publisher(message_type(recording.topics[topic].type), names.get(topic, topic), 10)
            for topic in options.topics
        }
        time.sleep(options.delay)
        begun, first = time.monotonic(), None
        for message in recording.messages(options.topics):
            first = message.stamp_ns if first is None else first
            time.sleep(max(0.0, begun + (message.stamp_ns - first) / 1e9 / options.rate - time.monotonic()))
            publishers[message.topic].publish(message.raw)
        time.sleep(0.5)


def record(options: argparse.Namespace) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    node = Node("recorder")
    subscribed: set[str] = set()
    with Writer(options.output, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        while not stop.is_set():
            for topic, (kind, *_) in node.get_topic_names_and_types():
                publishers = node.get_publishers_info_by_topic(topic)
                if topic in subscribed or not publishers or not re.search(options.regex, topic):
                    continue
                subscribed.add(topic)
                connection = writer.add_connection(topic, kind, msgdef="", rihs01="unknown")
                qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
                qos.durability = publishers[0].qos_profile.durability

                def write(raw: bytes, connection: object = connection) -> None:
                    writer.write(connection, time.time_ns(), raw)

                node.create_subscription(message_type(kind), topic, write, qos, raw=True)
            rclpy.spin_once(node, timeout_sec=0.05)


if __name__ == "__main__":
    main()
