"""Command `make_bag`: the sample drive, images with labels, or videos become a recording; one becomes adverse."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from coop_perception.arguments import command_parser
from coop_perception.degradations import CONDITIONS
from coop_perception.exit_codes import one_line
from coop_perception.recordings.making import SAMPLE_FRAMES, Request, make_recording
from coop_perception.recordings.recording import RecordingError
from coop_perception.recordings.sources import RATE

DESCRIPTION = """\
Makes a rosbag2 recording from the sample drive, folders of images, or videos, clear or adverse;
or makes an existing recording adverse.

Besides each camera's images and camera_info it holds <camera>/reference/image, the clear image, and
<camera>/reference/mask, the true class ids (255 = not scored), with equal stamps per frame."""
NOTES = """\
What is repeated for several cameras (--images, --labels, --references) is in the order of --camera.
On the sample drive each camera after the first has a street of its own: that of the next seed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when the recording cannot be made.
    """
    options = _parser().parse_args(arguments)
    options.camera = options.camera or ["front"]
    with one_line("make_bag", (RecordingError, ValueError, OSError), "no recording was made"):
        make_recording(Request(**vars(options)))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "make_bag", DESCRIPTION, "make_bag --out out/foggy --condition fog --level 2 --frames 60", notes=NOTES
    )
    source = parser.add_argument_group("what it is made of (default: the sample drive)").add_argument
    source(
        "--images",
        type=Path,
        action="append",
        default=[],
        metavar="DIR|VIDEO",
        help="folder of images, taken by name, or a video (mp4); once for each camera",
    )
    source(
        "--labels",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of labels NAME.png: class ids of --bundle or, without it, CamVid's; 255 (CamVid: 11 too) = not "
        "scored",
    )
    source(
        "--references",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of clean images: --images are adverse already, each named as its clean image with more before or "
        "behind; --labels are named as the clean images",
    )
    source("--bag", type=Path, metavar="DIR", help="recording whose camera is made adverse; all else in it is copied")
    source("--image-topic", "--topic", metavar="NAME", help="camera topic of --bag, where it has several")
    source(
        "--bundle", type=Path, metavar="DIR", help="model bundle whose classes labels and masks have (default: CamVid)"
    )
    source(
        "--frames",
        type=_number(int, 1),
        metavar="N",
        help=f"at most N frames (default: all, {SAMPLE_FRAMES} of the drive, which goes on for ever)",
    )
    source(
        "--seed",
        type=_number(int, 0),
        default=0,
        metavar="N",
        help="of the sample drive and of the conditions (default: 0)",
    )
    weather = parser.add_argument_group("conditions (default: clear)").add_argument
    weather(
        "--condition",
        choices=tuple(CONDITIONS),
        action="append",
        default=[],
        metavar="NAME",
        help=f"adverse condition: {', '.join(CONDITIONS)}; several at once where it is repeated",
    )
    weather(
        "--level",
        type=_number(int, 0),
        action="append",
        default=[],
        metavar="N",
        help="level of the condition, from 1 (mild); default 2; once for all, or once for each --condition",
    )
    weather(
        "--schedule", type=Path, metavar="FILE", help="YAML: which conditions when, with ramps (docs/conditions.md)"
    )
    written = parser.add_argument_group("what is written").add_argument
    written("--out", type=Path, required=True, metavar="DIR", help="directory of the recording")
    written("--force", action="store_true", help="replace an earlier recording at --out")
    written(
        "--rate",
        type=_number(float, 0.001),
        metavar="HZ",
        help=f"frames per second (default: {RATE:g}, or a video's own)",
    )
    written("--camera", type=_camera, action="append", metavar="NAME", help="name of a camera (default: front)")
    written(
        "--depth", action="store_true", help="<camera>/depth/image_raw as well, as far as it is known (32FC1, metres)"
    )
    written("--compressed", action="store_true", help="JPEG on <camera>/image_raw/compressed instead of raw images")
    written("--storage", choices=("mcap", "sqlite3"), default="mcap", help="file format (default: mcap)")
    return parser


def _number(kind: type[int] | type[float], lowest: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        if not lowest <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r}: expected a {'whole ' * (kind is int)}number, {lowest} or more")
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
