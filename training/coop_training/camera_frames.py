"""Clear frames of one's own camera, out of recordings and folders: those that are fitted to, and those held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coop_perception.evaluation.evaluation import LEAST_SHARE
from coop_perception.image_files import image_files, read_image
from coop_perception.images import ImageError, decode, is_nearly_black, nearly_black
from coop_perception.recordings.cameras import find_image_topic
from coop_perception.recordings.recording import Recording, RecordingError
from coop_training.evaluation import spread

HELD_OUT = 0.25
"""The last share of each recording: its frames differ from the others by more than neighbours do."""
LEAST = 8

Pixels = NDArray[np.uint8]


class CameraError(ValueError):
    """Too few frames; the message says how many there are."""


@dataclass(frozen=True, slots=True)
class CameraFrames:
    """uint8 [h,w,3] RGB each. `incomplete`: the sources of which much cannot be read, in words."""

    fitted: list[Pixels]
    held: list[Pixels]
    incomplete: tuple[str, ...] = ()


def read_camera(
    bags: Sequence[Path], folders: Sequence[Path], topic: str | None, count: int, say: Callable[[str], object]
) -> CameraFrames:
    """About `count` frames, as many of each source, evenly spread over it.

    Args:
        bags: recordings.
        folders: of images, whose names are in the order in which they were taken.
        topic: of the camera's images; None: the only one that a recording has.
        count: of all frames, those held out included.
        say: gets a line about each source.

    Raises:
        RecordingError: a recording has no such topic, or cannot be read at all.
        DatasetError: a folder has no image, or one cannot be read.
        CameraError: there are fewer than LEAST frames, or none but those held out.
    """
    wanted = max(count // max(len(bags) + len(folders), 1), 2)
    fitted: list[Pixels] = []
    held: list[Pixels] = []
    incomplete = []
    for source in (*bags, *folders):
        frames, chosen = _recorded(source, topic, wanted, say) if source in bags else _in_folder(source, wanted)
        if len(frames) < LEAST_SHARE * chosen:
            incomplete.append(f"{source}: only {len(frames)} of {chosen} frames that were chosen can be read")
        last = max(round(HELD_OUT * len(frames)), 1)
        fitted += frames[:-last]
        held += frames[-last:]
        say(f"{source}: {len(frames)} frames, the last {min(last, len(frames))} of them held out")
        if dark := sum(map(is_nearly_black, frames)):
            say(f"warning: {source}: {nearly_black(dark, len(frames))}")
    sources = ", ".join(map(str, (*bags, *folders)))
    if len(fitted) + len(held) < LEAST:
        raise CameraError(
            f"{sources}: {len(fitted) + len(held)} frames that can be read, expected {LEAST} at least; give more "
            "recordings of the camera"
        )
    if not fitted:
        raise CameraError(
            f"{sources}: one frame of each, which is held out, so that there is none to fit to; give more frames of "
            "each, or folders together"
        )
    return CameraFrames(fitted, held, tuple(incomplete))


def _recorded(path: Path, topic: str | None, wanted: int, say: Callable[[str], object]) -> tuple[list[Pixels], int]:
    """Those of the chosen frames that can be read, and how many were chosen."""
    frames: list[Pixels] = []
    with Recording(path) as recording:
        name = find_image_topic(recording, topic)
        total = recording.expected(name)
        chosen = set(spread(total, min(wanted, total)))
        try:
            for index, message in enumerate(recording.messages([name])):
                if index not in chosen:
                    continue
                try:
                    frames.append(decode(recording.deserialize(message)))
                except ImageError as error:
                    say(f"{path}: left out: {name}, image {index}: {error}")
        except RecordingError as error:
            say(str(error))
    return frames, len(chosen)


def _in_folder(folder: Path, wanted: int) -> tuple[list[Pixels], int]:
    paths = sorted(image_files(folder))
    frames = [read_image(paths[index]) for index in spread(len(paths), min(wanted, len(paths)))]
    return frames, len(frames)
