"""The scores of a table of frames against other people's computations of the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from coop_perception.classes import SemanticClass
from coop_perception.evaluation import no_reference
from coop_perception.evaluation.conditions import Estimated, by_estimated_name, conditions_of, of_message
from coop_perception.evaluation.evaluation import Found, Frame
from coop_perception.evaluation.gallery import gallery
from coop_perception.evaluation.measures import scores
from coop_perception.evaluation.rows import NUMBERS, TEXTS, WHOLE, Row
from coop_perception.evaluation.scoring import Before, Outputs, score
from coop_perception.evaluation.summary import summarise
from coop_perception.evaluation.table import Table, read_parquet, save, together
from coop_perception.metrics import calibration, psnr, ssim
from coop_perception.model.conditions import Conditions

CLASSES = ("Sky", "Road", "Car")
SIZE = (40, 56)
FRAMES = 48


def estimated(fog: float, rain: float) -> Estimated:
    own = Conditions(np.array([fog, rain], np.float32), np.array([0.5, 0.25], np.float32), 0.8)
    return Estimated(("fog", "rain"), own, own, True)


def drive(seed: int = 0) -> list[tuple[Frame, Outputs]]:
    """Frames whose truth, outputs and conditions are random."""
    random = np.random.default_rng(seed)
    made = []
    for index in range(FRAMES):
        clean = cv2.GaussianBlur(random.integers(0, 256, (*SIZE, 3), dtype=np.uint8), (0, 0), 2)
        image, restored = (
            np.clip(clean + random.normal(0, sigma, clean.shape), 0, 255).astype(np.uint8) for sigma in (20, 8)
        )
        truth = random.integers(0, 3, SIZE, dtype=np.uint8)
        truth[random.random(SIZE) < 0.1] = 255
        raw, refined = (
            np.where(random.random(SIZE) < share, random.integers(0, 3, SIZE), truth % 3).astype(np.uint8)
            for share in (0.5, 0.2)
        )
        confidence = random.integers(100, 256, SIZE, dtype=np.uint8)
        fog = 0.9 if index % 3 == 0 else 0.1
        conditions = estimated(fog, 0.7)
        found = Found(index, index * 10**8, index / 10, {})
        made.append(
            (
                Frame(found, image, clean, truth, ()),
                Outputs(raw, refined, confidence, restored, conditions, 10.0 + index, {"segmenter": 4.0}),
            )
        )
    return made


def rows_of(frames: list[tuple[Frame, Outputs]], camera: str = "front") -> list[Row]:
    return [score(camera, frame, outputs, None, len(CLASSES)) for frame, outputs in frames]


def test_a_frame_that_was_left_as_it_was_has_its_own_scores(frames: list[tuple[Frame, Outputs]]) -> None:
    """By whichever way it is known to be: a copy is, and so is the image itself."""
    for frame, made in frames[:3]:
        assert frame.image is not None
        assert frame.reference_image is not None
        one, other = (
            score("front", frame, replace(made, restored=restored), None, len(CLASSES))
            for restored in (frame.image, frame.image.copy())
        )
        assert one == other
        assert one.psnr_restored == one.psnr_degraded == psnr(frame.reference_image, frame.image)
        assert one.ssim_restored == one.ssim_degraded == ssim(frame.reference_image, frame.image)
        for name in ("sharpness", "contrast", "noise"):
            assert getattr(one, f"{name}_restored") == getattr(one, name) > 0
        nearly = frame.image.copy()
        nearly[0, 0] ^= 64
        changed = score("front", frame, replace(made, restored=nearly), None, len(CLASSES))
        assert changed.psnr_restored == psnr(frame.reference_image, nearly)
        assert changed.psnr_restored != changed.psnr_degraded
        assert changed.sharpness_restored != changed.sharpness


@pytest.fixture(scope="module")
def frames() -> list[tuple[Frame, Outputs]]:
    return drive()


@pytest.fixture(scope="module")
def table(frames: list[tuple[Frame, Outputs]], tmp_path_factory: pytest.TempPathFactory) -> Table:
    return save(tmp_path_factory.mktemp("table") / "frames.parquet", rows_of(frames))


@pytest.fixture(scope="module")
def measures(table: Table) -> dict:
    return scores([table], CLASSES)


def pooled(frames: list[tuple[Frame, Outputs]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scored pixels of all frames: true and predicted."""
    truth = np.concatenate([frame.reference_mask.ravel() for frame, _ in frames])  # type: ignore[union-attr]
    mask = np.concatenate([getattr(outputs, name).ravel() for _, outputs in frames])
    return truth[truth != 255], mask[truth != 255]


@pytest.mark.parametrize(("name", "suffix"), [("mask_raw", "_raw"), ("mask", "")])
def test_masks_score_as_in_scikit_learn(
    frames: list[tuple[Frame, Outputs]], measures: dict, name: str, suffix: str
) -> None:
    def close(found: dict, expected: float) -> None:
        assert found["value"] == pytest.approx(expected, abs=1e-6)

    truth, mask = pooled(frames, name)
    every = measures["all"]
    close(every[f"miou{suffix}"], jaccard_score(truth, mask, average="macro"))
    close(every[f"fwiou{suffix}"], jaccard_score(truth, mask, average="weighted"))
    close(every[f"pa{suffix}"], accuracy_score(truth, mask))
    close(every[f"mpa{suffix}"], balanced_accuracy_score(truth, mask))
    for class_name, iou in zip(CLASSES, jaccard_score(truth, mask, average=None), strict=True):
        close(measures["class"][class_name][f"iou{suffix}"], iou)
    foggy = [pair for index, pair in enumerate(frames) if index % 3 == 0]
    close(measures["condition"]["fog"][f"miou{suffix}"], jaccard_score(*pooled(foggy, name), average="macro"))


def test_the_confusion_matrix_is_scikit_learns(frames: list[tuple[Frame, Outputs]], table: Table) -> None:
    matrix = table.counts["confusion"].sum(axis=0).reshape(3, 4)
    assert matrix[:, :3].tolist() == confusion_matrix(*pooled(frames, "mask")).tolist()


def test_images_score_as_in_scikit_image(frames: list[tuple[Frame, Outputs]], measures: dict) -> None:
    every = measures["all"]
    for name, pick in (("psnr_degraded", lambda f, _: f.image), ("psnr", lambda _, o: o.restored)):
        expected = np.mean([peak_signal_noise_ratio(f.reference_image, pick(f, o)) for f, o in frames])
        assert every[name]["value"] == pytest.approx(expected, abs=1e-6)
    for name, pick in (("ssim_degraded", lambda f, _: f.image), ("ssim", lambda _, o: o.restored)):
        options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        expected = np.mean(
            [structural_similarity(f.reference_image, pick(f, o), data_range=255, **options) for f, o in frames]
        )
        assert every[name]["value"] == pytest.approx(expected, abs=1e-6)
    gain = every["psnr"]["value"] - every["psnr_degraded"]["value"]
    assert every["psnr_gain"]["value"] == pytest.approx(gain, abs=1e-9)


def test_calibration_error_is_that_of_the_definition(frames: list[tuple[Frame, Outputs]], measures: dict) -> None:
    truth, mask = pooled(frames, "mask")
    _, confidence = pooled(frames, "confidence")
    confidence, right = confidence / 255, truth == mask
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [(bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean()) for b in np.unique(bins)]
    assert measures["all"]["ece"]["value"] == pytest.approx(sum(gaps), abs=1e-6)


def test_a_frame_counts_for_every_condition_in_it(measures: dict) -> None:
    assert measures["condition"]["rain"]["frames"] == FRAMES
    assert measures["condition"]["fog"]["frames"] == FRAMES / 3
    assert "clear" not in measures["condition"]


def test_intervals_are_where_there_are_frames_enough(measures: dict) -> None:
    miou = measures["all"]["miou"]
    assert miou["low"] < miou["value"] < miou["high"]
    assert measures["condition"]["fog"]["miou"]["low"] is None  # of 16 frames


def test_cameras_that_see_the_same_drive_do_not_make_its_scores_surer() -> None:
    """The truth is inside in some 95 of 100 drives with four cameras that find nearly the same each moment."""
    random, inside, moments, cases = np.random.default_rng(2), 0, 300, 60
    for _ in range(cases):
        weather = np.empty(moments)
        weather[0] = random.normal()
        for moment in range(1, moments):
            weather[moment] = 0.8 * weather[moment - 1] + 0.6 * random.normal()
        found = interval_of_cameras([0.5 + 0.02 * weather + random.normal(0, 0.004, moments) for _ in range(4)])
        inside += found["low"] <= 0.5 <= found["high"]
    assert inside / cases >= 0.88


def interval_of_cameras(confidences: list[np.ndarray]) -> dict:
    """Of the mean confidence over all cameras' frames."""
    cameras, moments = len(confidences), len(confidences[0])
    count = cameras * moments
    numbers = {name: np.full(count, np.nan) for name in NUMBERS}
    numbers |= {"confidence": np.concatenate(confidences), "time_s": np.tile(np.arange(moments) / 10, cameras)}
    texts = {name: np.full(count, "", object) for name in TEXTS}
    texts["camera"] = np.repeat(np.array([f"camera{i}" for i in range(cameras)], object), moments)
    whole = {name: np.tile(np.arange(moments), cameras) for name in WHOLE}
    return scores([Table(numbers, {}, texts, whole)], CLASSES)["all"]["confidence"]


def test_what_was_written_is_read_back(table: Table, frames: list[tuple[Frame, Outputs]], tmp_path: Path) -> None:
    save(tmp_path / "frames.parquet", rows_of(frames))
    back = read_parquet(tmp_path / "frames.parquet")
    assert scores([back], CLASSES) == scores([table], CLASSES)
    assert back.texts["camera"].tolist() == ["front"] * FRAMES


def test_merging_is_exact(table: Table, frames: list[tuple[Frame, Outputs]], tmp_path: Path) -> None:
    """Two recordings' frames score together as if they had been one's."""
    halves = [save(tmp_path / f"{i}.parquet", rows_of(part)) for i, part in enumerate((frames[:20], frames[20:]))]
    apart, whole = scores(halves, CLASSES), scores([together(halves)], CLASSES)
    for name, one in whole["all"].items():
        value = one["value"] if isinstance(one, dict) else one
        other = apart["all"][name]["value"] if isinstance(one, dict) else apart["all"][name]
        assert other == pytest.approx(value, rel=1e-12), name
    assert (together(halves).counts["confusion"] == table.counts["confusion"]).all()


def test_references_that_do_not_fit_are_said_and_not_scored(frames: list[tuple[Frame, Outputs]]) -> None:
    frame, outputs = frames[0]
    strange = np.full(SIZE, 7, np.uint8)
    row = score("front", Frame(frame.found, frame.image, frame.reference_image[:30], strange, ()), outputs, None, 3)
    assert row.status == "processed"
    assert row.confusion is row.psnr_restored is row.ssim_degraded is None
    assert any("reference holds ids [7]" in warning for warning in row.warnings)
    assert any(warning.startswith("reference image: images have shapes") for warning in row.warnings)


def test_the_gallery_shows_the_worst_first_and_no_frame_twice(table: Table) -> None:
    choices = gallery(table, CLASSES)
    rows = [choice.row for choice in choices]
    assert len(set(rows)) == len(rows)
    mious = table.numbers["miou"]
    assert choices[0].row == int(np.argmin(mious))
    assert {"worst", "median", "best"} <= {choice.why for choice in choices}
    best = next(choice for choice in choices if choice.why == "best")
    assert best.row == int(np.argmax(mious))


def test_what_the_estimate_of_each_condition_is_worth(measures: dict, table: Table) -> None:
    values = {name: {score: one["value"] for score, one in of.items()} for name, of in measures["estimate"].items()}
    assert values == {
        "fog": {"presence": pytest.approx((0.9 + 2 * 0.1) / 3), "present": pytest.approx(1 / 3), "strength": 0.5},
        "rain": {"presence": pytest.approx(0.7), "present": 1.0, "strength": 0.25},
    }
    summary = summarise([table], 1, [SemanticClass(i, name, (i, i, i)) for i, name in enumerate(CLASSES)])
    condition = summary["condition"]
    assert (condition["estimated"], condition["clear"], condition["restoration_ran"]) == (FRAMES, 0, 1.0)
    assert condition["familiarity"] == pytest.approx(0.8)
    assert list(condition["conditions"]) == ["rain", "fog"]  # the more frequent one first
    assert condition["conditions"]["fog"]["frames"] == FRAMES / 3


def test_estimates_are_held_against_what_was_applied(frames: list[tuple[Frame, Outputs]], tmp_path: Path) -> None:
    """Fog of levels 2, 0.5 and 0 in turn, found in the first of three frames, and in the first of all without it."""
    told = []
    for index, (frame, outputs) in enumerate(frames):
        level = (2.0, 0.5, 0.0)[index % 3]
        made = replace(outputs, conditions=estimated(0.9, 0.1)) if index == 2 else outputs
        told.append((replace(frame, applied={"fog": level, "snow": 1.0}), made))
    table = save(tmp_path / "frames.parquet", rows_of(told))
    found = scores([table], CLASSES)
    fog, rain = found["estimate"]["fog"], found["estimate"]["rain"]
    assert fog["recognised"]["value"] == 1.0
    assert fog["false_alarms"]["value"] == pytest.approx(1 / (FRAMES / 3))
    assert "recognised" not in rain
    assert rain["false_alarms"]["value"] == pytest.approx((FRAMES - 1) / FRAMES)
    assert found["condition"]["fog"]["frames"] == FRAMES * 2 / 3  # as the recording says
    assert found["condition"]["clear"]["frames"] == FRAMES / 3
    assert "rain" not in found["condition"]


def test_what_was_applied_has_the_estimates_names() -> None:
    levels = {"gaussian_blur": 2.0, "fog": 1.0, "snow": 3.0}
    assert by_estimated_name(levels, ("fog", "blur", "rain")) == {"fog": 1.0, "blur": 2.0, "rain": 0.0}
    assert by_estimated_name(levels, ("gaussian_blur",)) == {"gaussian_blur": 2.0}


def test_conditions_are_read_back_from_a_row_to_the_last_digit(
    frames: list[tuple[Frame, Outputs]], tmp_path: Path
) -> None:
    own = Conditions(np.array([1 / 3, 2 / 7], np.float32), np.array([1e-9, 0.1], np.float32), 1 / 3)
    frame, outputs = frames[0]
    row = score("front", frame, replace(outputs, conditions=Estimated(("fog", "rain"), own, own, False)), None, 3)
    again = Row(**json.loads(json.dumps(row.as_dict())))
    table = save(tmp_path / "frames.parquet", [row])
    of_table = (
        {name: float(table.numbers[f"{column}.{name}"][0]) for name in ("fog", "rain")}
        for column in ("presence_filtered", "strength_filtered")
    )
    for found in (
        conditions_of(("fog", "rain"), again.presence, again.strength, again.familiarity),
        conditions_of(("fog", "rain"), *of_table, float(table.numbers["familiarity_filtered"][0])),
    ):
        np.testing.assert_array_equal(found.presence, own.presence)
        np.testing.assert_array_equal(found.strength, own.strength)
        assert found.familiarity == own.familiarity
    assert row.restoration_ran == 0


def test_a_message_that_says_not_as_much_of_each_condition_is_refused() -> None:
    values = {"presence": [0.5], "strength": [0.5], "presence_filtered": [0.5], "strength_filtered": []}
    message = SimpleNamespace(conditions=["fog"], familiarity=1.0, familiarity_filtered=1.0, **values)
    with pytest.raises(ValueError, match="has 1 conditions and 0 values of strength_filtered: the node is of another"):
        of_message(message)


def street(shift: int) -> np.ndarray:
    """uint8 [H,W]: a textured scene that moves to the right."""
    random = np.random.default_rng(7)
    wide = cv2.GaussianBlur(random.integers(0, 256, (180, 400), dtype=np.uint8), (0, 0), 3)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    return np.ascontiguousarray(wide[:, 60 - shift : 300 - shift])


def moving_mask(shift: int) -> np.ndarray:
    wide = np.zeros((180, 400), np.uint8)
    wide[40:140, 100:220] = 1
    return np.ascontiguousarray(wide[:, 60 - shift : 300 - shift])


def test_masks_that_move_with_the_scene_do_not_flicker() -> None:
    motion = no_reference.Motion(street(0), street(4))
    with_it = motion.flicker(moving_mask(0), moving_mask(4))
    standing = motion.flicker(moving_mask(0), moving_mask(0))
    assert with_it is not None
    assert standing is not None
    assert with_it < 0.005
    assert standing > 0.012  # two edges of 100 pixels, 4 wide: 1.9 % of the picture
    random = np.random.default_rng(0).random((180, 240)) < 0.1
    noisy = motion.flicker(moving_mask(0), np.where(random, 2, moving_mask(4)).astype(np.uint8))
    assert noisy == pytest.approx(0.1, abs=0.02)


def test_frames_far_apart_or_of_another_size_are_not_compared(frames: list[tuple[Frame, Outputs]]) -> None:
    frame, outputs = frames[5]
    grey = np.zeros(SIZE, np.uint8)
    apart = Before(frame.found.time_s - 1.5, grey, outputs.mask_raw, outputs.mask)
    other = Before(frame.found.time_s - 0.1, np.zeros((8, 8), np.uint8), outputs.mask_raw, outputs.mask)
    near = Before(
        frame.found.time_s - 0.1, cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), outputs.mask_raw, outputs.mask
    )
    assert [score("c", frame, outputs, before, 3).flicker for before in (None, apart, other, near)] == [None] * 3 + [
        0.0
    ]


@pytest.mark.parametrize("sigma", [2.0, 5.0, 15.0])
def test_white_noise_is_measured(sigma: float) -> None:
    flat = np.full((200, 300), 128, np.float64)
    image = np.clip(flat + np.random.default_rng(1).normal(0, sigma, flat.shape), 0, 255).round().astype(np.uint8)
    assert no_reference.noise(image) == pytest.approx(sigma, rel=0.06)


def test_sharpness_and_contrast_are_those_of_their_definitions() -> None:
    image = street(0)
    laplacian = cv2.Laplacian(image.astype(np.float64), cv2.CV_64F, ksize=1)
    assert no_reference.sharpness(image) == pytest.approx(laplacian.var(), rel=1e-9)
    assert no_reference.contrast(image) == pytest.approx(image.std() / 255, rel=1e-9)
    assert no_reference.sharpness(cv2.GaussianBlur(image, (0, 0), 2)) < no_reference.sharpness(image)


def test_calibration_and_its_pooled_form_agree() -> None:
    counts = np.random.default_rng(2).integers(0, 50, (256, 2))
    counts[:, 1] = np.minimum(counts[:, 0], counts[:, 1])
    assert calibration(counts).ece == pytest.approx(float(no_reference_free_ece(counts)), abs=1e-12)


def no_reference_free_ece(counts: np.ndarray) -> float:
    """Bin by bin, in plain Python."""
    total, error = counts[:, 0].sum(), 0.0
    for low in range(15):
        levels = [level for level in range(256) if min(int(level / 255 * 15), 14) == low]
        error += abs(sum(counts[level, 0] * level / 255 - counts[level, 1] for level in levels))
    return error / total
