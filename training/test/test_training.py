"""coop-train and coop-export as commands, on a data set that the test writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from coop_training import evaluate, export
from coop_training.bundle_weights import load_bundle_weights
from coop_training.checkpoint import load_weights, read_facts
from coop_training.config import TrainConfig, load_config
from coop_training.data import AdverseCrops, Conditions, random_view
from coop_training.frames import load_frames
from coop_training.layouts.frame import LabelledFrame
from coop_training.model import Cooperative
from safetensors.torch import load_file
from smoke_run import run
from toy_bundle import open_pipeline

from coop_perception.camera import Intrinsics
from coop_perception.contracts import network_size
from coop_perception.model.bundle import load_bundle
from coop_perception.model.pipeline import OUTPUTS
from coop_perception.sample_scene.drive import SampleDrive
from coop_perception.views import scene_view, sensor_view

HEIGHT, WIDTH = 96, 128


def test_the_papers_networks_train_and_run_as_a_bundle(coop_train: Callable[..., int], tmp_path: Path) -> None:
    out, bundle = tmp_path / "run", tmp_path / "bundle"
    size = ("--set=input.height=64", "--set=data.crop=[32,32]")
    steps = [
        f"--set=stages.{stage}={{steps: 1, batch: 2}}" for stage in ("segmenter", "refinement", "restoration", "joint")
    ]
    assert coop_train(out, "--set=variant=paper", "--set=losses.features=segmenter", *size, *steps) == 0
    assert run(export.main, "--checkpoint", out / "joint.safetensors", "--out", bundle) == 0
    (result,) = open_pipeline(bundle).run([np.zeros((64, 64, 3), np.uint8)], OUTPUTS)
    assert result.restored is not None
    assert result.restored.shape == (64, 64, 3)


def test_all_stages_then_export_then_evaluation(root: Path, exported: Path, tmp_path: Path) -> None:
    out, bundle = exported / "run", exported / "bundle"
    before = load_file(out / "restoration.safetensors")
    after = load_file(out / "joint.safetensors")
    changed = {key.split(".")[0] for key in after if not np.array_equal(after[key], before[key])}
    assert changed == {"refinement", "restoration", "d1", "d2"}  # the segmenter is the one that exists already
    logged = [json.loads(line)["stage"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(logged)) == ["segmenter", "refinement", "restoration", "joint"]

    pipeline = open_pipeline(bundle)
    (result,) = pipeline.run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)], OUTPUTS)
    assert result.restored is not None
    assert result.restored.shape == (HEIGHT, WIDTH, 3)
    facts = load_bundle(bundle).facts
    assert facts["training"]["config"]["name"] == "smoke"
    assert list(facts["training"]["stages"]) == ["segmenter", "refinement", "restoration", "joint"]
    assert facts["training"]["stages"]["joint"]["hours"] > 0

    folders = ("--images", root / "images/train", "--labels", root / "labels/train")
    arguments = ("--bundle", bundle, *folders, "--conditions", "fog,jpeg", "--out", tmp_path / "eval")
    assert run(evaluate.main, *arguments) == 0
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["images"] == 4
    assert [len(results["conditions"][name]["levels"]) for name in ("fog", "jpeg")] == [3, 4]
    for scores in (results["clean"], results["conditions"]["fog"], *results["conditions"]["jpeg"]["levels"]):
        assert set(scores["raw"]) == set(scores["refined"]) == {"pa", "mpa", "miou", "fwiou"}
        assert set(scores["degraded"]) == set(scores["restored"]) == {"psnr", "ssim"}
    fog = results["conditions"]["fog"]
    assert fog["degraded"]["psnr"] == pytest.approx(np.mean([level["degraded"]["psnr"] for level in fog["levels"]]))
    assert results["clean"]["degraded"] == pytest.approx({"psnr": 60.0, "ssim": 1.0})


def test_training_begins_with_a_bundle(
    coop_train: Callable[..., int], exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, further = exported / "bundle", tmp_path / "further"
    only = ("--set=stages.restoration=null", "--set=stages.joint=null")
    begun = (*(f"--set=stages.{stage}.learning_rate=1e-9" for stage in ("segmenter", "refinement")), *only)
    assert coop_train(further, f"--set=start_from={bundle}", *begun) == 0
    image = SampleDrive(5, WIDTH, HEIGHT).frame(0).image
    (of_bundle,) = open_pipeline(bundle).run([image], OUTPUTS)
    trained = further / "refinement.safetensors"
    config = TrainConfig.model_validate_json(read_facts(trained)["config"])
    model = Cooperative(config).eval()
    load_weights(trained, model.deployed())
    sizes = config.input.sizes
    scene = scene_view(image, network_size(sizes, *image.shape[:2]))
    view = {"frame": image[None], "image": scene[None], "sensor": sensor_view(image, sizes.sensor)[None]}
    (of_run,) = export.results(model, [view])
    for name in ("mask_raw", "mask"):
        one, other = np.asarray(getattr(of_bundle, name)), np.asarray(of_run[name])[0]
        assert one.shape == other.shape
        assert (one == other).mean() > 0.99
        assert len(np.unique(one)) > 1
    # What is restored rests on an estimate that is fitted anew; the restoration's weights are the bundle's, as rounded.
    ours, theirs = load_file(trained), load_file(exported / "run" / "joint.safetensors")
    anew = load_bundle_weights(bundle, Cooperative(config), config)["restoration"]
    kept = [name for name in theirs if name.startswith("restoration.") and name.partition(".")[2] not in anew]
    assert len(kept) > 50
    for name in kept:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)

    assert coop_train(tmp_path / "another", f"--set=start_from={tmp_path}", *begun) == 1
    assert f"coop-train: {tmp_path / 'bundle.yaml'}" in capsys.readouterr().err


def test_held_out_drives_are_left_out(config_file: Path) -> None:
    assert len(load_frames(load_config(config_file).data, ())) == 3


def frames() -> list[LabelledFrame]:
    drive = SampleDrive(4, WIDTH, HEIGHT)
    frame = drive.frame(0)
    return [LabelledFrame(frame.image, frame.mask, frame.depth.astype(np.float16), drive.intrinsics)]


def crops(clear: float = 0.2, length: int = 12) -> AdverseCrops:
    return AdverseCrops(frames(), length, (64, 96), Conditions(("fog", "gaussian_noise"), clear), 0, (0.9, 1.3))


def test_samples_depend_on_their_index_alone() -> None:
    whole, resumed = list(crops()), crops()
    for index in (11, 8):
        np.testing.assert_array_equal(resumed[index].degraded, whole[index].degraded)
        np.testing.assert_array_equal(resumed[index].mask, whole[index].mask)


def test_conditions_are_balanced_and_say_what_was_done() -> None:
    samples = list(crops(length=90, clear=1 / 3))
    there = torch.stack([sample.strengths for sample in samples]) > 0
    assert min(*there.sum(0).tolist(), int((~there.any(1)).sum())) > 15
    assert there.sum(1).max() == 1
    for sample in samples:
        same = np.array_equal(sample.clear, sample.degraded)
        assert same == (not sample.strengths.any())
        assert sample.clear.shape == (3, 64, 96)
        assert 0 <= sample.strengths.min() <= sample.strengths.max() <= 1


def test_intrinsics_follow_the_view() -> None:
    """Fog is thicker with distance along the ray, so a mirrored view must mirror the principal point too."""
    frame = frames()[0]
    k = frame.intrinsics
    off_centre = LabelledFrame(
        frame.image, frame.mask, frame.depth, Intrinsics(k.width, k.height, k.fx, k.fy, 20.0, k.cy)
    )
    seen = {
        round(random_view(off_centre, (64, 96), (1.0, 1.0), np.random.default_rng(seed)).intrinsics.cx)
        for seed in range(8)
    }
    assert seen == {20, WIDTH - 1 - 20}


def test_image_and_mask_are_scaled_alike() -> None:
    """An edge in the image and the same edge in the mask lie in the same place, to half a pixel."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:, 61:] = 200
    mask = (image[..., 0] > 0).astype(np.uint8)
    frame = LabelledFrame(image, mask, np.ones((HEIGHT, WIDTH), np.float16), Intrinsics.from_fov(WIDTH, HEIGHT))
    scaled = 0
    for seed in range(12):
        view = random_view(frame, (64, 96), (1.1, 1.5), np.random.default_rng(seed))
        row = view.image[10, :, 0] / view.image[10, :, 0].max()  # each channel is exposed on its own
        rising = row if row[-1] > 0.5 else row[::-1]
        edge_in_image = len(row) - rising.sum()
        edge_in_mask = len(row) - (view.mask[10] == 1).sum()
        assert abs(edge_in_image - edge_in_mask) <= 0.5 + 0.05, seed
        assert view.intrinsics.fx == pytest.approx(frame.intrinsics.fx * view.mask.shape[1] / WIDTH, rel=0.02)
        scaled += view.mask.shape[1] != WIDTH
    assert scaled
