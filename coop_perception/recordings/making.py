"""The sample drive, or a folder of images with labels, becomes a recording with references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.depth import depth_from_labels
from coop_perception.image_files import read_image
from coop_perception.recordings.cameras import reference_image_topic, reference_mask_topic
from coop_perception.recordings.labelled_folders import Pair, find_pairs, find_references, read_pair
from coop_perception.recordings.messages import (
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    camera_info_message,
    compressed_image_message,
    image_message,
)
from coop_perception.recordings.writer import RecordingWriter, Storage
from coop_perception.sample_scene.drive import SampleDrive

SAMPLE_WIDTH, SAMPLE_HEIGHT = 480, 360
SAMPLE_FRAMES = 150
START_NS = 1_700_000_000 * 10**9
"""Stamp of the first frame: fixed, so that equal arguments give equal recordings."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A clear image, uint8 [H,W,3] RGB, and what is known of it: mask uint8 [H,W], depth float32 [H,W] in metres, and
    how the camera saw it, where that is another image."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    depth: NDArray[np.float32] | None = None
    seen: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class _Source:
    frames: Iterator[_Frame]
    count: int
    intrinsics: Intrinsics


@dataclass(frozen=True, slots=True)
class Request:
    """What recording is wanted; each field is the argument of `make_bag` of the same name, with its meaning there."""

    out: Path
    force: bool = False
    images: Path | None = None
    labels: Path | None = None
    references: Path | None = None
    condition: str | None = None
    level: int | None = None
    rate: float = 15.0
    frames: int | None = None
    seed: int = 0
    camera: str = "front"
    compressed: bool = False
    storage: Storage = "mcap"


def make_recording(request: Request) -> None:
    """Make it, with progress and a line about what was made.

    Raises:
        RecordingError: it cannot be written.
        ValueError: arguments do not go together, or an image or label cannot be used.
    """
    level = _level(request.condition, request.level)
    if request.labels is not None and request.images is None:
        raise ValueError("--labels are those of --images, which is missing")
    if request.references is not None and (request.images is None or request.condition is not None):
        raise ValueError("--references are the clean images of --images that are adverse already: without --condition")
    needs_depth = request.condition is not None and CONDITIONS[request.condition].needs_depth
    if needs_depth and request.images is not None and request.labels is None:
        raise ValueError(f"--condition {request.condition} needs depth, which comes from labels: give --labels as well")
    with RecordingWriter(request.out, request.storage, overwrite=request.force) as writer:
        if request.images is None:
            source = _sample_drive(request.seed, request.rate, request.frames or SAMPLE_FRAMES)
        elif request.references is not None:
            source = _ready_made(request.images, request.references, request.labels, request.frames)
        else:
            source = _folder(find_pairs(request.images, request.labels)[: request.frames], needs_depth)
        console = Console(stderr=True, markup=False)
        frames = track(source.frames, "Recording", source.count, console=console)
        for index, frame in enumerate(frames):
            image = frame.image if frame.seen is None else frame.seen
            if request.condition is not None:
                image = degrade(
                    image,
                    request.condition,
                    level,
                    seed=request.seed,
                    frame=index,
                    depth=frame.depth,
                    intrinsics=source.intrinsics,
                )
            stamp_ns = START_NS + round(index * 1e9 / request.rate)
            _write(writer, f"/{request.camera}", image, frame, source.intrinsics, stamp_ns, request.compressed)
    what = "clear" if request.condition is None else f"{request.condition} level {level}"
    what = what if request.references is None else "as given"
    console.print(
        f"{request.out}: {source.count} frames, {what}, camera {request.camera}", highlight=False, soft_wrap=True
    )


def _write(
    writer: RecordingWriter,
    prefix: str,
    image: NDArray[np.uint8],
    clear: _Frame,
    intrinsics: Intrinsics,
    stamp_ns: int,
    compressed: bool,
) -> None:
    """One frame: its image as the camera sees it, and the references."""
    frame_id = f"{prefix[1:].replace('/', '_')}_optical_frame"
    topic = f"{prefix}/image_raw"

    def write(name: str, message: Any, type_name: str) -> None:
        writer.write(name, message, type_name, stamp_ns)

    if compressed:
        message = compressed_image_message(image, "jpeg", frame_id, stamp_ns)
        write(f"{topic}/compressed", message, COMPRESSED_IMAGE_TYPE)
    else:
        write(topic, image_message(image, "rgb8", frame_id, stamp_ns), IMAGE_TYPE)
    write(f"{prefix}/camera_info", camera_info_message(intrinsics, frame_id, stamp_ns), CAMERA_INFO_TYPE)
    write(reference_image_topic(topic), image_message(clear.image, "rgb8", frame_id, stamp_ns), IMAGE_TYPE)
    if clear.mask is not None:
        write(reference_mask_topic(topic), image_message(clear.mask, "mono8", frame_id, stamp_ns), IMAGE_TYPE)


def _sample_drive(seed: int, rate: float, count: int) -> _Source:
    drive = SampleDrive(seed=seed, width=SAMPLE_WIDTH, height=SAMPLE_HEIGHT, rate=rate)

    def frames() -> Iterator[_Frame]:
        for index in range(count):
            frame = drive.frame(index)
            yield _Frame(frame.image, frame.mask, frame.depth)

    return _Source(frames(), count, drive.intrinsics)


def _folder(pairs: Sequence[Pair], needs_depth: bool) -> _Source:
    height, width = read_pair(pairs[0])[1].shape
    intrinsics = Intrinsics.from_fov(width, height)

    def frames() -> Iterator[_Frame]:
        for pair in pairs:
            image, mask = read_pair(pair)
            if image.shape[:2] != (height, width):
                raise ValueError(
                    f"{pair.image}: is {image.shape[1]}x{image.shape[0]}, the first image {width}x{height}; "
                    "one camera's images have one size"
                )
            depth = depth_from_labels(mask, image, intrinsics) if needs_depth else None
            yield _Frame(image, None if pair.label is None else mask, depth)

    return _Source(frames(), len(pairs), intrinsics)


def _ready_made(images: Path, references: Path, labels: Path | None, most: int | None) -> _Source:
    """Adverse images with their clean ones, whose labels these are."""
    found = list(find_references(images, references).items())[:most]
    labelled = {pair.image: pair for pair in find_pairs(sorted({clean for _, clean in found}), labels)}
    height, width = read_image(found[0][0]).shape[:2]

    def frames() -> Iterator[_Frame]:
        for adverse, clean in found:
            image, mask = read_pair(labelled[clean])
            seen = read_image(adverse)
            for path, one in ((adverse, seen), (clean, image)):
                if one.shape[:2] != (height, width):
                    raise ValueError(
                        f"{path}: is {one.shape[1]}x{one.shape[0]}, the first image {width}x{height}; one camera's "
                        "images and their clean ones have one size"
                    )
            yield _Frame(image, None if labels is None else mask, seen=seen)

    return _Source(frames(), len(found), Intrinsics.from_fov(width, height))


def _level(condition: str | None, level: int | None) -> int:
    if condition is None:
        if level is not None:
            raise ValueError("--level is that of a --condition, which is missing")
        return 0
    levels = len(CONDITIONS[condition].levels)
    level = 2 if level is None else level
    if not 1 <= level <= levels:
        raise ValueError(f"--level {level}: {condition} has levels 1 to {levels}")
    return level
