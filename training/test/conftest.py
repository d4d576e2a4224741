"""Fixtures of a tiny run: its data and configuration, coop-train on them, what it leaves, and the bundle of that."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from coop_training import monitor, train, training
from coop_training.model import Cooperative
from coop_training.networks.cost import Cost
from coop_training.summary import deployed_costs
from once import once
from random_model import save_random_model
from smoke_run import run, write_config, write_frames

from coop_perception.engines import precisions
from coop_perception.engines.calibration import SAMPLE_DRIVES, CalibrationFrames
from coop_perception.sample_scene.drive import SampleDrive


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["COOP_PERCEPTION_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def share_of_the_cores() -> None:
    """Workers side by side would otherwise each compute on all of them."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "data", write_frames)


@pytest.fixture
def config_file(root: Path, tmp_path: Path) -> Path:
    return write_config(tmp_path / "smoke.yaml", root)


@pytest.fixture(scope="session", autouse=True)
def one_frame_to_measure() -> Iterator[None]:
    """For the FP16 graphs of each bundle that is written: the shipped one's are measured on all."""
    with pytest.MonkeyPatch.context() as patch:
        frame = SampleDrive(2).frame(0).image
        one, of_images = CalibrationFrames([frame], [frame], SAMPLE_DRIVES), precisions.calibration_frames
        # Images that are given are read: what runs after these tests in one process may be about them.
        patch.setattr(precisions, "calibration_frames", lambda images: of_images(images) if images else one)
        yield


@pytest.fixture(scope="session", autouse=True)
def costs_counted_once() -> Iterator[None]:
    """Of networks of one kind: counting takes a second or two."""
    counted: dict[tuple[object, ...], dict[str, Cost]] = {}

    def costs(model: Cooperative) -> dict[str, Cost]:
        kinds = tuple(type(part) for part in model.parts().values())
        key = (*kinds, model.classes, model.conditions)
        if key not in counted:
            counted[key] = deployed_costs(model)
        return counted[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "deployed_costs", costs)
        yield


@pytest.fixture
def coop_train(config_file: Path) -> Callable[..., int]:
    """coop_train(out, *arguments) → exit status."""
    return lambda out, *arguments: run(train.main, "--config", config_file, "--out", out, *arguments)


@pytest.fixture(scope="session")
def trained(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of all stages leaves, every step in its log. Not to be changed."""

    def make(directory: Path) -> None:
        config = write_config(directory / "smoke.yaml", root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(monitor, "LOG_EVERY", 1)
            assert run(train.main, "--config", config, "--out", directory / "run") == 0

    return once(tmp_path_factory, "trained", make) / "run"


@pytest.fixture(scope="session")
def exported(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run of all stages, `run`, and of the bundle that coop-export makes of it, `bundle`. An export takes
    a minute; not to be changed."""

    from coop_training import export  # which takes long to import

    def make(directory: Path) -> None:
        config = write_config(directory / "smoke.yaml", root)
        # Such steps that the segmenter's classes are apart by more than an export rounds.
        wide = "--set=stages.segmenter.learning_rate=1e-2"
        assert run(train.main, "--config", config, "--out", directory / "run", wide) == 0
        checkpoint = directory / "run" / "joint.safetensors"
        assert run(export.main, "--checkpoint", checkpoint, "--out", directory / "bundle") == 0

    return once(tmp_path_factory, "exported", make)


@pytest.fixture(scope="session")
def random_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a checkpoint of random weights, `joint.safetensors`, and of its bundle, `random`. Not to be changed."""

    from coop_training import export

    def make(directory: Path) -> None:
        save_random_model(directory / "joint.safetensors")
        arguments = ("--checkpoint", directory / "joint.safetensors", "--out", directory / "random")
        assert run(export.main, *arguments) == 0

    return once(tmp_path_factory, "random", make)
