"""Frames that precisions are calibrated on and checked with: of sample drives under every condition, or a user's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort

from coop_perception.contracts import CONTRACTS, Bundle
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines.frame_pass import SIZE, Feed, Image, Run, outputs_of, with_engines
from coop_perception.engines.onnxruntime import OnnxRuntimeEngine
from coop_perception.image_files import DatasetError, image_files, read_image
from coop_perception.images import is_nearly_black, nearly_black
from coop_perception.sample_scene.drive import SampleDrive

SAMPLE_DRIVES = "sample drives"
MOST_IMAGES = 64
"""Of a folder, evenly spread over its names: more cost time and change little."""
FRAME_STEP = 7
"""Frames of a sample drive between two that are taken: what they show differs."""


@dataclass(frozen=True, slots=True)
class CalibrationFrames:
    """uint8 [480,640,3] RGB. What is checked was not calibrated on."""

    calibrating: list[Image]
    checking: list[Image]
    source: str
    """SAMPLE_DRIVES, or a checksum of the images."""


def calibration_frames(images: Path | None = None) -> CalibrationFrames:
    """Frames of a folder of images, every second one to check with; or of two sample drives, one to check with.

    Raises:
        DatasetError: the folder holds no image, one cannot be read, or all are nearly black.
    """
    if images is None:
        return CalibrationFrames([image for image, _ in _drive(1, (0, -1))], checking_frames(), SAMPLE_DRIVES)
    files = sorted(image_files(images))
    files = [files[i * len(files) // MOST_IMAGES] for i in range(MOST_IMAGES)] if len(files) > MOST_IMAGES else files
    frames = [
        np.asarray(cv2.resize(read_image(file), SIZE[::-1], interpolation=cv2.INTER_AREA), np.uint8) for file in files
    ]
    if all(is_nearly_black(frame) for frame in frames):
        raise DatasetError(f"{images}: {nearly_black(len(frames), len(frames))}; nothing can be calibrated on them")
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.tobytes())
    # A single image has to do for both.
    return CalibrationFrames(frames[::2], frames[1::2] or frames, digest.hexdigest())


def checking_frames() -> list[Image]:
    """Frames of a sample drive that is not calibrated on, uint8 [480,640,3] RGB: a clear one, and one under each
    condition."""
    return [image for image, _ in checking_scenes()]


def checking_scenes() -> list[tuple[Image, Image]]:
    """The same, each with what it shows, uint8 [480,640], ids of CAMVID_CLASSES."""
    return _drive(2, (1,))


def network_feeds(bundle: Bundle, frames: Sequence[Image]) -> dict[str, list[Feed]]:
    """For each network its inputs on each frame, batches of one, as the bundle's own graphs compute them.

    Raises:
        EngineError: ONNX Runtime does not load one of these, or cannot run it.
    """
    run = with_engines({name: OnnxRuntimeEngine(network.path) for name, network in bundle.networks.items()})
    found = [outputs_of(bundle, frame, run) for frame in frames]
    return {
        name: [{key: values[key] for key in contract.inputs} for values in found]
        for name, contract in CONTRACTS.items()
    }


def with_onnxruntime(graphs: Mapping[str, Path | bytes]) -> Run:
    """By ONNX Runtime on the CPU, of ONNX files or models by network."""
    sessions = {name: cpu_session(graph) for name, graph in graphs.items()}
    return lambda name, given, wanted: dict(zip(wanted, sessions[name].run(list(wanted), given), strict=True))


def cpu_session(graph: Path | bytes) -> ort.InferenceSession:
    """An ONNX file or model in ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = graph if isinstance(graph, bytes) else str(graph)
    return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def _drive(seed: int, levels: Sequence[int]) -> list[tuple[Image, Image]]:
    """A clear frame of a drive, and one for each of a condition's levels, given as indices into them; with masks."""
    drive = SampleDrive(seed, *SIZE[::-1])
    cases = [(name, range(1, len(condition.levels) + 1)[i]) for name, condition in CONDITIONS.items() for i in levels]
    clear = drive.frame(0)
    frames = [(clear.image, clear.mask)]
    for index, (condition, level) in enumerate(cases, 1):
        scene = drive.frame(FRAME_STEP * index)
        adverse = degrade(scene.image, condition, level, seed=index, depth=scene.depth, intrinsics=drive.intrinsics)
        frames.append((adverse, scene.mask))
    return frames
