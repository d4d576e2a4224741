"""Scores of masks and images: the one implementation, for training, evaluation and reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from coop_perception.classes import IGNORE_ID

PSNR_CAP = 60.0
"""dB: what an image that equals its reference (infinite PSNR) counts as in a mean, of which a few higher ones would
decide. Rounding to 8 bits alone leaves 58.9 dB."""

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_C1 = (0.01 * 255) ** 2
_SSIM_C2 = (0.03 * 255) ** 2
_GREY = 128


def confusion_matrix(
    reference: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    num_classes: int,
    ignore_id: int = IGNORE_ID,
) -> npt.NDArray[np.int64]:
    """Counts pixels by true and predicted class. Matrices of several images add up to that of the whole set.

    Args:
        reference: integers, any shape: 0..num_classes-1, or ``ignore_id`` where a pixel is not scored.
        prediction: integers of the same shape. An id outside 0..num_classes-1 on a scored pixel says nothing about it:
            it counts as wrong, for the pixel's true class, and against no other class.
        num_classes: number of classes C.
        ignore_id: id of unscored pixels in the reference.

    Returns:
        int64 [C, C + 1]: row = true class, column = predicted class, last column = an id that is no class.

    Raises:
        ValueError: the shapes differ, or the reference holds an id that is neither a class nor ``ignore_id``.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference has shape {reference.shape}, prediction {prediction.shape}; expected equal shapes")
    scored = reference != ignore_id
    true = reference[scored].astype(np.int64)
    if true.size and not 0 <= true.min() <= true.max() < num_classes:
        wrong = sorted(set(np.unique(true).tolist()) - set(range(num_classes)))
        raise ValueError(f"reference holds ids {wrong}, expected 0..{num_classes - 1}, or {ignore_id} where not scored")
    predicted = prediction[scored].astype(np.int64)
    predicted[(predicted < 0) | (predicted >= num_classes)] = num_classes
    counts = np.bincount(true * (num_classes + 1) + predicted, minlength=num_classes * (num_classes + 1))
    return counts.reshape(num_classes, num_classes + 1).astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True)
class SegmentationScores:
    """Scores of one pooled confusion matrix, all in 0..1. A class absent from the reference enters no mean."""

    pa: float
    """Pixel accuracy: the share of scored pixels that have their true class."""
    mpa: float
    """Mean over classes of the share of a class's pixels that are found."""
    miou: float
    """Mean over classes of intersection over union."""
    fwiou: float
    """Mean of intersection over union, weighted by a class's share of the reference's pixels."""
    iou: tuple[float | None, ...]
    """Intersection over union by class id; None for a class absent from the reference."""


def segmentation_scores(matrix: npt.NDArray[np.int64]) -> SegmentationScores:
    """Scores of a whole set from its pooled confusion matrix.

    Source: Garcia-Garcia et al., "A Review on Deep Learning Techniques Applied to Semantic Segmentation", 2017.

    Args:
        matrix: int64 [C, C + 1], the sum of the images' :func:`confusion_matrix`.

    Returns:
        The scores.

    Raises:
        ValueError: the matrix is empty: no pixel was scored.
    """
    if not matrix.any():
        raise ValueError("no pixel was scored: the reference masks hold nothing but unlabelled pixels")
    scores = pooled_scores(matrix)
    return SegmentationScores(
        pa=float(scores.pa),
        mpa=float(scores.mpa),
        miou=float(scores.miou),
        fwiou=float(scores.fwiou),
        iou=tuple(None if math.isnan(value) else float(value) for value in scores.iou),
    )


@dataclass(frozen=True, slots=True)
class PooledScores:
    """As :class:`SegmentationScores`, of many confusion matrices [...] at a time; NaN where nothing was scored."""

    pa: npt.NDArray[np.float64]
    mpa: npt.NDArray[np.float64]
    miou: npt.NDArray[np.float64]
    fwiou: npt.NDArray[np.float64]
    iou: npt.NDArray[np.float64]
    """[..., C]; NaN for a class absent from the reference."""


def pooled_scores(matrices: npt.NDArray[np.number]) -> PooledScores:
    """Scores of confusion matrices [..., C, C + 1]."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1).astype(np.float64)
    in_reference = matrices.sum(axis=-1).astype(np.float64)
    in_prediction = matrices[..., :-1].sum(axis=-2)
    total = in_reference.sum(axis=-1)
    present = in_reference > 0
    classes = present.sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(present, hits / in_reference, 0.0)
        iou = hits / np.where(present, in_reference + in_prediction - hits, np.nan)
        shares = np.where(present, iou, 0.0)
        return PooledScores(
            pa=hits.sum(axis=-1) / total,
            mpa=found.sum(axis=-1) / classes,
            miou=shares.sum(axis=-1) / classes,
            fwiou=(in_reference / total[..., None] * shares).sum(axis=-1),
            iou=iou,
        )


def _check_pair(reference: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> None:
    if reference.dtype != np.uint8 or image.dtype != np.uint8:
        raise TypeError(f"images are {reference.dtype} and {image.dtype}, expected uint8")
    if reference.shape != image.shape or reference.ndim != 3 or reference.size == 0:
        raise ValueError(f"images have shapes {reference.shape} and {image.shape}, expected the same [H, W, 3]")


def psnr(reference: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> float:
    r"""Peak signal-to-noise ratio, :math:`10 \log_{10}(255^2 / MSE)`, over all pixels and channels.

    Args:
        reference: uint8 [H, W, 3] RGB.
        image: uint8 [H, W, 3] RGB.

    Returns:
        dB; inf for equal images. Average with :func:`mean_psnr`.

    Raises:
        TypeError: an image is not uint8.
        ValueError: the shapes differ.
    """
    _check_pair(reference, image)
    squared_error = float(cv2.norm(reference, image, cv2.NORM_L2SQR))
    return 10 * math.log10(255**2 * reference.size / squared_error) if squared_error else math.inf


def mean_psnr(values: Sequence[float]) -> float:
    """Mean of per-image PSNRs, dB, with each capped at ``PSNR_CAP``."""
    return float(np.mean(np.minimum(values, PSNR_CAP)))


def ssim(reference: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> float:
    """Structural similarity: 11x11 Gaussian window of sigma 1.5, data range 255, mean over pixels and RGB channels.

    The mean runs over the pixels whose window lies inside the image, as in the authors' code and in scikit-image;
    torchmetrics averages over mirrored borders too. Source: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment:
    From Error Visibility to Structural Similarity", IEEE TIP 2004.

    Args:
        reference: uint8 [H, W, 3] RGB, at least 11 pixels each way.
        image: uint8 [H, W, 3] RGB.

    Returns:
        At most 1, which equal images have.

    Raises:
        TypeError: an image is not uint8.
        ValueError: the shapes differ, or the images are smaller than the window.
    """
    _check_pair(reference, image)
    if min(reference.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(f"images are {reference.shape[:2]}, expected at least {_SSIM_WINDOW} pixels each way for SSIM")

    def window_mean(values: npt.NDArray[np.float32]) -> cv2.typing.MatLike:
        return cv2.GaussianBlur(values, (_SSIM_WINDOW, _SSIM_WINDOW), _SSIM_SIGMA)

    # Variances do not change with an offset, and float32 keeps more of E[x^2] - E[x]^2 around zero. OpenCV's sums of
    # several terms go through memory once, which is where the time goes.
    x = reference.astype(np.float32) - _GREY
    y = image.astype(np.float32) - _GREY
    mean_x, mean_y = window_mean(x), window_mean(y)
    product, squares = window_mean(x * y), window_mean(x * x + y * y)
    means, mean_product = cv2.add(mean_x, mean_y), cv2.multiply(mean_x, mean_y)
    mean_squares = cv2.scaleAdd(mean_product, -2, cv2.multiply(means, means))
    # 2 E[x] E[y] and E[x]^2 + E[y]^2 with the offset again, and twice the covariance and both variances.
    offset = 2 * _GREY**2 + _SSIM_C1
    luminance = cv2.addWeighted(mean_product, 2, means, 2 * _GREY, offset)
    most_luminance = cv2.addWeighted(mean_squares, 1, means, 2 * _GREY, offset)
    structure = cv2.addWeighted(product, 2, mean_product, -2, _SSIM_C2)
    most_structure = cv2.addWeighted(squares, 1, mean_squares, -1, _SSIM_C2)
    likeness = cv2.divide(cv2.multiply(luminance, structure), cv2.multiply(most_luminance, most_structure))
    margin = _SSIM_WINDOW // 2
    return float(np.mean(cv2.mean(likeness[margin:-margin, margin:-margin])[:3]))


def percentiles(values: Sequence[float] | npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """p50, p95, p99 of numbers such as times; NaN without any."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    return float(p50), float(p95), float(p99)


def confidence_counts(
    reference: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    confidence: npt.NDArray[np.uint8],
    ignore_id: int = IGNORE_ID,
) -> npt.NDArray[np.int64]:
    """How often each confidence was given, and how often rightly. Counts of several images add up to the set's.

    Args:
        reference: integers [H,W], ``ignore_id`` where a pixel is not scored.
        prediction: integers of the same shape.
        confidence: uint8 of the same shape; 255 = certain.
        ignore_id: id of unscored pixels in the reference.

    Returns:
        int64 [256, 2]: pixels of each confidence, and those of them that have their true class.
    """
    scored = reference != ignore_id
    given = confidence[scored]
    right = given[prediction[scored] == reference[scored]]
    return np.stack([np.bincount(given, minlength=256), np.bincount(right, minlength=256)], 1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far confidence is what it says. All in 0..1."""

    ece: float
    """Expected calibration error: the mean distance of confidence from accuracy over 15 equal bins (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017)."""
    risk_coverage: tuple[tuple[float, float], ...]
    """(coverage, risk): the share of wrong pixels among the most confident share of all (Geifman and El-Yaniv,
    "Selective Classification for Deep Neural Networks", NeurIPS 2017)."""


_ECE_BINS = 15
_COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


def calibration(counts: npt.NDArray[np.int64]) -> Calibration:
    """Calibration of a whole set from its pooled :func:`confidence_counts`.

    Raises:
        ValueError: no pixel was scored.
    """
    total = int(counts[:, 0].sum())
    if total == 0:
        raise ValueError("no pixel was scored: the reference masks hold nothing but unlabelled pixels")
    # Most confident first; within one confidence the wrong ones are spread evenly.
    covered = np.concatenate([[0], counts[::-1, 0].cumsum()]) / total
    wrong = np.concatenate([[0], (counts[::-1, 0] - counts[::-1, 1]).cumsum()]) / total
    risks = np.interp(_COVERAGES, covered, wrong) / np.array(_COVERAGES)
    return Calibration(
        ece=float(calibration_errors(counts)),
        risk_coverage=tuple(zip(_COVERAGES, (float(risk) for risk in risks), strict=True)),
    )


_CONFIDENCES = np.arange(256) / 255
_BIN_STARTS = np.searchsorted(np.minimum((_CONFIDENCES * _ECE_BINS).astype(int), _ECE_BINS - 1), np.arange(_ECE_BINS))


def calibration_errors(counts: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    """Expected calibration error [...] of pooled :func:`confidence_counts` [..., 256, 2]; NaN where none was scored."""
    surplus = np.add.reduceat(counts[..., 0] * _CONFIDENCES - counts[..., 1], _BIN_STARTS, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(surplus).sum(axis=-1) / counts[..., 0].sum(axis=-1), np.float64)
