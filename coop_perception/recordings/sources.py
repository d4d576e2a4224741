"""What recordings are made of: the sample drive, folders of images, videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.camera import Intrinsics
from coop_perception.classes import CAMVID_CLASSES, SemanticClass, translation
from coop_perception.degradations.street import NO_STREET, depth_from_street_labels, is_street
from coop_perception.image_files import DatasetError, read_image
from coop_perception.recordings.labelled_folders import Pair, find_pairs, find_references, label_ids, read_pair
from coop_perception.sample_scene.drive import SampleDrive

SAMPLE_WIDTH, SAMPLE_HEIGHT = 480, 360
RATE = 15.0
"""Frames per second of what has no rate of its own."""
LEAST_READ = 0.9
"""Of the frames that a video says it has."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A clear image, uint8 [H,W,3] RGB, and what is known of it: mask uint8 [H,W], depth float32 [H,W] in metres, and
    how the camera saw it, where that is another image."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    depth: NDArray[np.float32] | None = None
    seen: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Frames of one camera, about how many there are (0: unknown), its intrinsics, and frames per second."""

    frames: Iterator[Frame]
    count: int
    intrinsics: Intrinsics
    rate: float


def sample_drive(seed: int, rate: float | None, count: int, classes: Sequence[SemanticClass]) -> Source:
    """So many frames of a drive; masks hold the ids of these classes, as far as CamVid's are among them."""
    drive = SampleDrive(seed=seed, width=SAMPLE_WIDTH, height=SAMPLE_HEIGHT, rate=rate or RATE)
    ids = translation(CAMVID_CLASSES, classes)

    def frames() -> Iterator[Frame]:
        for index in range(count):
            frame = drive.frame(index)
            yield Frame(frame.image, ids[frame.mask], frame.depth)

    return Source(frames(), count, drive.intrinsics, drive.rate)


def folder(
    images: Path,
    labels: Path | None,
    most: int | None,
    rate: float | None,
    needs_depth: bool,
    classes: Sequence[SemanticClass],
) -> Source:
    """A folder of images with labels of these classes, in order of their names.

    Raises:
        DatasetError: a file cannot be used, or depth is needed and the classes do not say what is ground and sky.
    """
    pairs = find_pairs(images, labels)[:most]
    ids = label_ids(classes)
    height, width = read_pair(pairs[0], ids)[1].shape
    intrinsics = Intrinsics.from_fov(width, height)
    if needs_depth:
        check_street(classes)

    def frames() -> Iterator[Frame]:
        for pair in pairs:
            image, mask = read_pair(pair, ids)
            _check_size(pair.image, image, (height, width), "one camera's images have one size")
            depth = depth_from_street_labels(mask, image, intrinsics, classes) if needs_depth else None
            yield Frame(image, None if pair.label is None else mask, depth)

    return Source(frames(), len(pairs), intrinsics, rate or RATE)


def ready_made(
    images: Path,
    references: Path,
    labels: Path | None,
    most: int | None,
    rate: float | None,
    classes: Sequence[SemanticClass],
) -> Source:
    """Adverse images with their clean ones, whose labels these are.

    Raises:
        DatasetError: a file cannot be used.
    """
    found = list(find_references(images, references).items())[:most]
    labelled: dict[Path, Pair] = {pair.image: pair for pair in find_pairs(sorted({c for _, c in found}), labels)}
    height, width = read_image(found[0][0]).shape[:2]
    ids = label_ids(classes)

    def frames() -> Iterator[Frame]:
        for adverse, clean in found:
            image, mask = read_pair(labelled[clean], ids)
            seen = read_image(adverse)
            for path, one in ((adverse, seen), (clean, image)):
                _check_size(path, one, (height, width), "one camera's images and their clean ones have one size")
            yield Frame(image, None if labels is None else mask, seen=seen)

    return Source(frames(), len(found), Intrinsics.from_fov(width, height), rate or RATE)


def video(path: Path, most: int | None, rate: float | None) -> Source:
    """The frames of a video file, at its own rate unless one is given.

    Raises:
        DatasetError: it cannot be read, or, at its end, much less of it than it says it has.
    """
    # Not through its other backends, which take a path with % in it for that of a sequence of images.
    capture = cv2.VideoCapture(str(path.resolve()), cv2.CAP_FFMPEG)
    promised, own = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    there, first = capture.read()
    if not there:
        raise DatasetError(f"{path}: no frame can be read as a video; expected a folder of images, or a video (mp4)")
    if rate is None and not (np.isfinite(own) and own > 0):
        raise DatasetError(f"{path}: does not say its frames per second; give --rate")
    height, width = first.shape[:2]
    count = min(promised, most or promised) if promised > 0 else most or 0

    def frames() -> Iterator[Frame]:
        read, (there, bgr) = 0, (True, first)
        while there and (most is None or read < most):
            yield Frame(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), None)
            read += 1
            there, bgr = capture.read()
        capture.release()
        if read < LEAST_READ * count:
            raise DatasetError(
                f"{path}: only {read} of {count} frames can be read; the file is damaged or cut off, copy it again, or "
                f"take --frames {read}"
            )

    return Source(frames(), count, Intrinsics.from_fov(width, height), rate or float(own))


def check_street(classes: Sequence[SemanticClass]) -> None:
    """Whether depth can be made up from labels of these classes.

    Raises:
        DatasetError: they do not say what is ground and sky.
    """
    if not is_street(classes):
        names = ", ".join(c.name for c in classes)
        raise DatasetError(
            f"fog and rain need depth, which is made up from labels; {NO_STREET}, or take another condition ({names})"
        )


def _check_size(path: Path, image: NDArray[np.uint8], size: tuple[int, int], rule: str) -> None:
    if image.shape[:2] != size:
        raise DatasetError(f"{path}: is {image.shape[1]}x{image.shape[0]}, the first image {size[1]}x{size[0]}; {rule}")
