"""Adverse crops: images that come degraded with the data, and where crops lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trees
from coop_training.config import DataConfig
from coop_training.data import AdverseCrops, Conditions, Sample
from coop_training.frames import TrainingFrames, load_frames, unlabelled, with_cameras
from coop_training.label_survey import check_labels, class_weights, dark_frames, label_counts
from coop_training.layouts.frame import NO_DEPTH, LabelledFrame
from coop_training.mixtures import KINDS
from coop_training.strength import strength_of
from pydantic import ValidationError

from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS
from coop_perception.image_files import DatasetError
from coop_perception.sample_scene.drive import SampleDrive

HEIGHT, WIDTH = CROP = (16, 24)


def crops(
    frames: Sequence[LabelledFrame],
    conditions: tuple[str, ...],
    *,
    length: int = 40,
    clear: float = 0.25,
    scales: tuple[float, float] = (0.9, 1.5),
    **settings: object,
) -> AdverseCrops:
    return AdverseCrops(frames, length, CROP, Conditions(conditions, clear, **settings), 0, scales)  # type: ignore[arg-type]


def condition(sample: Sample) -> int:
    """Which one shows, counted from 1; 0: none."""
    return int(sample.strengths.argmax()) + 1 if sample.strengths.any() else 0


def blank(mask: np.ndarray) -> LabelledFrame:
    height, width = mask.shape
    return LabelledFrame(np.zeros((height, width, 3), np.uint8), mask, NO_DEPTH, Intrinsics.from_fov(width, height))


def test_ready_made_images_are_seen_as_their_clear_ones(tmp_path: Path) -> None:
    """The same scale, mirroring, exposure and crop: each foggy image of the tree is half its clear one and a constant,
    so the two must vary together."""
    frames = load_frames(DataConfig(layout="foggy_cityscapes", root=trees.foggy_cityscapes(tmp_path)), ("fog",))
    samples = list(crops(frames, ("gaussian_noise", "fog"), length=60))
    foggy = [sample for sample in samples if condition(sample) == 2]
    assert {round(3 * float(sample.strengths.sum())) for sample in foggy} == {1, 2, 3}
    for sample in foggy:
        clear, degraded = (np.asarray(image, float).reshape(3, -1) for image in (sample.clear, sample.degraded))
        assert min(np.corrcoef(c, d)[0, 1] for c, d in zip(clear, degraded, strict=True)) > 0.9
    noisy = [sample for sample in samples if condition(sample) == 1]
    assert all(0 < float(sample.strengths.sum()) <= 1 for sample in noisy)  # made, as the data has none
    assert len(noisy) > 10


def coarse(root: Path, **fields: object) -> DataConfig:
    """Two data sets: CamVid's tree, and a coarsely labelled one, whose images are all of one grey."""
    trees.camvid(root / "camvid")
    for kind, value in (("images", 77), ("labels", 1)):
        folder = root / "coarse" / kind / "train"
        folder.mkdir(parents=True)
        for index in range(4):
            shape = (HEIGHT, WIDTH, 3) if kind == "images" else (HEIGHT, WIDTH)
            assert cv2.imwrite(str(folder / f"{index}.png"), np.full(shape, value, np.uint8))
    entry = {"root": root / "coarse", "share": 0.6, "labels": {0: ["Road"], 1: ["Building", "Tree"], 2: []}, **fields}
    return DataConfig.model_validate({"root": root / "camvid", "sample_drives": 0, "also": [entry]})


def test_coarse_labels_are_sets_of_classes(tmp_path: Path) -> None:
    config = coarse(tmp_path)
    names = [c.name for c in config.class_list.classes]
    assert [{names[i] for i in among} for among in config.label_sets[11:]] == [{"Building", "Tree"}]
    frames = load_frames(config, ())
    assert set(np.unique(frames[len(frames) - 1].mask)) == {11}
    assert class_weights(label_counts(frames), len(config.label_sets)).shape == (12,)


@pytest.mark.parametrize("ground", [["Road"], ["Road", "Pavement"]])
def test_depth_comes_from_coarse_labels_too(tmp_path: Path, ground: list[str]) -> None:
    config = coarse(tmp_path, labels={0: ground, 1: ["Building", "Tree"]})
    street = np.ones((HEIGHT, WIDTH), np.uint8)  # buildings or trees
    street[HEIGHT // 2 :] = 0
    for path in (tmp_path / "coarse/labels/train").iterdir():
        assert cv2.imwrite(str(path), street)
    frames = load_frames(config, ("fog",))
    depth = frames[len(frames) - 1].depth.astype(np.float32)
    road, upright = depth[HEIGHT // 2 + 2 :, WIDTH // 2], depth[: HEIGHT // 2 - 2, WIDTH // 2]
    assert (np.diff(road) < 0).all()
    assert upright == pytest.approx(upright[0], rel=0.1)
    assert upright[0] > road[-1]


def test_each_data_set_is_drawn_as_often_as_is_asked_for(tmp_path: Path) -> None:
    frames = load_frames(coarse(tmp_path), ())
    assert frames.weights.sum() == pytest.approx(1)
    assert frames.weights[-4:].sum() == pytest.approx(0.6)
    drawn = [sample.mask.max() == 11 for sample in crops(frames, (), length=200)]
    # Half of the crops show a label drawn evenly: the only one of the coarse data set is one among several.
    assert 0.3 < np.mean(drawn) < 0.6


def test_other_cameras_frames_are_drawn_as_often_as_is_asked_for(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((48, 64, 3), 9, np.uint8))
    frame = SampleDrive(3, 64, 48).frame(0)
    known = unlabelled(frame.image)
    joined = with_cameras(TrainingFrames([[known], [known, known]], [0.7, 0.3]), [tmp_path], 0.25)
    np.testing.assert_allclose(joined.weights, [0.525, 0.1125, 0.1125, 0.25])
    np.testing.assert_array_equal(joined[3].image, np.full((48, 64, 3), 9))
    assert (joined[3].mask == 255).all()
    with pytest.raises(DatasetError):
        with_cameras(TrainingFrames([[known]], [None]), [tmp_path / "none"], 0.25)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": {0: ["Raod"]}}, r"also\.0\.labels: no class Raod; known: Sky, Building"),
        ({"share": 1.0}, "share"),
        ({"labels": {255: ["Road"]}}, "255"),
    ],
)
def test_coarse_data_that_cannot_be_used_is_named(tmp_path: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        coarse(tmp_path, **fields)


def test_samples_of_unread_frames_are_those_of_held_ones(tmp_path: Path) -> None:
    """And depend on their index alone, whatever was asked for before."""
    trees.rain_cityscapes(tmp_path)
    held, unread = (
        load_frames(DataConfig(layout="rain_cityscapes", root=tmp_path, memory_gb=gb), ("jpeg",)) for gb in (1, 0)
    )
    resumed = crops(unread, ("jpeg",))
    for one, other in zip(list(crops(held, ("jpeg",)))[30:], (resumed[i] for i in range(30, 40)), strict=True):
        np.testing.assert_array_equal(one.degraded, other.degraded)
        np.testing.assert_array_equal(one.mask, other.mask)


def test_crops_are_the_same_whatever_the_condition() -> None:
    frame = blank((np.arange(64 * 96).reshape(64, 96) % 11).astype(np.uint8))
    clear, *others = (
        [sample.mask for sample in crops([frame], conditions, length=8, clear=0.0)]
        for conditions in ((), ("jpeg",), ("reflection",), ("gaussian_noise",))
    )
    for masks in others:
        assert all(torch.equal(one, other) for one, other in zip(clear, masks, strict=True))


def test_crops_keep_the_grid_of_jpeg_blocks() -> None:
    """That of chroma, at half the resolution: 16 pixels."""
    rows, columns = np.indices((80, 112), np.uint8)
    frame = blank(rows // 16 * 16 + columns // 16)  # a new value where a block starts
    seen = set()
    for sample in crops([frame], (), length=80, scales=(1.0, 1.0)):
        mask = sample.mask.numpy()
        assert (mask[:16, :16] == mask[0, 0]).all()
        assert (abs(mask[:16, 16:] - mask[0, 0]) == 1).all()  # mirrored, the one before
        seen.add(int(mask[0, 0]))
    assert len(seen) > 10


def test_conditions_are_met_as_often_as_their_shares_say() -> None:
    mask = np.zeros(CROP, np.uint8)
    names = ("gaussian_noise", "jpeg", "gaussian_blur")
    samples = crops([blank(mask)], names, length=400, clear=0.2, shares={"jpeg": 2.0, "gaussian_blur": 0.0})
    met = np.bincount([condition(sample) for sample in samples], minlength=4) / 400
    np.testing.assert_allclose(met, [0.2, 0.8 / 3, 2 * 0.8 / 3, 0.0], atol=0.07)


def test_levels_have_evenly_spaced_strengths() -> None:
    for condition in CONDITIONS.values():
        levels = condition.levels
        strengths = [strength_of(level, levels) for level in levels]
        assert strengths == pytest.approx([k / len(levels) for k in range(1, len(levels) + 1)])
        assert strength_of(levels[-1] ** 2 / levels[0], levels) == 1.0  # beyond the last


def test_reflections_show_other_frames_and_the_inside_of_a_vehicle() -> None:
    """Of a black and a white frame: what is seen in the black one is reflected."""
    mask = np.zeros((32, 48), np.uint8)
    frames = [blank(mask), replace(blank(mask), image=np.full((32, 48, 3), 255, np.uint8))]
    samples = [sample for sample in crops(frames, ("reflection",), clear=0.0) if not sample.clear.any()]
    black = [sample for sample in samples if not sample.degraded.any()]
    white = [s for s in samples if s.degraded.any() and (s.degraded == s.degraded[:1]).all()]
    interior = len(samples) - len(black) - len(white)
    assert min(len(black), len(white)) >= 2
    assert 0.3 < interior / len(samples) < 0.7


def test_ready_made_rain_needs_no_depth(tmp_path: Path) -> None:
    config = DataConfig(layout="rain_cityscapes", root=trees.rain_cityscapes(tmp_path))
    assert config.can_show("rain")
    samples = list(crops(load_frames(config, ("rain",)), ("rain",), clear=0.0))
    assert {round(3 * float(sample.strengths.sum())) for sample in samples} == {1, 2, 3}


def test_a_condition_that_needs_depth_is_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="fog: depth has shape"):
        list(crops([blank(np.zeros((20, 30), np.uint8))], ("fog",), clear=0.0))


def test_class_weights_of_many_frames_come_from_frames_of_all_parts() -> None:
    """Every frame is of one class; those that are left out are evenly spread."""

    def frames(count: int) -> list[LabelledFrame]:
        return [blank(np.full((1, 1), 4 * index // count, np.uint8)) for index in range(count)]

    few, many = (class_weights(label_counts(frames(count)), 5) for count in (400, 40_000))
    np.testing.assert_allclose(many, few, rtol=0.02)
    assert few[4] > few[0] > 0  # never seen: weighs most


def test_half_of_the_crops_show_a_class_drawn_evenly() -> None:
    """One frame of twenty has a small patch of class 1: evenly drawn, one crop in 30 would show it at best."""
    plain = np.zeros((64, 96), np.uint8)
    patched = plain.copy()
    patched[40:50, 70:80] = 1
    seen = [bool((s.mask == 1).any()) for s in crops([blank(patched), *[blank(plain)] * 19], (), length=200)]
    assert 0.2 < np.mean(seen) < 0.35


def test_mixtures_have_a_strength_for_each_condition_that_is_there() -> None:
    names = tuple(kind.name for kind in KINDS)
    plain = blank(np.zeros((64, 96), np.uint8))
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    frames = [replace(plain, image=picture) for picture in pictures]
    shares = dict.fromkeys(names, 0.0) | {"compression": 1.0, "noise": 1.0, "low_light": 1.0}
    samples = list(crops(frames, names, length=40, mixed=True, shares=shares))
    strengths = torch.stack([sample.strengths for sample in samples])
    assert strengths.shape == (40, len(names))
    there = strengths > 0
    assert 0.1 < (~there.any(1)).float().mean() < 0.5  # those that stay clear
    assert (there.sum(1) > 1).any()
    assert {names[i] for i in range(len(names)) if there[:, i].any()} <= {"compression", "noise", "low_light"}
    for sample, any_there in zip(samples, there.any(1), strict=True):
        assert bool((sample.clear != sample.degraded).any()) or not any_there


def two_classes(root: Path, value: int) -> DataConfig:
    """A folder of one's own with background above and, written as `value`, road below."""
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    label[HEIGHT // 2 :] = value
    assert cv2.imwrite(str(root / "images/train/a.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    assert cv2.imwrite(str(root / "labels/train/a.png"), label)
    classes = [{"id": i, "name": name, "rgb": [i, i, i]} for i, name in enumerate(("background", "road", "car"))]
    return DataConfig.model_validate({"layout": "folder", "root": root, "classes": classes, "sample_drives": 0})


def test_classes_that_no_label_has_are_named(tmp_path: Path) -> None:
    config = two_classes(tmp_path, 1)
    (line,) = check_labels(label_counts(load_frames(config, ())), config)
    assert line == "car: no pixel in the frames that were surveyed; masks hold 0, 1: its label is 2"


def test_frames_that_are_nearly_black_are_told() -> None:
    """As files of 16 bits are that hold 12."""
    mask = np.zeros((4, 6), np.uint8)
    bright = replace(blank(mask), image=np.full((4, 6, 3), 90, np.uint8))
    assert dark_frames([bright, blank(mask)]).startswith("1 of 2 images are nearly black")
    assert not dark_frames([bright])


def test_a_single_class_cannot_be_learnt(tmp_path: Path) -> None:
    """Labels of 0 and 255, as many tools write a mask."""
    config = two_classes(tmp_path, 255)
    with pytest.raises(DatasetError, match=r"road: no pixel .* hold 0, 255 \(255 is never scored\): its label is 1"):
        check_labels(label_counts(load_frames(config, ())), config)


def test_a_coarse_label_may_be_any_of_its_classes(tmp_path: Path) -> None:
    config = coarse(tmp_path)
    lines = check_labels(label_counts(load_frames(config, ())), config)
    assert not [line for line in lines if line.startswith(("Building", "Tree"))]
