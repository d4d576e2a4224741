"""Scores against hand-computed cases, torchmetrics and scikit-image."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from set_up_packages import set_up_package

from coop_perception.metrics import (
    PSNR_CAP,
    calibration,
    confidence_counts,
    confusion_matrix,
    mean_psnr,
    percentiles,
    psnr,
    segmentation_scores,
    ssim,
)

CLASSES = 5
REFERENCES = hnp.arrays(np.uint8, (6, 7), elements=st.sampled_from([0, 1, 2, 3, 4, 255]))
PREDICTIONS = hnp.arrays(np.uint8, (6, 7), elements=st.integers(0, CLASSES - 1))


def peer(name: str) -> Any:
    """A library whose scores ours are compared with; what it says is computed by hand, or holds for any input, too."""
    return set_up_package(name)


def textured_image(seed: int, shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 1.5)


def image_pair(kind: str) -> tuple[np.ndarray, np.ndarray]:
    image = textured_image(1)
    rng = np.random.default_rng(2)
    if kind == "noise":
        return image, np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
    if kind == "blur":
        return image, cv2.GaussianBlur(image, (0, 0), 3)
    if kind == "unrelated":
        return image, textured_image(3)
    if kind == "flat and bright":  # where E[x^2] - E[x]^2 loses most digits
        return np.full_like(image, 255), np.where(rng.random(image.shape) < 0.02, 254, 255).astype(np.uint8)
    return np.zeros_like(image), np.full_like(image, 255)


KINDS = ["noise", "blur", "unrelated", "flat and bright", "black and white"]


class TestConfusionMatrix:
    def test_hand_computed(self) -> None:
        reference = np.array([[0, 0, 1], [1, 255, 255]], np.uint8)
        prediction = np.array([[0, 1, 1], [2, 0, 7]], np.uint8)
        expected = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
        assert confusion_matrix(reference, prediction, 3).tolist() == expected

    def test_prediction_without_a_class_counts_against_the_true_class_only(self) -> None:
        reference = np.array([0, 0, 0, 1], np.uint8)
        matrix = confusion_matrix(reference, np.array([0, 255, 9, 1], np.uint8), 2)
        assert matrix.tolist() == [[1, 0, 2], [0, 1, 0]]
        scores = segmentation_scores(matrix)
        assert scores.pa == pytest.approx(0.5)
        assert scores.iou == pytest.approx((1 / 3, 1.0))

    def test_signed_predictions_below_zero_are_no_class(self) -> None:
        matrix = confusion_matrix(np.array([1], np.uint8), np.array([-1], np.int64), 2)
        assert matrix.tolist() == [[0, 0, 0], [0, 0, 1]]

    def test_unknown_reference_id_is_named(self) -> None:
        with pytest.raises(ValueError, match=r"\[11\].*0\.\.10"):
            confusion_matrix(np.array([0, 11], np.uint8), np.array([0, 0], np.uint8), 11)

    def test_unequal_shapes(self) -> None:
        with pytest.raises(ValueError, match="equal shapes"):
            confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)

    @given(reference=REFERENCES, prediction=PREDICTIONS, other=PREDICTIONS)
    def test_ignored_pixels_never_matter(
        self, reference: np.ndarray, prediction: np.ndarray, other: np.ndarray
    ) -> None:
        mixed = np.where(reference == 255, other, prediction)
        assert np.array_equal(
            confusion_matrix(reference, prediction, CLASSES), confusion_matrix(reference, mixed, CLASSES)
        )

    @given(reference=REFERENCES, prediction=PREDICTIONS)
    def test_pooling_images_is_adding_matrices(self, reference: np.ndarray, prediction: np.ndarray) -> None:
        whole = confusion_matrix(reference, prediction, CLASSES)
        parts = sum(confusion_matrix(reference[rows], prediction[rows], CLASSES) for rows in (slice(2), slice(2, None)))
        assert np.array_equal(whole, parts)


class TestSegmentationScores:
    def test_hand_computed(self) -> None:
        # 8 pixels of class 0, 2 of class 1, none of class 2, which is predicted once.
        scores = segmentation_scores(np.array([[6, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]))
        assert scores.pa == pytest.approx(0.7)
        assert scores.mpa == pytest.approx((6 / 8 + 1 / 2) / 2)
        assert scores.iou[:2] == pytest.approx((6 / 9, 1 / 3))
        assert scores.iou[2] is None
        assert scores.miou == pytest.approx((6 / 9 + 1 / 3) / 2)
        assert scores.fwiou == pytest.approx(0.8 * 6 / 9 + 0.2 * 1 / 3)

    def test_nothing_scored(self) -> None:
        with pytest.raises(ValueError, match="no pixel was scored"):
            segmentation_scores(np.zeros((3, 4), np.int64))

    @given(reference=REFERENCES.filter(lambda mask: bool((mask != 255).any())))
    def test_perfect_prediction(self, reference: np.ndarray) -> None:
        scores = segmentation_scores(confusion_matrix(reference, reference, CLASSES))
        assert (scores.pa, scores.mpa, scores.miou, scores.fwiou) == pytest.approx((1, 1, 1, 1))

    @given(
        reference=REFERENCES.filter(lambda mask: bool((mask != 255).any())),
        prediction=PREDICTIONS,
        order=st.permutations(range(CLASSES)),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_renaming_classes_and_shuffling_pixels_change_no_mean(
        self, reference: np.ndarray, prediction: np.ndarray, order: list[int], seed: int
    ) -> None:
        rename = np.array([*order, *range(CLASSES, 256)], np.uint8)
        pixels = np.random.default_rng(seed).permutation(reference.size)
        first = segmentation_scores(confusion_matrix(reference, prediction, CLASSES))
        second = segmentation_scores(
            confusion_matrix(rename[reference].ravel()[pixels], rename[prediction].ravel()[pixels], CLASSES)
        )
        assert (first.pa, first.mpa, first.miou, first.fwiou) == pytest.approx(
            (second.pa, second.mpa, second.miou, second.fwiou)
        )
        assert [first.iou[class_id] for class_id in range(CLASSES)] == pytest.approx(
            [second.iou[order[class_id]] for class_id in range(CLASSES)]
        )

    def test_agrees_with_torchmetrics(self) -> None:
        torch = peer("torch")
        classification = peer("torchmetrics.classification")
        rng = np.random.default_rng(0)
        reference = rng.choice([*range(CLASSES), 255], (3, 40, 50), p=[0.4, 0.25, 0.15, 0.08, 0.02, 0.1])
        prediction = np.where(rng.random(reference.shape) < 0.7, reference, rng.integers(0, CLASSES, reference.shape))
        prediction[prediction == 255] = 0
        scores = segmentation_scores(confusion_matrix(reference.astype(np.uint8), prediction.astype(np.uint8), CLASSES))

        def theirs(metric: str, average: str) -> np.ndarray:
            measure = getattr(classification, metric)(num_classes=CLASSES, average=average, ignore_index=255)
            return measure(torch.from_numpy(prediction), torch.from_numpy(reference)).numpy()

        assert scores.pa == pytest.approx(theirs("MulticlassAccuracy", "micro"), abs=1e-4)
        assert scores.mpa == pytest.approx(theirs("MulticlassAccuracy", "macro"), abs=1e-4)
        assert scores.miou == pytest.approx(theirs("MulticlassJaccardIndex", "macro"), abs=1e-4)
        assert scores.fwiou == pytest.approx(theirs("MulticlassJaccardIndex", "weighted"), abs=1e-4)
        assert np.array(scores.iou, float) == pytest.approx(theirs("MulticlassJaccardIndex", "none"), abs=1e-4)


class TestPsnr:
    def test_hand_computed(self) -> None:
        reference = np.zeros((4, 5, 3), np.uint8)
        image = reference.copy()
        image[0, 0] = (30, 40, 0)
        assert psnr(reference, image) == pytest.approx(10 * math.log10(255**2 / (2500 / 60)))

    def test_whole_range_at_full_size(self) -> None:
        black = np.zeros((1080, 1920, 3), np.uint8)
        assert psnr(black, black + 255) == pytest.approx(0)

    def test_equal_images(self) -> None:
        image = textured_image(0)
        assert psnr(image, image) == math.inf
        assert mean_psnr([math.inf, 20.0]) == pytest.approx((PSNR_CAP + 20) / 2)

    @pytest.mark.parametrize("kind", KINDS)
    def test_agrees_with_scikit_image(self, kind: str) -> None:
        metrics = peer("skimage.metrics")
        reference, image = image_pair(kind)
        assert psnr(reference, image) == pytest.approx(
            metrics.peak_signal_noise_ratio(reference, image, data_range=255), abs=1e-4
        )

    def test_agrees_with_torchmetrics(self) -> None:
        torch = peer("torch")
        module = peer("torchmetrics.image")
        reference, image = image_pair("noise")
        measure = module.PeakSignalNoiseRatio(data_range=255.0)
        theirs = measure(torch.from_numpy(image).double(), torch.from_numpy(reference).double())
        assert psnr(reference, image) == pytest.approx(float(theirs), abs=1e-4)


class TestSsim:
    def test_equal_images(self) -> None:
        image = textured_image(0)
        assert ssim(image, image) == pytest.approx(1, abs=1e-6)

    def test_flat_images_by_hand(self) -> None:
        dark, light = np.full((20, 20, 3), 100, np.uint8), np.full((20, 20, 3), 150, np.uint8)
        c1 = (0.01 * 255) ** 2
        expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
        assert ssim(dark, light) == pytest.approx(expected, abs=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_agrees_with_scikit_image(self, kind: str) -> None:
        metrics = peer("skimage.metrics")
        reference, image = image_pair(kind)
        theirs = metrics.structural_similarity(
            reference,
            image,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2,
            data_range=255,
        )
        assert ssim(reference, image) == pytest.approx(theirs, abs=1e-4)

    @pytest.mark.parametrize("kind", KINDS)
    def test_agrees_with_torchmetrics_inside_the_borders(self, kind: str) -> None:
        # torchmetrics averages over the mirrored borders too, which makes its own figure another one.
        torch = peer("torch")
        functional = peer("torchmetrics.functional.image")
        reference, image = image_pair(kind)
        x, y = (torch.from_numpy(array).permute(2, 0, 1)[None].double() for array in (image, reference))
        _, similarity_map = functional.structural_similarity_index_measure(
            x, y, data_range=255.0, return_full_image=True
        )
        theirs = float(similarity_map[..., 5:-5, 5:-5].mean())
        assert ssim(reference, image) == pytest.approx(theirs, abs=1e-4)

    @settings(max_examples=20, deadline=None)
    @given(first=st.integers(0, 1000), second=st.integers(0, 1000))
    def test_symmetric_and_at_most_one(self, first: int, second: int) -> None:
        x, y = textured_image(first, (16, 16)), textured_image(second, (16, 16))
        assert ssim(x, y) == pytest.approx(ssim(y, x), abs=1e-6)
        assert ssim(x, y) <= 1 + 1e-6

    def test_smaller_than_the_window(self) -> None:
        image = np.zeros((10, 40, 3), np.uint8)
        with pytest.raises(ValueError, match="at least 11"):
            ssim(image, image)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_bad_pairs(score: object) -> None:
    assert callable(score)
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(TypeError, match="float32"):
        score(image, image.astype(np.float32))
    with pytest.raises(ValueError, match="same"):
        score(image, image[:, :12])
    with pytest.raises(ValueError, match=r"\[H, W, 3\]"):
        score(image[..., 0], image[..., 0])


class TestCalibration:
    def test_counts_confidences_and_those_that_are_right(self) -> None:
        reference = np.array([[0, 1, 255], [2, 2, 2]], np.uint8)
        prediction = np.array([[0, 0, 0], [2, 1, 2]], np.uint8)
        confidence = np.array([[255, 100, 100], [100, 100, 255]], np.uint8)
        counts = confidence_counts(reference, prediction, confidence)
        assert counts[255].tolist() == [2, 2]
        assert counts[100].tolist() == [3, 1]
        assert counts.sum(0).tolist() == [5, 3]

    def test_confidence_that_comes_true_has_no_error(self) -> None:
        counts = np.zeros((256, 2), np.int64)
        counts[51], counts[204] = (1000, 200), (1000, 800)
        found = calibration(counts)
        assert found.ece == pytest.approx(0, abs=1e-9)
        risks = dict(found.risk_coverage)
        assert risks[0.5] == pytest.approx(0.2)
        assert risks[1.0] == pytest.approx(0.5)

    def test_overconfidence_is_what_is_too_much(self) -> None:
        counts = np.zeros((256, 2), np.int64)
        counts[255] = (100, 74)
        assert calibration(counts).ece == pytest.approx(0.26)

    def test_risk_falls_with_coverage_where_confidence_ranks(self) -> None:
        given = np.full(256, 10)
        counts = np.stack([given, np.arange(256) * 10 // 255], 1)
        risks = [risk for _, risk in calibration(counts).risk_coverage]
        assert risks == sorted(risks)

    def test_nothing_scored(self) -> None:
        with pytest.raises(ValueError, match="no pixel was scored"):
            calibration(np.zeros((256, 2), np.int64))


def test_percentiles_of_nothing_are_none() -> None:
    assert np.isnan(percentiles([])).all()
    assert percentiles([float(n) for n in range(101)]) == (50, 95, 99)
