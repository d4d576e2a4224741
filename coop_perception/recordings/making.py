"""The sample drive, folders of images with labels, or videos become a recording with references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coop_perception import topics
from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, SemanticClass
from coop_perception.degradations import CONDITIONS, degrade_by
from coop_perception.exit_codes import IncompleteError
from coop_perception.images import is_nearly_black, nearly_black
from coop_perception.model.bundle import load_bundle
from coop_perception.recordings import sources
from coop_perception.recordings.adverse import make_adverse
from coop_perception.recordings.cameras import reference_condition_topic, reference_image_topic, reference_mask_topic
from coop_perception.recordings.labelled_folders import odd_pairs
from coop_perception.recordings.messages import (
    APPLIED_TYPE,
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    applied_message,
    camera_info_message,
    compressed_image_message,
    depth_message,
    image_message,
)
from coop_perception.recordings.schedule import Schedule, always, read_schedule
from coop_perception.recordings.sources import Frame, Source
from coop_perception.recordings.writer import RecordingWriter, Storage

SAMPLE_FRAMES = 150
START_NS = 1_700_000_000 * 10**9
"""Stamp of the first frame: fixed, so that equal arguments give equal recordings."""


@dataclass(frozen=True, slots=True)
class Request:
    """What recording is wanted; each field is the argument of `make_bag` of the same name, with its meaning there."""

    out: Path
    force: bool = False
    images: Sequence[Path] = ()
    labels: Sequence[Path] = ()
    references: Sequence[Path] = ()
    bag: Path | None = None
    image_topic: str | None = None
    bundle: Path | None = None
    condition: Sequence[str] = ()
    level: Sequence[int] = ()
    schedule: Path | None = None
    rate: float | None = None
    frames: int | None = None
    seed: int = 0
    camera: Sequence[str] = field(default=("front",))
    depth: bool = False
    compressed: bool = False
    storage: Storage = "mcap"


def make_recording(request: Request) -> None:
    """Make it, with progress and a line about what was made.

    Raises:
        RecordingError: it cannot be written, or the one to be made adverse cannot be read.
        IncompleteError: it was made, but much of what was to be made adverse cannot be read.
        ValueError: arguments do not go together, or an image, label, video or schedule cannot be used.
    """
    schedule = _schedule(request)
    classes = CAMVID_CLASSES if request.bundle is None else load_bundle(request.bundle).classes
    console = Console(stderr=True, markup=False)

    def say(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True)

    if request.bag is not None:
        _check_bag(request, schedule)
        with RecordingWriter(request.out, request.storage, overwrite=request.force) as writer:
            missing = make_adverse(request.bag, request.image_topic, schedule, request.seed, classes, writer, console)
        say(f"{request.out}: {request.bag} with {_described(request, schedule)}")
        if missing:
            raise IncompleteError(missing)
        return
    _check(request, schedule)
    with RecordingWriter(request.out, request.storage, overwrite=request.force) as writer:
        cameras = dict(zip(request.camera, _sources(request, schedule, classes), strict=True))
        rate = _rate(cameras)
        written, dark = _write_frames(writer, request, schedule, cameras, rate, console)
    names = f"camera{'s' * (len(cameras) > 1)} {', '.join(cameras)}"
    say(f"{request.out}: {written} frames, {_described(request, schedule)}, {names}")
    for images, labels in zip(() if request.references else request.images, request.labels, strict=False):
        for line in odd_pairs(images, labels):
            say(f"warning: {line}")
    for camera, count in dark.items():
        say(f"warning: {camera}: {nearly_black(count, written)}")
    if schedule.unit == "seconds" and request.schedule is not None and schedule.end > written / rate:
        say(f"{request.schedule}: goes on to {schedule.end:g} s, the recording ends after {written / rate:g} s")


def _write_frames(
    writer: RecordingWriter,
    request: Request,
    schedule: Schedule,
    cameras: Mapping[str, Source],
    rate: float,
    console: Console,
) -> tuple[int, Counter[str]]:
    """All cameras' frames, in step; returns how many there are of the longest, and by camera how many came nearly
    black."""
    most = max(source.count for source in cameras.values())
    if schedule.unit == "share" and not most:
        raise ValueError(f"{request.schedule}: unit is share, but the video does not say its length: give --frames")
    written, dark = 0, Counter[str]()
    rows = zip_longest(*(source.frames for source in cameras.values()))
    for index, row in enumerate(track(rows, "Recording", most, console=console)):
        stamp_ns = START_NS + round(index * 1e9 / rate)
        at = index / rate, index / most if most else 0.0
        parameters = schedule.parameters(*at)
        for number, ((camera, source), frame) in enumerate(zip(cameras.items(), row, strict=True)):
            if frame is not None:
                image = frame.image if frame.seen is None else frame.seen
                if is_nearly_black(image):
                    dark[camera] += 1
                image = degrade_by(
                    image,
                    parameters,
                    seed=request.seed + number,
                    frame=index,
                    depth=frame.depth,
                    intrinsics=source.intrinsics,
                )
                _write(writer, f"/{camera}", image, frame, source.intrinsics, stamp_ns, request)
                if schedule.segments:
                    message = applied_message(schedule.levels(*at), _frame_id(f"/{camera}"), stamp_ns)
                    topic = reference_condition_topic(f"/{camera}/image_raw")
                    writer.write(topic, message, APPLIED_TYPE, stamp_ns)
        written = index + 1
    return written, dark


def _rate(cameras: Mapping[str, Source]) -> float:
    rates = {source.rate for source in cameras.values()}
    if len(rates) > 1:
        found = ", ".join(f"{camera} {source.rate:g}" for camera, source in cameras.items())
        raise ValueError(f"the cameras' frames per second differ ({found}): give --rate, at which all are recorded")
    return rates.pop()


def _write(
    writer: RecordingWriter,
    prefix: str,
    image: NDArray[np.uint8],
    clear: Frame,
    intrinsics: Intrinsics,
    stamp_ns: int,
    request: Request,
) -> None:
    """One frame of a camera: its image as the camera sees it, and the references."""
    frame_id = _frame_id(prefix)
    topic = f"{prefix}/image_raw"

    def write(name: str, message: Any, type_name: str) -> None:
        writer.write(name, message, type_name, stamp_ns)

    if request.compressed:
        message = compressed_image_message(image, "jpeg", frame_id, stamp_ns)
        write(f"{topic}/compressed", message, COMPRESSED_IMAGE_TYPE)
    else:
        write(topic, image_message(image, "rgb8", frame_id, stamp_ns), IMAGE_TYPE)
    write(f"{prefix}/camera_info", camera_info_message(intrinsics, frame_id, stamp_ns), CAMERA_INFO_TYPE)
    write(reference_image_topic(topic), image_message(clear.image, "rgb8", frame_id, stamp_ns), IMAGE_TYPE)
    if clear.mask is not None:
        write(reference_mask_topic(topic), image_message(clear.mask, "mono8", frame_id, stamp_ns), IMAGE_TYPE)
    if request.depth and clear.depth is not None:
        write(topics.of(prefix, topics.DEPTH), depth_message(clear.depth, frame_id, stamp_ns), IMAGE_TYPE)


def _frame_id(prefix: str) -> str:
    return f"{prefix[1:].replace('/', '_')}_optical_frame"


def _sources(request: Request, schedule: Schedule, classes: Sequence[SemanticClass]) -> Iterator[Source]:
    """By camera."""
    most, rate = request.frames, request.rate
    for number in range(len(request.camera)):
        if not request.images:
            yield sources.sample_drive(request.seed + number, rate, most or SAMPLE_FRAMES, classes)
            continue
        images = request.images[number]
        labels = request.labels[number] if request.labels else None
        if images.is_file():
            yield sources.video(images, most, rate)
        elif request.references:
            yield sources.ready_made(images, request.references[number], labels, most, rate, classes)
        else:
            yield sources.folder(images, labels, most, rate, schedule.needs_depth or request.depth, classes)


def _check(request: Request, schedule: Schedule) -> None:
    """What goes together, where no recording is made adverse."""
    if request.image_topic is not None:
        raise ValueError("--image-topic is one of --bag's, which is missing")
    cameras = len(request.camera)
    if len(set(request.camera)) < cameras:
        raise ValueError(f"--camera {', '.join(request.camera)}: expected distinct names")
    for name, given in (("images", request.images), ("labels", request.labels), ("references", request.references)):
        if given and len(given) != cameras:
            raise ValueError(
                f"{len(given)} --{name} for {cameras} --camera: each camera has its own, in the same order"
            )
    if request.labels and not request.images:
        raise ValueError("--labels are those of --images, which is missing")
    if request.references and (not request.images or schedule.segments):
        raise ValueError("--references are the clean images of --images that are adverse already: without --condition")
    if request.references and request.depth:
        raise ValueError("--depth does not go with --references: of adverse images it is not known")
    for images in request.images:
        if images.is_file() and (request.labels or request.references):
            raise ValueError(f"--images {images} is a video: it has neither --labels nor --references")
    if request.images and not request.labels:
        needing = [name for name in schedule.conditions if CONDITIONS[name].needs_depth]
        if needing:
            raise ValueError(f"--condition {needing[0]} needs depth, which comes from labels: give --labels as well")
        if request.depth:
            raise ValueError("--depth comes from labels, or from the sample drive: give --labels as well")


def _check_bag(request: Request, schedule: Schedule) -> None:
    others = {
        "images": request.images,
        "labels": request.labels,
        "references": request.references,
        "rate": request.rate,
        "frames": request.frames,
        "depth": request.depth,
        "compressed": request.compressed,
    }
    for name, value in others.items():
        if value:
            raise ValueError(f"--{name} does not go with --bag, whose messages stay as they are but for the images")
    if not schedule.segments:
        raise ValueError("--bag is the recording to be made adverse: give --condition or --schedule as well")
    assert request.bag is not None
    out, bag = request.out.resolve(), request.bag.resolve()
    if out == bag or out in bag.parents or bag in out.parents:
        raise ValueError(f"--out {request.out} is, holds or lies in --bag {request.bag}; choose another place")


def _schedule(request: Request) -> Schedule:
    if request.schedule is not None:
        if request.condition or request.level:
            raise ValueError("--schedule says conditions and levels: without --condition and --level")
        return read_schedule(request.schedule)
    if not request.condition:
        if request.level:
            raise ValueError("--level is that of a --condition, which is missing")
        return Schedule(())
    twice = [name for name in request.condition if request.condition.count(name) > 1]
    if twice:
        raise ValueError(f"--condition {twice[0]} is given twice")
    if len(request.level) > 1 and len(request.level) != len(request.condition):
        raise ValueError(
            f"{len(request.level)} --level for {len(request.condition)} --condition: give one for all, or one for each"
        )
    given = list(request.level) or [2]
    levels = given * len(request.condition) if len(given) == 1 else given
    for name, level in zip(request.condition, levels, strict=True):
        highest = len(CONDITIONS[name].levels)
        if not 1 <= level <= highest:
            raise ValueError(f"--level {level}: {name} has levels 1 to {highest}")
    return always(dict(zip(request.condition, levels, strict=True)))


def _described(request: Request, schedule: Schedule) -> str:
    if request.references:
        return "as given"
    if request.schedule is not None:
        return f"{', '.join(schedule.conditions) or 'clear'} by {request.schedule}"
    return ", ".join(f"{s.condition} level {s.ramp[0]:g}" for s in schedule.segments) or "clear"
