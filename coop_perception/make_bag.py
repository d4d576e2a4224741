"""Command `make_bag`: the sample drive, or a folder of images with labels, becomes a recording with references."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
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
from coop_perception.labelled_images import Pair, find_pairs, read_image, read_pair
from coop_perception.recordings import (
    CAMERA_INFO_TYPE,
    COMPRESSED_IMAGE_TYPE,
    IMAGE_TYPE,
    RecordingError,
    RecordingWriter,
    camera_info_message,
    compressed_image_message,
    image_message,
    reference_image_topic,
    reference_mask_topic,
)
from coop_perception.sample_drive import SampleDrive

SAMPLE_WIDTH, SAMPLE_HEIGHT = 480, 360
SAMPLE_FRAMES = 150
START_NS = 1_700_000_000 * 10**9
"""Stamp of the first frame: fixed, so that equal arguments give equal recordings."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """A clear image, uint8 [H,W,3] RGB, and what is known of it: mask uint8 [H,W], depth float32 [H,W] in metres."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    depth: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Source:
    frames: Iterator[_Frame]
    count: int
    intrinsics: Intrinsics


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when the recording cannot be made.
    """
    options = _parser().parse_args(arguments)
    try:
        _make_bag(options)
    except (RecordingError, ValueError, OSError) as error:
        raise SystemExit(f"make_bag: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("make_bag: interrupted; no recording was made") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make_bag",
        description="Makes a rosbag2 recording of one camera from the sample drive or a folder of images. Besides the "
        "camera's images and camera_info it holds <camera>/reference/image, the clear image, and "
        "<camera>/reference/mask, the true class ids (255 = not scored), with equal stamps per frame.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="directory of the recording")
    add("--force", action="store_true", help="replace an earlier recording at --out")
    add("--images", type=Path, metavar="DIR", help="folder of images, taken by name (default: the sample drive)")
    add("--labels", type=Path, metavar="DIR", help="folder of labels NAME.png: CamVid ids, 11 or 255 = not scored")
    add("--condition", choices=tuple(CONDITIONS), help="adverse condition of the camera's images (default: clear)")
    add("--level", type=int, metavar="N", help="level of the condition, from 1 (mild); default 2")
    add("--rate", type=_number(float, 0.001), default=15.0, metavar="HZ", help="frames per second (default 15)")
    add(
        "--frames",
        type=_number(int, 1),
        metavar="N",
        help=f"at most N frames (default: all, {SAMPLE_FRAMES} of the drive)",
    )
    add(
        "--seed",
        type=_number(int, 0),
        default=0,
        metavar="N",
        help="of the sample drive and of the condition (default 0)",
    )
    add("--camera", type=_camera, default="front", metavar="NAME", help="name of the camera (default front)")
    add("--compressed", action="store_true", help="JPEG on <camera>/image_raw/compressed instead of raw images")
    add("--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format (default mcap)")
    return parser


def _make_bag(options: argparse.Namespace) -> None:
    level = _level(options.condition, options.level)
    if options.labels is not None and options.images is None:
        raise ValueError("--labels are those of --images, which is missing")
    needs_depth = options.condition is not None and CONDITIONS[options.condition].needs_depth
    if needs_depth and options.images is not None and options.labels is None:
        raise ValueError(f"--condition {options.condition} needs depth, which comes from labels: give --labels as well")
    with RecordingWriter(options.out, options.storage, overwrite=options.force) as writer:
        if options.images is None:
            source = _sample_drive(options.seed, options.rate, options.frames or SAMPLE_FRAMES)
        else:
            source = _folder(find_pairs(options.images, options.labels)[: options.frames], needs_depth)
        console = Console(stderr=True)
        frames = track(source.frames, "Recording", source.count, console=console)
        for index, frame in enumerate(frames):
            image = frame.image
            if options.condition is not None:
                image = degrade(
                    image,
                    options.condition,
                    level,
                    seed=options.seed,
                    frame=index,
                    depth=frame.depth,
                    intrinsics=source.intrinsics,
                )
            stamp_ns = START_NS + round(index * 1e9 / options.rate)
            _write(writer, f"/{options.camera}", image, frame, source.intrinsics, stamp_ns, options.compressed)
    what = "clear" if options.condition is None else f"{options.condition} level {level}"
    console.print(
        f"{options.out}: {source.count} frames, {what}, camera {options.camera}", highlight=False, soft_wrap=True
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
    height, width = read_image(pairs[0].image).shape[:2]
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


def _number(kind: type[int] | type[float], lowest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' * (kind is int)}number") from None
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is below {lowest}, or infinite")
        return value

    return parse


def _camera(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]\w*(/[A-Za-z]\w*)*", text, re.ASCII):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ROS name: letters, digits and _ only, e.g. front or left/front"
        )
    return text
