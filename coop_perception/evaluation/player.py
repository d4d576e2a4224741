"""Plays a recording to a running perception node over DDS, and records what it publishes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rich.markup import escape
from rich.progress import Progress
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from coop_perception import topics
from coop_perception.contracts import STAGES
from coop_perception.evaluation.conditions import Estimated, of_message
from coop_perception.evaluation.evaluation import NotAloneError
from coop_perception.evaluation.node_outputs import RECORDED
from coop_perception.images import ImageError, decode
from coop_perception.recordings.cameras import camera_of, camera_prefix
from coop_perception.recordings.frames import EARLIEST_NS, NEWEST_NS, header_stamp, with_header_stamp
from coop_perception.recordings.messages import COMPRESSED_IMAGE_TYPE, IMAGE_TYPE
from coop_perception.recordings.recording import Message, Recording, RecordingError
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.shown import plain
from coop_perception_msgs.msg import CameraStatus, ImageCondition, PipelineStatus

PLAY_QOS = QoSProfile(history=HistoryPolicy.KEEP_ALL, reliability=ReliabilityPolicy.RELIABLE)
"""What is lost shall be lost by the node, which counts it, and not on the way: keep-last would overwrite frames."""
CONNECT_S = 20.0
FIRST_FRAME_S = 120.0
LONGEST_GAP_S = 5.0
"""What is longer without an image is cut to this: a camera that was off, or a clock that was set meanwhile."""
TRIALS, SPACED = 3, 20
"""Images that a node's time for one is the median of, and that tell how far they lie apart."""
SLOWEST = 1e-4
"""Of a recording's pace: images that were logged at one time have none."""
HEADROOM = 0.8
"""Share of the time between two images that the node may take for one."""
GONE_S = 5.0
"""How long nothing may be seen of the node: on a busy machine discovery forgets one for a moment."""
SETTLE_S = 10.0
"""How long the node may leave a frame unaccounted for after the last one was played."""
ANSWERS = {*RECORDED, "condition"}
"""What comes back of a frame that was processed."""


class LiveError(RuntimeError):
    """A node that cannot be evaluated; the message says what it did not do."""


@dataclass(slots=True)
class Played:
    """What came of playing a recording. Times by header stamp in ns."""

    frames: int = 0
    received: int = 0
    """Frames that reached the node."""
    latency_ms: dict[int, float] = field(default_factory=dict)
    """From publication of the image to reception of its mask."""
    processed: int = 0
    """Frames that the node reports as processed and whose outputs all arrived."""
    repeated: int = 0
    """Images that were not played, as they have the stamp of one before: their outputs could not be told apart."""
    dropped: dict[str, int] = field(default_factory=dict)
    stages_ms: dict[str, float] = field(default_factory=dict)
    conditions: dict[int, Estimated] = field(default_factory=dict)
    published: list[int] = field(default_factory=list)
    """The stamps of the frames, in order."""
    seconds: float = 0.0
    """From the first image's publication to the last mask's reception."""
    damage: str | None = None
    """What is wrong with the recording behind the frames that were played."""
    rate: float = 1.0
    """Of the recording's own pace."""
    cut_s: float = 0.0
    """Of gaps between two images, what was not waited for."""
    interrupted: bool = False
    """By Ctrl-C, before the last frame had been answered."""


def play(recording: Recording, image_topic: str, node_name: str, outputs: Path, rate: float | None = 1.0) -> Played:
    """Play a recording; write the node's masks and restored images to the recording `outputs`.

    Args:
        recording: what is played.
        image_topic: its images.
        node_name: fully qualified.
        outputs: where the node's go.
        rate: of the recording's own pace; None: that, or as much less as the node needs to follow.

    Raises:
        LiveError: the node does not answer, or two frames have the same stamp.
        NotAloneError: there are two of its name.
        RecordingError: `outputs` cannot be written.
    """
    client = _Client(recording, image_topic, node_name)
    executor = SingleThreadedExecutor()
    executor.add_node(client.node)
    spinning = threading.Thread(target=_spin, args=(executor,), daemon=True)
    spinning.start()
    try:
        with RecordingWriter(outputs, overwrite=True) as writer:
            return client.play(writer, rate)
    finally:
        executor.shutdown()
        spinning.join()
        client.node.destroy_node()


def status_topic(node_name: str) -> str:
    return f"{node_name}/{topics.STATUS.removeprefix('~/')}"


def check_alone(client: Node, node_name: str) -> bool:
    """Whether a node of that name is active. Raises NotAloneError where several are."""
    count = client.count_publishers(status_topic(node_name))
    if count > 1:
        raise NotAloneError(count, node_name)
    return bool(count)


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


class _Client:
    """Publishers of the inputs and subscribers of the outputs of one camera of one node."""

    def __init__(self, recording: Recording, image_topic: str, node_name: str) -> None:
        self._recording, self._image_topic, self._node_name = recording, image_topic, node_name
        self._camera = camera_of(image_topic)
        namespace = node_name.rpartition("/")[0]  # the node's topics are relative
        self._topics = f"{namespace}/{self._camera}"
        self._node_seen = 0.0
        self._info_topic = topics.of(camera_prefix(image_topic), topics.CAMERA_INFO)
        self._compressed = recording.topics[image_topic].type == COMPRESSED_IMAGE_TYPE
        self._changed = threading.Condition()
        self._arrived: dict[int, set[str]] = {}
        """Of frames whose answers are not all back."""
        self._whole: set[int] = set()
        """The others."""
        self._played: dict[int, float] = {}
        """When each image was published, by header stamp."""
        self._answered = 0
        """Of those that were played, how many are whole."""
        self._mask_time: dict[int, float] = {}
        self._conditions: dict[int, Estimated] = {}
        self._status: CameraStatus | None = None
        self._status_count = 0
        self._stages_ms: dict[str, list[float]] = {}
        """Of each network, what the node said while it was played to: not its last word, which is of a few seconds, in
        which restoration may have had nothing to do."""
        self._work = 0
        """Frames that the node has processed: time limits begin anew with each."""
        self._writer: RecordingWriter | None = None
        self._error: RecordingError | LiveError | None = None
        """Met while listening, for the thread that plays."""
        self.node = Node("evaluate_bag")
        play_topic = topics.of(self._topics, topics.IMAGE) + (topics.COMPRESSED if self._compressed else "")
        self._image = self.node.create_publisher(CompressedImage if self._compressed else Image, play_topic, PLAY_QOS)
        self._info = self.node.create_publisher(CameraInfo, topics.of(self._topics, topics.CAMERA_INFO), PLAY_QOS)
        for output, topic in RECORDED.items():
            callback = partial(self._on_output, output)
            self.node.create_subscription(Image, topics.of(self._topics, topic), callback, PLAY_QOS, raw=True)
        self.node.create_subscription(
            ImageCondition, topics.of(self._topics, topics.CONDITION), self._on_condition, PLAY_QOS
        )
        self.node.create_subscription(PipelineStatus, status_topic(node_name), self._on_status, 10)

    def play(self, writer: RecordingWriter, rate: float | None) -> Played:
        result = Played()
        self._check_stamps()
        first, stamp = self._connect()
        self._node_seen = time.monotonic()
        if rate is None:
            result.rate, longest_s = self._rate_to_follow(first, stamp)
        else:
            result.rate, longest_s = rate, LONGEST_GAP_S / rate
        before = self._quiet()
        self._writer = writer
        published = self._played

        def done() -> bool:
            return self._error is not None or self._settled(before)

        try:
            result.damage = self._publish(result, longest_s)
            self._wait(done, SETTLE_S)
        except KeyboardInterrupt:
            if not published:
                raise
            result.interrupted = True
            self._wait(done, SETTLE_S)
        result.frames = len(published)
        with self._changed:
            if self._error is not None:
                raise self._error
            self._writer = None
            after = self._status
            whole = {stamp for stamp in published if self._is_back(stamp)}
            assert after is not None
            result.received = after.frames_received - before.frames_received
            result.processed = min(len(whole), after.frames_processed - before.frames_processed)
            result.dropped = _difference(before, after)
            result.stages_ms = {
                name: float(np.median(self._stages_ms[name])) for name in STAGES if name in self._stages_ms
            }
            result.latency_ms = {
                s: (self._mask_time[s] - published[s]) * 1e3 for s in published if s in self._mask_time
            }
            result.conditions = {stamp: self._conditions[stamp] for stamp in published if stamp in self._conditions}
            result.published = list(published)
            if whole:
                result.seconds = max(self._mask_time[stamp] for stamp in whole) - next(iter(published.values()))
        return result

    def _check_stamps(self) -> None:
        """Raises LiveError where the first two images have one stamp: a driver that does not stamp them, mostly."""
        first = islice(self._recording.messages([self._image_topic]), 2)
        try:
            stamps = [header_stamp(message.raw) for message in first]
        except RecordingError:
            return  # which `_first_usable` says
        if len(stamps) == 2 and stamps[0] == stamps[1]:
            raise LiveError(
                f"{self._image_topic}: the first two images have the same stamp, {stamps[0]} ns, so their outputs "
                "cannot be told apart; offline, without --live, they are scored in order"
            )

    def _publish(self, result: Played, longest_s: float) -> str | None:
        """The recording at its own pace; no image is waited for longer than `longest_s`. Returns what is wrong with it
        behind the last image."""
        begun, logged, into, published = 0.0, 0, 0.0, self._played
        with Progress(transient=True) as progress:
            count = self._recording.topics[self._image_topic].count
            what = f"playing {self._recording.path.name} to {self._node_name}"
            what += "" if result.rate == 1 else f" at {result.rate:.2g} of its rate"
            task = progress.add_task(escape(plain(what, 120)), total=count)
            try:
                for message in self._recording.messages([self._image_topic, self._info_topic]):
                    if message.topic == self._info_topic:
                        self._info.publish(message.raw)
                        continue
                    stamp = header_stamp(message.raw)
                    if stamp in published:
                        result.repeated += 1
                        continue
                    now = time.monotonic()
                    if not published:
                        begun, logged = now, message.stamp_ns
                    gap = (message.stamp_ns - logged) / 1e9
                    if gap > LONGEST_GAP_S:
                        result.cut_s += gap - LONGEST_GAP_S
                    into, logged = into + min(gap / result.rate, longest_s), message.stamp_ns
                    # An absolute schedule, which does not drift.
                    time.sleep(max(0.0, begun + into - now))
                    self._check_there()
                    published[stamp] = time.monotonic()
                    self._image.publish(message.raw)
                    progress.advance(task)
                    if self._error is not None:
                        break
            except RecordingError as error:
                return str(error)
        return None

    def _check_there(self) -> None:
        """Raises LiveError where the node went away: the rest of a long recording would be played to nobody; and
        NotAloneError where another came."""
        now = time.monotonic()
        if check_alone(self.node, self._node_name):
            self._node_seen = now
        elif now - self._node_seen > GONE_S:
            raise LiveError(f"{self._node_name} went away while it was played to; its log says why")

    def _first_usable(self) -> Message:
        """The first image that can be decoded, as the node will have to.

        Raises:
            LiveError: there is none; with what is wrong with the first.
        """
        wrong = "no image can be read from the recording"
        try:
            for index, message in enumerate(self._recording.messages([self._image_topic])):
                try:
                    decode(self._recording.deserialize(message))
                    return message
                except (ImageError, RecordingError) as error:
                    wrong = str(error) if index == 0 else wrong
        except RecordingError as error:
            wrong = str(error)
        raise LiveError(f"{self._image_topic}: no image can be used: {wrong}")

    def _connect(self) -> tuple[Message, int]:
        """Both ways: send a usable image under an earlier stamp until all its outputs are back. Discovery is
        asymmetric: that we see the node's topics does not mean that it sees ours. Returns image and stamp."""
        first = self._first_usable()
        if not self._wait(lambda: self._image.get_subscription_count() > 0, CONNECT_S):
            raise LiveError(
                f"nothing subscribes to {self._image.topic_name} within {CONNECT_S:.0f} s; is the node active, with "
                f"camera {self._camera!r} and image_transport {'compressed' if self._compressed else 'raw'}?"
            )
        stamp = min(max(header_stamp(first.raw) - 10**9, EARLIEST_NS + TRIALS), NEWEST_NS)
        begun = time.monotonic()
        while not self._is_back(stamp):
            # Its first frame may take long on a busy machine; until it is done, the node says that it has one.
            if time.monotonic() > begun + (FIRST_FRAME_S if self._in_work() else CONNECT_S):
                missing = sorted(ANSWERS - self._arrived.get(stamp, set()))
                raise LiveError(
                    f"{self._node_name} publishes no {', '.join(missing)} for camera {self._camera!r} within "
                    f"{CONNECT_S:.0f} s; its log and {self._node_name}/status say why"
                )
            self._image.publish(with_header_stamp(first.raw, stamp))
            self._wait(partial(self._is_back, stamp), 0.5)
            if self._error is not None:
                raise self._error
        return first, stamp

    def _rate_to_follow(self, first: Message, stamp: int) -> tuple[float, float]:
        """The recording's pace, or a slower one at which the node has time for each image: by how long it takes for
        one, and how far images lie apart. And how long an image is waited for at most, in seconds: where images were
        logged in bursts, or all at one time, slowing the recording down would stretch what lies between without end."""
        took = []
        for number in range(1, TRIALS + 1):
            self._quiet()
            begun, trial = time.monotonic(), stamp - number
            self._image.publish(with_header_stamp(first.raw, trial))
            if self._wait(partial(self._is_back, trial), SETTLE_S):
                took.append(time.monotonic() - begun)
        times = [message.stamp_ns for message in islice(self._recording.messages([self._image_topic]), SPACED)]
        if not took or len(times) < 2:
            return 1.0, LONGEST_GAP_S
        apart, needed = float(np.median(np.diff(times))) / 1e9, float(np.median(took)) / HEADROOM
        return min(1.0, max(SLOWEST, apart / needed)), max(LONGEST_GAP_S, needed)

    def _in_work(self) -> bool:
        """Whether the node has begun a frame, and finished none."""
        status = self._status
        return status is not None and status.frames_received > 0 and status.frames_processed == 0

    def _is_back(self, stamp: int) -> bool:
        """Whether all outputs of an image have arrived."""
        return stamp in self._whole

    def _came(self, stamp: int, output: str) -> None:
        if stamp in self._whole:
            return  # of an image that was sent twice, to connect
        there = self._arrived.setdefault(stamp, set())
        there.add(output)
        if there == ANSWERS:
            del self._arrived[stamp]
            self._whole.add(stamp)
            self._answered += stamp in self._played

    def _quiet(self) -> CameraStatus:
        """The node's status once it has nothing left to do."""
        previous: list[tuple[int, int]] = []

        def quiet() -> bool:
            if self._status is None or self._status_count == (previous[-1][1] if previous else -1):
                return False
            received = self._status.frames_received
            same = bool(previous) and previous[-1][0] == received
            previous.append((received, self._status_count))
            return same and bool(received == self._status.frames_processed + _dropped(self._status))

        is_quiet = self._wait(quiet, CONNECT_S)
        if not is_quiet or self._status is None:
            raise LiveError(
                f"{self._node_name}/status says nothing of camera {self._camera!r} within {CONNECT_S:.0f} s"
            )
        return self._status

    def _settled(self, before: CameraStatus) -> bool:
        """Every frame played is either back, whole, or reported as dropped."""
        status, played = self._status, len(self._played)
        if status is None or status.frames_received - before.frames_received < played:
            return False
        processed = status.frames_processed - before.frames_processed
        dropped = _dropped(status) - _dropped(before)
        return bool(processed + dropped >= played and self._answered >= processed)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Until the condition holds, or the node has done nothing for so long; the condition is asked again when
        something arrives, and every 50 ms. Raises NotAloneError where another node of the name is seen meanwhile."""
        deadline, work = time.monotonic() + timeout_s, self._work
        with self._changed:
            while not condition():
                check_alone(self.node, self._node_name)
                if self._work != work:
                    deadline, work = time.monotonic() + timeout_s, self._work
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.05))
        return True

    def _on_output(self, output: str, raw: bytes) -> None:
        now = time.monotonic()
        with self._changed:
            stamp = header_stamp(raw)
            self._came(stamp, output)
            if output == "mask":
                self._mask_time[stamp] = now
            if self._writer is not None:
                topic = "/" + topics.of(self._camera, RECORDED[output])
                try:
                    self._writer.write(topic, raw, IMAGE_TYPE, time.time_ns())
                except RecordingError as error:
                    self._writer, self._error = None, error
            self._changed.notify_all()

    def _on_condition(self, message: ImageCondition) -> None:
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        with self._changed:
            try:
                self._conditions[stamp] = of_message(message)
            except ValueError as error:
                self._error = LiveError(f"{self._node_name}: {error}")
            self._came(stamp, "condition")
            self._changed.notify_all()

    def _on_status(self, message: PipelineStatus) -> None:
        with self._changed:
            for camera in message.cameras:
                if camera.name == self._camera:
                    self._work = camera.frames_processed
                    self._status = camera
                    self._status_count += 1
                    if self._writer is not None:
                        for stage in camera.stages:
                            self._stages_ms.setdefault(stage.name, []).append(stage.median_ms)
            self._changed.notify_all()


def _dropped(status: CameraStatus) -> int:
    return sum(drop.count for drop in status.dropped)


def _difference(before: CameraStatus, after: CameraStatus) -> dict[str, int]:
    counts = {drop.reason: drop.count for drop in after.dropped}
    for drop in before.dropped:
        counts[drop.reason] -= drop.count
    return {reason: count for reason, count in counts.items() if count}
