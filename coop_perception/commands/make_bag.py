"""Command `make_bag`: the sample drive, or a folder of images with labels, becomes a recording with references."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from coop_perception.degradations import CONDITIONS
from coop_perception.exit_codes import one_line
from coop_perception.recordings.making import SAMPLE_FRAMES, Request, make_recording
from coop_perception.recordings.recording import RecordingError


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when the recording cannot be made.
    """
    options = _parser().parse_args(arguments)
    with one_line("make_bag", (RecordingError, ValueError, OSError), "no recording was made"):
        make_recording(Request(**vars(options)))


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
    add(
        "--references",
        type=Path,
        metavar="DIR",
        help="folder of clean images: --images are adverse already, each named as its clean image with more before or "
        "behind; --labels are named as the clean images",
    )
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


if __name__ == "__main__":
    main()
