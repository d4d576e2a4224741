"""coop-adapt: frames of one's own camera, the fit, what is refused, and the new bundle."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from coop_training import adapt, adaptation, adaptation_check
from coop_training.adaptation import Statistics, fit_estimate
from coop_training.adaptation_check import MARGIN_DB, Measured, OnCamera, table, worse
from coop_training.camera_frames import CameraError, read_camera
from coop_training.networks.estimate import Estimator
from coop_training.results import ConditionScores, ImageScores, MaskScores, Results, Scores
from onnx import numpy_helper
from small_recording import COUNT, picture, write_bag
from smoke_run import HEIGHT, WIDTH, run
from toy_bundle import rewrite_network

from coop_perception.exit_codes import INCOMPLETE
from coop_perception.model.bundle import load_bundle
from coop_perception.sample_scene.drive import SampleDrive


def write_images(folder: Path, count: int) -> Path:
    folder.mkdir()
    drive = SampleDrive(5, WIDTH, HEIGHT)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03}.png"), drive.frame(20 * index).image[..., ::-1])
    return folder


def test_frames_are_spread_over_recordings_and_folders_and_the_last_are_held_out(tmp_path: Path) -> None:
    bag, folder = write_bag(tmp_path / "bag"), write_images(tmp_path / "images", 6)
    said: list[str] = []
    frames = read_camera([bag], [folder], None, 100, said.append)
    assert (len(frames.fitted), len(frames.held)) == (6 + 4, 2 + 2)
    np.testing.assert_array_equal(frames.fitted[5], picture(5))
    np.testing.assert_array_equal(frames.held[1], picture(COUNT - 1))
    assert [line.split(":")[0] for line in said] == [str(bag), str(folder)]
    few = read_camera([bag], [folder], "/front/image_raw", 8, said.append)
    assert (len(few.fitted), len(few.held)) == (6, 2)


def test_frames_that_are_nearly_black_are_told(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 8)
    cv2.imwrite(str(folder / "003.png"), np.full((HEIGHT, WIDTH, 3), 4095, np.uint16))
    said: list[str] = []
    read_camera([], [folder], None, 100, said.append)
    assert f"warning: {folder}: 1 of 8 images are nearly black" in said[-1]


def test_a_recording_of_which_much_cannot_be_read_makes_the_bundle_an_incomplete_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As metadata.yaml says there are more images than there are."""
    bag, images = write_bag(tmp_path / "bag"), write_images(tmp_path / "images", 8)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace(f"message_count: {COUNT}", f"message_count: {2 * COUNT}"))
    monkeypatch.setattr(adapt, "adapt_bundle", lambda *_: "made")
    arguments = ("--bundle", tmp_path, "--bag", bag, "--images", images, "--out", tmp_path / "out")
    assert run(adapt.main, *arguments) == INCOMPLETE
    said = f"incomplete: {bag}: only {COUNT} of {2 * COUNT} frames that were chosen can be read"
    assert said in capsys.readouterr().err
    assert run(adapt.main, *arguments, "--allow-incomplete") == 0


def test_a_handful_of_frames_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="images: 3 frames that can be read, expected 8 at least"):
        read_camera([], [write_images(tmp_path / "images", 3)], None, 100, lambda line: None)


def test_of_folders_of_one_frame_each_none_is_left_to_fit_to(tmp_path: Path) -> None:
    folders = [write_images(tmp_path / str(index), 1) for index in range(8)]
    with pytest.raises(CameraError, match="one frame of each, which is held out"):
        read_camera([], folders, None, 100, lambda line: None)


def test_a_false_alarm_weighs_as_much_as_in_the_first_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clear frames and those under a condition are alike, the condition is called present the more seldom."""
    monkeypatch.setattr(adaptation, "STEPS", 120)
    strengths = torch.zeros(40, 1)
    strengths[20:] = 0.5
    found = []
    for alarm in (1.0, 12.0):
        torch.manual_seed(0)
        estimator = Estimator(200, 1).eval().requires_grad_(False)
        size = len(estimator.centre)
        camera = Statistics(torch.zeros(40, size), strengths)
        known = Statistics(torch.randn(60, size), torch.zeros(60, 1))
        fit_estimate(estimator, copy.deepcopy(estimator), camera, known, torch.tensor([alarm]))
        with torch.no_grad():
            found.append(float(estimator(camera.statistics)[0].sigmoid().mean()))
    assert found[0] > found[1] + 0.03


def test_the_estimate_learns_what_clear_frames_of_a_camera_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its clear frames lie where others are adverse; elsewhere the estimate stays."""
    monkeypatch.setattr(adaptation, "STEPS", 200)
    torch.manual_seed(0)
    estimator = Estimator(200, 2).eval().requires_grad_(False)
    size = len(estimator.centre)
    known = torch.randn(60, size)
    with torch.no_grad():
        estimator.presence[-1].bias.copy_(torch.tensor([2.0, -3.0]))
        before = estimator(known)[0].sigmoid()
    camera = torch.randn(1, size) + 0.3 * torch.randn(40, size)
    strengths = torch.zeros(40, 2)
    strengths[20:, 1] = 0.5
    camera[20:, :40] += 2
    old = copy.deepcopy(estimator)
    fit_estimate(estimator, old, Statistics(camera, strengths), Statistics(known, torch.zeros(60, 2)), torch.ones(2))
    with torch.no_grad():
        presence, kept = estimator(camera)[0].sigmoid(), estimator(known)[0].sigmoid()
    assert presence[:20].max() < 0.5
    assert presence[20:, 1].mean() > 0.5
    assert (kept - before).abs().mean() < 0.1
    assert torch.equal(estimator.familiar[0][-1].weight, old.familiar[0][-1].weight)


def scores(psnr: float, miou: float, **more: float) -> Scores:
    masks = MaskScores(pa=miou, mpa=miou, miou=miou, fwiou=miou)
    images = ImageScores(psnr=20, ssim=0.5)
    return Scores(raw=masks, refined=masks, degraded=images, restored=ImageScores(psnr=psnr, ssim=0.5), **more)


def measured(psnr: float = 25, miou: float = 0.6, changed: float = 0, false_alarms: float = 0.5) -> Measured:
    fog = ConditionScores(**scores(psnr, miou).model_dump(), levels=[])
    drives = Results(bundle="b", method="m", images=4, clean=scores(100, 0.7, changed=changed), conditions={"fog": fog})
    return Measured(OnCamera(false_alarms, 0, 0.9, 0.8, 3, -0.1, 0), drives)


def test_what_is_worse_by_more_than_the_margins_is_named() -> None:
    assert worse(measured(), measured(25 - 0.9 * MARGIN_DB, 0.596, 0, 0.1)) == []
    found = worse(measured(), measured(24.4, 0.59, 0.25, 0.6))
    assert [line.split(" ")[0] for line in found] == ["fog", "masks", "clear", "false"]
    assert "24.40 dB instead of 25.00" in found[0]
    poor = measured()
    assert "80.0 %" in worse(measured(), replace(poor, camera=replace(poor.camera, recall=0.6)))[0]
    assert "2.40 dB instead of 3.00" in worse(measured(), replace(poor, camera=replace(poor.camera, gain=2.4)))[0]


def test_the_table_has_both() -> None:
    rows = table(measured(), measured(false_alarms=0)).splitlines()
    assert any("with a condition present" in row and "50.0 %" in row and " 0.0 %" in row for row in rows)
    assert any("fog" in row and row.count("5.00") == 2 for row in rows)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"DRIVES": 1, "FRAMES_PER_DRIVE": 2, "PER_FRAME": 1, "PER_REHEARSED": 1, "STEPS": 30, "RESTORED": 2}
    for name, value in values.items():
        monkeypatch.setattr(adaptation, name, value)
    monkeypatch.setattr(adaptation, "CROP", (64, 96))
    for name, value in (("DRIVES", 1), ("FRAMES_PER_DRIVE", 1), ("PER_FRAME", 1)):
        monkeypatch.setattr(adaptation_check, name, value)


def weights(bundle: Path, network: str) -> dict[str, np.ndarray]:
    held = onnx.load(load_bundle(bundle).networks[network].path).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in held}


@pytest.mark.usefixtures("few")
def test_command(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new bundle with other estimator and restoration; everything else is the old one's, which stays."""
    images, old, new = write_images(tmp_path / "images", 8), exported / "bundle", tmp_path / "mine"
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    monkeypatch.setattr(adapt, "worse", lambda before, after: [])
    arguments = ("--bundle", old, "--images", images, "--restoration", 2, "--out", new)
    assert run(adapt.main, *arguments) == 0, capsys.readouterr().err
    assert "familiarity" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    for network, part in (("refinement", "refinement.estimator."), ("restoration", "restoration.")):
        was, now = weights(old, network), weights(new, network)
        changed = {name for name in was if not np.array_equal(was[name], now[name])}
        assert changed
        assert all(name.startswith(f"model.{part}") for name in changed)
    manifest = yaml.safe_load((new / "bundle.yaml").read_text())
    assert manifest["name"] == "mine"
    assert manifest["training"]["adapted"]["frames"] == 6
    assert set(manifest["figures"]["camera"]) == {"before", "after"}
    assert run(adapt.main, *arguments) == 1
    assert "mine: exists" in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_a_bundle_that_became_worse_is_not_written(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images", 8)
    monkeypatch.setattr(adapt, "worse", lambda before, after: ["fog is worse"])
    arguments = ("--bundle", exported / "bundle", "--images", images, "--out", tmp_path / "mine")
    assert run(adapt.main, *arguments) == 1
    assert "not written, for it would be worse" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_bundle_whose_graph_lacks_a_weight_is_refused_before_the_work(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = shutil.copytree(exported / "bundle", tmp_path / "old")
    model = onnx.load(old / "refinement.onnx")
    lost, other = "model.refinement.estimator.familiar.0.1.bias", "another_one"
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == lost)
    tensor.name = other
    for node in model.graph.node:
        node.input[:] = [other if name == lost else name for name in node.input]
    rewrite_network(old, "refinement", model)
    monkeypatch.setattr(adapt, "measure", lambda *_: pytest.fail("it was measured"))
    images = write_images(tmp_path / "images", 8)
    assert run(adapt.main, "--bundle", old, "--images", images, "--out", tmp_path / "mine") == 1
    assert f"does not hold {lost}" in capsys.readouterr().err


def test_something_to_adapt_to_is_needed(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(adapt.main, "--bundle", exported / "bundle", "--out", tmp_path / "mine")
    assert "nothing to adapt to" in capsys.readouterr().err
