"""Masks and restored frames of every frame of a run, as files or as a recording.

They are files first, each there before its frame's row is in the journal, so that a run that is gone on with lacks
none. A recording is made of them at the end, and they are there until the whole run is.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from coop_perception import topics
from coop_perception.classes import SemanticClass
from coop_perception.evaluation.evaluation import Found, Frame
from coop_perception.evaluation.scoring import Outputs
from coop_perception.evaluation.task import Kept
from coop_perception.images import CompressedFormat, encode_compressed
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.messages import COMPRESSED_IMAGE_TYPE, compressed_file_message
from coop_perception.recordings.writer import RecordingWriter
from coop_perception.replacing import refuse_others
from coop_perception.visualization import overlay

PNG_FOLDER = "frames"
RECORDING = "results"
_SPOOL = ".results"
_FORMATS: dict[str, CompressedFormat] = {
    topics.MASK: "png",
    topics.MASK_RAW: "png",
    topics.CONFIDENCE: "png",
    topics.RESTORED: "jpeg",
    topics.OVERLAY: "jpeg",
}
"""What a recording holds of a frame: masks exactly, pictures as cameras give them."""
_FILE = re.compile(r"\d{6,}_-?\d+_-?\d+\.\w+\.(png|jpeg)")
MADE: dict[Kept, tuple[str, ...]] = {"none": (), "png": (PNG_FOLDER,), "mcap": (RECORDING,)}
"""What is in the folder of results in the end, by what is to be kept."""


class Keeper:
    """Writes what is to be kept below the folder `out`: `frames/CAMERA/NUMBER_STAMP.OUTPUT.png`, or the recording
    `results` with topics such as `/front/coop/mask/compressed`, which rviz and Foxglove show beside the input."""

    def __init__(self, kind: Kept, out: Path, classes: Sequence[SemanticClass]) -> None:
        self._kind, self._out, self._classes = kind, out, classes
        self._files = out / (PNG_FOLDER if kind == "png" else _SPOOL)

    def begin(self, anew: bool) -> None:
        """Before the first frame; `anew`: nothing of an earlier run is gone on with.

        Raises:
            FileExistsError: something else is where its files would be.
        """
        if anew and self._kind != "none":
            others = (file for file in self._files.rglob("*") if not file.is_dir() and not _FILE.fullmatch(file.name))
            refuse_others(self._files, others, "an evaluation's outputs")
            shutil.rmtree(self._files, ignore_errors=True)

    def keep(self, image_topic: str, frame: Frame, outputs: Outputs) -> None:
        """One frame's outputs.

        Raises:
            OSError: they cannot be written.
        """
        if self._kind == "none":
            return
        folder = self._files / camera_of(image_topic)
        folder.mkdir(parents=True, exist_ok=True)
        found = frame.found
        for topic, picture in self._pictures(frame, outputs).items():
            file_format = "png" if self._kind == "png" else _FORMATS[topic]
            name = f"{found.index:06}_{found.stamp_ns}_{_logged(image_topic, found)}.{topic.rpartition('/')[2]}"
            (folder / f"{name}.{file_format}").write_bytes(encode_compressed(picture, file_format))

    def finish(self, image_topics: Sequence[str]) -> None:
        """After the last frame: the recording, where one is to be made. A run that is killed behind this makes it anew.

        Raises:
            OSError, RecordingError: it cannot be written.
        """
        if self._kind != "mcap":
            return
        entries = []
        for image_topic in image_topics:
            camera = camera_of(image_topic)
            for file in filter(Path.is_file, (self._files / camera).glob("*")):  # a camera may lie below another
                numbers, output, _ = file.name.split(".")
                _, stamp, logged = map(int, numbers.split("_"))
                entries.append((logged, stamp, camera, f"coop/{output}", file))
        with RecordingWriter(self._out / RECORDING, overwrite=True) as writer:
            for logged, stamp, camera, topic, file in sorted(entries):
                message = compressed_file_message(file.read_bytes(), _FORMATS[topic], camera, stamp)
                name = f"/{topics.of(camera, topic)}{topics.COMPRESSED}"
                writer.write(name, message, COMPRESSED_IMAGE_TYPE, logged)

    def _pictures(self, frame: Frame, outputs: Outputs) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
        assert frame.image is not None
        pictures = {
            topics.MASK: outputs.mask,
            topics.MASK_RAW: outputs.mask_raw,
            topics.CONFIDENCE: outputs.confidence,
            topics.RESTORED: outputs.restored,
        }
        if self._kind == "mcap" and outputs.mask is not None:
            pictures[topics.OVERLAY] = overlay(frame.image, outputs.mask, self._classes)
        return {topic: picture for topic, picture in pictures.items() if picture is not None}


def remove_spool(out: Path) -> None:
    """The files that a recording was made of, once nothing needs them any more."""
    shutil.rmtree(out / _SPOOL, ignore_errors=True)


def _logged(image_topic: str, found: Found) -> int:
    return found.messages[image_topic].stamp_ns
