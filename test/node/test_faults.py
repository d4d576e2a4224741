"""What may go wrong around a node on a vehicle, each with real processes and DDS (but for the ten thousand)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import rclpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from node_harness import (
    DOMAIN,
    NODE,
    RELIABLE,
    Client,
    client,
    connected,
    environment,
    image_message,
    node_process,
    pixels,
    publish_until,
    set_parameters,
    settle,
)
from onnx import TensorProto, helper, numpy_helper
from rclpy.context import Context
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from toy_bundle import open_pipeline, rewrite_network, write_toy_bundle

from coop_perception.contracts import Bundle
from coop_perception.engines.cuda import GpuLostError
from coop_perception.images import ImageError, decode, encode_compressed, to_mask
from coop_perception.model.pipeline import Result
from coop_perception.node.settings import NodeParameters
from coop_perception.node.statistics import CameraStatistics
from coop_perception.node.worker import Channel, Worker
from coop_perception.ros.lifecycle_client import bring_up
from coop_perception_msgs.msg import DropCount
from coop_perception_msgs.srv import LoadBundle

MESSAGES = 10_000
A_BATCH = 20
FAILS_AT = 200


def strange(draw: st.DrawFn) -> Image | CompressedImage:
    """An image message that may be right in all, some or none of its fields."""
    header = Header(frame_id=draw(st.sampled_from(["", "front", "\u00e9" * 50])))
    header.stamp.sec = draw(st.sampled_from([0, 1, -(2**31), 2**31 - 1]))
    header.stamp.nanosec = draw(st.sampled_from([0, 5, 999_999_999, 2**32 - 1]))
    if draw(st.booleans()):
        message = CompressedImage(header=header, format=draw(st.sampled_from(["jpeg", "png", "", "rgb8; jpeg", "\0"])))
        magic = draw(st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
        message.data = magic + draw(st.binary(max_size=64))
        return message
    height, width = draw(st.integers(0, 9)), draw(st.integers(0, 9))
    encodings = ["rgb8", "mono8", "mono16", "bayer_rggb8", "nv12", "yuv422", "rgba16", "32FC1", "?", ""]
    encoding = draw(st.sampled_from(encodings))
    step = draw(st.one_of(st.just(3 * width), st.just(width), st.integers(0, 64), st.just(2**32 - 1)))
    length = draw(st.one_of(st.just(min(step, 64) * height), st.integers(0, 300)))
    huge = draw(st.sampled_from([False] * 9 + [True]))
    return Image(
        header=header,
        height=2**32 - 1 if huge else height,
        width=width,
        encoding=encoding,
        is_bigendian=draw(st.sampled_from([0, 1, 255])),
        step=step,
        data=bytes(length),
    )


MALFORMED = st.composite(strange)()


class Outputs:
    """Somebody watches the mask; what is published is let go."""

    def wanted(self) -> set[str]:
        return {"mask"}

    def publish(
        self,
        header: Header,
        frame: np.ndarray,
        result: Result,
        filtered: object,
        bundle: Bundle,
        info: object,
        parameters: object,
    ) -> None:
        assert result.mask is not None
        assert result.mask.shape == frame.shape[:2]


class Announcing(CameraStatistics):
    """Tells when a frame's fate is known."""

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Semaphore(0)
        self.newest: tuple[float, Mapping[str, float]] = 0.0, {}

    def processed(self, latency_ms: float, stages_ms: Mapping[str, float], *others: Any) -> None:
        super().processed(latency_ms, stages_ms, *others)
        self.newest = latency_ms, stages_ms
        self.done.release()

    def dropped(self, reason: str) -> None:
        super().dropped(reason)
        self.done.release()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Worker, Channel]]:
    context = Context()
    rclpy.init(args=["--ros-args", "--log-level", "fatal"], context=context, domain_id=DOMAIN)
    node = Node("worker", context=context)
    pipeline = open_pipeline(write_toy_bundle(tmp_path_factory.mktemp("worker") / "toy"))
    channel = Channel(Outputs())
    channel.statistics = Announcing()
    it = Worker(node, {"front": channel}, lambda: pipeline, NodeParameters(node))
    yield it, channel
    it.stop()
    node.destroy_node()
    context.shutdown()


@settings(max_examples=MESSAGES // A_BATCH, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MALFORMED, min_size=A_BATCH, max_size=A_BATCH))
def test_ten_thousand_malformed_messages_are_each_counted(
    worker: tuple[Worker, Channel], messages: list[Image | CompressedImage]
) -> None:
    """In-process, through the worker thread: each is processed or counted as malformed, none as unforeseen."""
    it, channel = worker
    before, malformed = channel.statistics.summary(), 0
    for message in messages:
        try:
            decode(message)
        except ImageError:
            malformed += 1
        it.put("front", message)
        assert channel.statistics.done.acquire(timeout=60)
    after = channel.statistics.summary()
    assert after.received == before.received + A_BATCH
    assert after.dropped.get("malformed", 0) == before.dropped.get("malformed", 0) + malformed
    assert after.processed == before.processed + A_BATCH - malformed
    assert set(after.dropped) <= {"malformed"}


def test_what_is_decoded_follows_the_parameters(tmp_path: Path) -> None:
    """A compressed image that claims too much is malformed, and so is one of a format that is not taken."""
    context = Context()
    rclpy.init(args=["--ros-args", "--log-level", "fatal"], context=context, domain_id=DOMAIN)
    node = Node("worker", context=context)
    pipeline, parameters = open_pipeline(write_toy_bundle(tmp_path / "toy")), NodeParameters(node)
    channel = Channel(Outputs())
    channel.statistics = Announcing()
    it = Worker(node, {"front": channel}, lambda: pipeline, parameters)

    def fate(message: CompressedImage) -> str:
        before = channel.statistics.summary().processed
        it.put("front", message)
        assert channel.statistics.done.acquire(timeout=60)
        return "processed" if channel.statistics.summary().processed > before else "dropped"

    try:
        picture = CompressedImage(format="jpeg", data=encode_compressed(pixels(0, 24, 32), "png"))
        bitmap = CompressedImage(format="bmp", data=cv2.imencode(".bmp", pixels(0, 24, 32))[1].tobytes())
        assert (fate(picture), fate(bitmap)) == ("processed", "dropped")
        assert parameters.set({"max_image_pixels": 24 * 32 - 1}) == ""
        assert fate(picture) == "dropped"
        assert parameters.set({"max_image_pixels": 24 * 32, "image_formats": ["bmp"]}) == ""
        assert (fate(picture), fate(bitmap)) == ("dropped", "processed")
        assert channel.statistics.summary().dropped == {"malformed": 3}
    finally:
        it.stop()
        node.destroy_node()
        context.shutdown()


def test_the_stages_of_a_frame_are_told_in_order_and_within_its_latency(worker: tuple[Worker, Channel]) -> None:
    it, channel = worker
    it.put("front", image_message(pixels(0, 480, 640), 1))
    assert channel.statistics.done.acquire(timeout=60)
    latency_ms, stages_ms = channel.statistics.newest
    assert list(stages_ms) == ["decode", "segmenter", "refinement", "publish"]
    assert all(ms > 0 for ms in stages_ms.values())
    assert sum(stages_ms.values()) <= latency_ms


LOSING = """
import sys
from coop_perception.commands.perception_node import main
from coop_perception.engines.cuda import GpuLostError
from coop_perception.model.pipeline import Pipeline
warm, run = Pipeline.warm_up, Pipeline.run

def lose(*_):
    raise GpuLostError("segmenter.engine: cudaEventSynchronize: cudaErrorIllegalAddress")

def warm_up(pipeline, *sizes):
    Pipeline.run = run
    warm(pipeline, *sizes)
    Pipeline.run = lose

Pipeline.warm_up = LOSE_AT_ONCE and lose or warm_up
sys.exit(main())
"""


@pytest.mark.parametrize(("at_once", "backend"), [(False, "onnxruntime"), (True, "onnxruntime"), (True, "auto")])
def test_a_lost_gpu_ends_the_process_in_one_line(bundle: Path, tmp_path: Path, at_once: bool, backend: str) -> None:
    program = LOSING.replace("LOSE_AT_ONCE", str(at_once))
    command = [sys.executable, "-c", program, "--autostart", "--stay", "--ros-args", "-p", f"bundle:={bundle}"]
    command += ["-p", f"backend:={backend}"]
    log = tmp_path / "log"
    with log.open("w") as file, client(DOMAIN) as ours:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(DOMAIN))
        try:
            ours.listen(Image, "/front/coop/mask")
            publisher = ours.node.create_publisher(Image, "/front/image_raw", 1)
            ours.spin()
            message = image_message(pixels(), 1)

            def over() -> bool:
                publisher.publish(message)
                return process.poll() is not None

            ours.wait(over, "the end of the process")
        finally:
            process.kill()
    assert process.returncode == 1
    said = log.read_text()
    lines = [line for line in said.splitlines() if "cudaErrorIllegalAddress" in line]
    assert len(lines) == 1, said
    assert "FATAL" in lines[0]
    assert "ERROR" not in said
    assert "Traceback" not in said


LOSING_LATER = """
import sys
from coop_perception.commands.perception_node import main
from coop_perception.engines.cuda import GpuLostError
from coop_perception.model.pipeline import Pipeline
warm = Pipeline.warm_up

def lose(*_):
    raise GpuLostError("segmenter.engine: cudaGraphLaunch: cudaErrorIllegalAddress")

def warm_up(*arguments):
    Pipeline.warm_up = lose
    warm(*arguments)

Pipeline.warm_up = warm_up
sys.exit(main())
"""


def test_a_gpu_lost_while_another_bundle_is_loaded_ends_the_process_in_one_line(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOSING_LATER, "--autostart", "--ros-args", "-p", f"bundle:={bundle}"]
    command += ["-p", "backend:=onnxruntime", "-p", f"bundle_roots:=['{bundle.parent}']"]
    log = tmp_path / "log"
    with log.open("w") as file, client(DOMAIN) as ours:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment(DOMAIN))
        try:
            asking = ours.node.create_client(LoadBundle, f"{NODE}/load_bundle")
            ours.wait(lambda: ours.state() == "active", "the node")
            asking.call_async(LoadBundle.Request(path=str(bundle)))
            ours.wait(lambda: process.poll() is not None, "the end of the process")
        finally:
            process.kill()
    assert process.returncode == 1
    lines = [line for line in log.read_text().splitlines() if "cudaErrorIllegalAddress" in line]
    assert len(lines) == 1, log.read_text()
    assert "FATAL" in lines[0]


def test_a_lost_gpu_may_be_sat_out(bundle: Path) -> None:
    context = Context()
    rclpy.init(args=["--ros-args", "--log-level", "fatal"], context=context, domain_id=DOMAIN)
    node = Node("worker", context=context)
    parameters, channel = NodeParameters(node), Channel(Outputs())
    channel.statistics = Announcing()

    class Lost:
        bundle = None

        def run(self, *_: object) -> None:
            raise GpuLostError("gone")

    it = Worker(node, {"front": channel}, Lost, parameters)
    assert parameters.set({"exit_on_gpu_loss": False}) == ""
    it.put("front", image_message(pixels(), 1))
    assert channel.statistics.done.acquire(timeout=60)
    assert channel.statistics.summary().dropped == {"failed": 1}
    assert context.ok()
    it.stop()
    node.destroy_node()
    context.shutdown()


def test_what_changes_while_a_batch_is_in_work_is_for_the_next_one(bundle: Path) -> None:
    """The first camera's results are published, whereupon all that is dynamic changes; the second one's come after."""
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN)
    node = Node("worker", context=context)
    parameters = NodeParameters(node)
    assert parameters.set({"batch_window_ms": 1000.0}) == ""
    seen: list[tuple[Mapping[str, object], Result]] = []

    class Changing:
        def wanted(self) -> set[str]:
            return {"confidence", "restored"}

        def publish(self, header: Header, frame: np.ndarray, result: Result, *others: object) -> None:
            seen.append((others[-1], result))
            changed = {"refinement": False, "restoration": False, "overlay_opacity": 0.25, "jpeg_quality": 10}
            assert parameters.set(changed) == ""

    channels = {camera: Channel(Changing()) for camera in ("front", "rear")}
    for channel in channels.values():
        channel.statistics = Announcing()
    pipeline = open_pipeline(bundle)
    it = Worker(node, channels, lambda: pipeline, parameters)
    before = parameters.snapshot()
    for camera in channels:  # they wait for each other: one batch
        it.put(camera, image_message(pixels(), 1))
    for channel in channels.values():
        assert channel.statistics.done.acquire(timeout=60)
    it.stop()
    node.destroy_node()
    context.shutdown()
    assert [given for given, _ in seen] == [before, before]
    assert all(result.confidence is not None and result.restored is not None for _, result in seen)


def test_malformed_messages_over_dds(active: Callable[..., Client]) -> None:
    """Of what DDS itself lets through."""
    messages: list[Image] = []

    @settings(max_examples=300, database=None, derandomize=True)
    @given(MALFORMED)
    def collect(message: Image | CompressedImage) -> None:
        if isinstance(message, Image):
            messages.append(message)

    collect()
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
    assert len(messages) > 100
    settle(ours, "front")
    expected = ours.status("front").frames_received
    for number, message in enumerate(messages, 1):
        publisher.publish(message)
        if number % 50 == 0:  # not to overrun the subscription's history
            ours.wait(lambda n=number: ours.status("front").frames_received >= expected + n, f"{number} received")
    publish_until(
        ours, publisher, image_message(pixels(3), 7), lambda: masks[-1].header.stamp.sec == 7, "a mask after all that"
    )
    settle(ours, "front")
    assert ours.status("front").frames_received > expected + len(messages)
    assert ours.dropped("front", DropCount.MALFORMED) > 0
    assert ours.dropped("front", DropCount.FAILED) == 0
    np.testing.assert_array_equal(to_mask(masks[-1]), pixels(3)[..., 1])


def failing(directory: Path) -> Path:
    """A toy bundle whose segmenter looks red up in a table of FAILS_AT entries: beyond them the engine raises."""
    proto = onnx.load(write_toy_bundle(directory) / "segmenter.onnx")
    node = next(n for n in proto.graph.node if n.output[0] == "mask_raw")
    proto.graph.node.remove(node)
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(FAILS_AT, dtype=np.uint8), "table"))
    proto.graph.node.extend(
        [
            helper.make_node("Cast", list(node.input), ["red_index"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "red_index"], ["mask_raw"]),
        ]
    )
    rewrite_network(directory, "segmenter", proto)
    return directory


def test_an_engine_that_raises_in_the_middle(active: Callable[..., Client], tmp_path: Path, node_log: Path) -> None:
    """Its frames are counted and said; those before and after are served, and the other camera's in the same batch."""
    served = {"cameras": "[front, rear]", "batch_window_ms": "300.0", "backend": "onnxruntime"}
    ours = active(bundle=str(failing(tmp_path / "failing")), **served)
    masks = {camera: ours.listen(Image, f"/{camera}/coop/mask_raw") for camera in ("front", "rear")}
    publishers = {camera: connected(ours, Image, f"/{camera}/image_raw") for camera in masks}
    for camera, publisher in publishers.items():
        publish_until(ours, publisher, image_message(pixels(), 1), lambda c=camera: bool(masks[c]), "a first mask")
    fatal = pixels(1)
    fatal[3, 4, 0] = FAILS_AT
    before = ours.dropped("front", DropCount.FAILED)
    for second in range(2, 7):
        publishers["front"].publish(image_message(fatal, second))
        publishers["rear"].publish(image_message(pixels(second), second))
        ours.wait(lambda s=second: masks["rear"][-1].header.stamp.sec == s, "the other camera's mask")
        np.testing.assert_array_equal(to_mask(masks["rear"][-1]), pixels(second)[..., 0])
    ours.wait(lambda: ours.dropped("front", DropCount.FAILED) == before + 5, "each failure counted")
    assert masks["front"][-1].header.stamp.sec == 1
    publishers["front"].publish(image_message(pixels(), 7))
    ours.wait(lambda: masks["front"][-1].header.stamp.sec == 7, "a mask after the failures")
    assert "frame failed: EngineError" in node_log.read_text()


SUBSCRIBER = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("recorder")
for topic in ("mask", "image_restored"):
    node.create_subscription(Image, f"/front/coop/{topic}", lambda message: print("got", flush=True), 1)
"""
SPINS, SLEEPS = "rclpy.spin(node)", "import signal; signal.pause()"


@pytest.fixture
def no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """In it, what a stopped process has not read keeps its place in the writer's segment, and now and then none is left
    for the others: Fast DDS's doing, whatever the node does."""
    monkeypatch.setenv("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4")


SIZES = pytest.mark.parametrize("size", [(120, 160), (480, 640)])
"""Of frames: one datagram each, and fifteen."""


@SIZES
def test_a_subscriber_that_never_reads_holds_nobody_up(active: Callable[..., Client], size: tuple[int, int]) -> None:
    """It is there, with reliable subscriptions, and never takes a message."""
    serves_others(active(), size, SLEEPS, lambda subscriber: None)


@SIZES
def test_a_subscriber_that_is_stopped_holds_nobody_up(
    no_shared_memory: None, active: Callable[..., Client], size: tuple[int, int]
) -> None:
    """Its process, with reliable subscriptions and all."""
    serves_others(active(), size, SPINS, lambda subscriber: subscriber.send_signal(signal.SIGSTOP))


def serves_others(
    ours: Client, size: tuple[int, int], then: str, do: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """While the other subscriber does what it does, until any buffer of it is full many times over. Frames are sent
    again until they are answered: where a busy machine loses one of many datagrams, DDS takes seconds to do so."""
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    frame, last = pixels(0, *size), 101 if size[0] < 200 else 61
    command = [sys.executable, "-c", SUBSCRIBER + then]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(DOMAIN)) as subscriber:
        try:
            assert subscriber.stdout is not None
            publish_until(ours, publisher, image_message(frame, 1), lambda: bool(masks), "a mask")
            ours.wait(lambda: ours.node.count_subscribers("/front/coop/image_restored") > 0, "the other subscriber")
            do(subscriber)
            for second in range(2, last + 1):
                publish_until(
                    ours,
                    publisher,
                    image_message(frame, second),
                    lambda s=second: masks[-1].header.stamp.sec == s,
                    f"mask {second} for the one that reads",
                )
            ours.wait(lambda: ours.status("front").frames_processed >= last, "a status that counts them all")
        finally:
            subscriber.kill()


def test_parameters_hammered_while_frames_flow(active: Callable[..., Client]) -> None:
    ours = active()
    masks = ours.listen(Image, "/front/coop/mask")
    publisher = connected(ours, Image, "/front/image_raw")
    publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask")
    rng = random.Random(0)
    for second in range(2, 102):
        publisher.publish(image_message(pixels(), second))
        name, value, right = rng.choice(
            [
                ("overlay_opacity", rng.random(), True),
                ("jpeg_quality", rng.randint(1, 100), True),
                ("batch_window_ms", rng.random(), True),
                ("max_age", 0.0, True),
                ("restoration", rng.random() < 0.5, True),
                ("refinement", True, True),
                ("jpeg_quality", rng.randint(101, 1000), False),
                ("max_age", -1.0, False),
                ("restoration", 1, False),
                ("cameras", ["left"], False),
                ("no_such_parameter", 1, False),
            ]
        )
        assert (set_parameters(ours, **{name: value}) == "") == right, (name, value)
    ours.wait(lambda: masks[-1].header.stamp.sec == 101, "the last frame's mask")
    seconds = [mask.header.stamp.sec for mask in masks]
    assert seconds == sorted(seconds)
    assert set_parameters(ours, refinement=False) == ""
    publisher.publish(image_message(pixels(), 102))
    ours.wait(lambda: masks[-1].header.stamp.sec == 102, "a mask")
    np.testing.assert_array_equal(to_mask(masks[-1]), pixels()[..., 0])


def test_a_node_that_is_killed_and_started_again(bundle: Path, tmp_path: Path) -> None:
    with client(DOMAIN) as ours:
        parameters = {"bundle": str(bundle), **RELIABLE}
        with node_process(DOMAIN, tmp_path / "first.log", **parameters) as first:
            bring_up(ours.node, ours.executor, NODE)
            first.send_signal(signal.SIGKILL)
            assert first.wait(30) == -signal.SIGKILL
        # What is left of its topics and services in the graph leaves with its lease; the new one is found beside it.
        # By itself, for a client could not tell which of the two answers it.
        with node_process(DOMAIN, tmp_path / "second.log", "--autostart", **parameters):
            masks = ours.listen(Image, "/front/coop/mask")
            publisher = ours.node.create_publisher(Image, "/front/image_raw", 10)
            ours.spin()
            publish_until(ours, publisher, image_message(pixels(), 1), lambda: bool(masks), "a mask of the second one")
