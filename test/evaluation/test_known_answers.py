"""What a run says of recordings whose answers are known, and of references that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Writer
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score
from small_recording import COUNT, SECOND, picture, write_bag
from toy_bundle import write_toy_bundle

from coop_perception.commands import evaluate_bag
from coop_perception.exit_codes import INCOMPLETE
from coop_perception.metrics import PSNR_CAP
from coop_perception.recordings.messages import IMAGE_TYPE, TYPES, image_message
from coop_perception.recordings.writer import RecordingWriter


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


def run(bundle: Path, out: Path, *arguments: object) -> dict[str, Any]:
    given = [*arguments, "--bundle", bundle, "--out", out, "--backend", "onnxruntime", "--threads", 1]
    evaluate_bag.main([str(argument) for argument in given])
    return summary_of(out)


def summary_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "summary.json").read_text())


def test_scores_are_what_others_compute_from_the_kept_outputs(tmp_path: Path, bundle: Path) -> None:
    summary = run(bundle, tmp_path / "out", write_bag(tmp_path / "bag"), "--outputs", "png")

    def kept(output: str) -> np.ndarray:
        files = sorted((tmp_path / "out/frames/front").glob(f"*.{output}.png"))
        return np.stack([cv2.imread(str(file), cv2.IMREAD_UNCHANGED) for file in files])

    images = np.stack([picture(index) for index in range(COUNT)])
    truth, clean = images[..., 1], 255 - images
    measures = summary["measures"]["all"]

    def same(name: str, expected: float) -> None:
        assert measures[name]["value"] == pytest.approx(expected, abs=1e-6), name

    for output, suffix in (("mask", ""), ("mask_raw", "_raw")):
        masks = kept(output)
        same(f"miou{suffix}", jaccard_score(truth.ravel(), masks.ravel(), average="macro"))
        same(f"fwiou{suffix}", jaccard_score(truth.ravel(), masks.ravel(), average="weighted"))
        same(f"pa{suffix}", accuracy_score(truth.ravel(), masks.ravel()))
        same(f"mpa{suffix}", balanced_accuracy_score(truth.ravel(), masks.ravel()))
        found = np.array(summary[output]["confusion"])
        assert (found[:, :-1] == confusion_matrix(truth.ravel(), masks.ravel())).all()
        assert not found[:, -1].any()
    same("disagreement", np.mean(kept("mask") != kept("mask_raw")))
    same("confidence", np.mean(kept("confidence") / 255))
    restored = kept("image_restored")[..., ::-1]
    for names, pictures in ((("psnr_degraded", "ssim_degraded"), images), (("psnr", "ssim"), restored)):
        psnrs, ssims = [], []
        for reference, image in zip(clean, pictures, strict=True):
            with np.errstate(divide="ignore"):
                psnrs.append(min(PSNR_CAP, peak_signal_noise_ratio(reference, image)))
            options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
            ssims.append(structural_similarity(reference, image, data_range=255, **options))
        same(names[0], np.mean(psnrs))
        same(names[1], np.mean(ssims))


def test_references_of_another_size_or_with_other_classes_cost_no_other_frame(tmp_path: Path, bundle: Path) -> None:
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(COUNT):
            stamp = index * SECOND // 10
            mask = np.ascontiguousarray(picture(index)[..., 1])
            clean = 255 - picture(index)
            if index == 2:
                mask, clean = np.ascontiguousarray(mask[:-8]), np.ascontiguousarray(clean[:-8])
            if index == 5:
                mask[3] = 77
            writer.write("/front/image_raw", image_message(picture(index), "rgb8", "front", stamp), IMAGE_TYPE, stamp)
            writer.write("/front/reference/mask", image_message(mask, "mono8", "front", stamp), IMAGE_TYPE, stamp)
            writer.write("/front/reference/image", image_message(clean, "rgb8", "front", stamp), IMAGE_TYPE, stamp)
    with pytest.raises(SystemExit) as stopped:
        run(bundle, tmp_path / "out", tmp_path / "bag")
    assert stopped.value.code == INCOMPLETE
    summary = summary_of(tmp_path / "out")
    assert summary["frames"]["processed"] == COUNT
    assert summary["mask"]["pa"] == 1.0
    assert sum(map(sum, summary["mask"]["confusion"])) == (COUNT - 2) * picture(0)[..., 0].size
    said = "\n".join(summary["warnings"])
    assert "frame 2: reference mask: " in said
    assert "frame 2: reference image: images have shapes" in said
    assert "frame 5: reference mask: reference holds ids [77]" in said
    assert f"2 of {COUNT} reference masks of front cannot be used" in said


def test_cameras_of_several_kinds_in_one_recording(tmp_path: Path, bundle: Path) -> None:
    """Sizes and encodings of their own, and references for one of them."""
    with RecordingWriter(tmp_path / "bag") as writer:
        for index in range(COUNT):
            stamp, image = index * SECOND // 10, picture(index)
            mask = image_message(np.ascontiguousarray(image[..., 1]), "mono8", "front", stamp)
            writer.write("/front/image_raw", image_message(image, "rgb8", "front", stamp), IMAGE_TYPE, stamp)
            writer.write("/front/reference/mask", mask, IMAGE_TYPE, stamp)
            large = np.ascontiguousarray(np.kron(image, np.ones((2, 2, 1), np.uint8))[..., ::-1])
            message = image_message(large, "rgb8", "rear", stamp)
            message.encoding = "bgr8"
            writer.write("/rear/image_raw", message, IMAGE_TYPE, stamp)
    summary = run(bundle, tmp_path / "out", tmp_path / "bag")
    assert summary["frames"] == {"read": 2 * COUNT, "processed": 2 * COUNT, "dropped": 0, "failed": 0}
    assert summary["mask"]["pa"] == 1.0
    assert "miou" in summary["measures"]["camera"]["front"]
    assert "miou" not in summary["measures"]["camera"]["rear"]


def test_a_recording_of_no_images_is_said_and_costs_no_other_one(tmp_path: Path, bundle: Path) -> None:
    empty = tmp_path / "bags/empty"
    empty.parent.mkdir()
    with Writer(empty, version=9) as writer:
        writer.add_connection("/front/image_raw", IMAGE_TYPE, typestore=TYPES)
    with pytest.raises(SystemExit, match=r"there is no image topic .* with messages; topics in .*/empty: /front"):
        run(bundle, tmp_path / "alone", empty)
    write_bag(tmp_path / "bags/full")
    with pytest.raises(SystemExit) as stopped:
        run(bundle, tmp_path / "out", tmp_path / "bags")
    assert stopped.value.code == INCOMPLETE
    summary = summary_of(tmp_path / "out")
    assert summary["frames"]["processed"] == COUNT
    ((name, error),) = ((bag["name"], bag["error"]) for bag in summary["failed_bags"])
    assert name == "empty"
    assert "there is no image topic" in error
