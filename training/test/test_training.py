"""coop-train and coop-export as commands, on a data set that the test writes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from coop_training import evaluate, export, train
from coop_training.config import ConfigError, load_config
from coop_training.data import AdverseCrops, LabelledFrame, load_frames, random_view
from safetensors.torch import load_file

from coop_perception.bundle import load_bundle
from coop_perception.camera import Intrinsics
from coop_perception.pipeline import OUTPUTS, Pipeline
from coop_perception.sample_drive import SampleDrive

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of a sample drive in CamVid's layout, one of them of a drive to be held out."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    drive = SampleDrive(3, WIDTH, HEIGHT)
    for index, name in enumerate(("a_0", "a_1", "a_2", "held_3")):
        frame = drive.frame(10 * index)
        cv2.imwrite(str(root / f"images/train/{name}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        cv2.imwrite(str(root / f"labels/train/{name}.png"), frame.mask)
    return root


@pytest.fixture
def config_file(root: Path, tmp_path: Path) -> Path:
    stage = {"steps": 3, "batch": 2}
    config = {
        "name": "smoke",
        "height": HEIGHT,
        "width": WIDTH,
        "data": {"root": str(root), "exclude": ["held"], "sample_drives": 1, "frames_per_drive": 1, "crop": [64, 96]},
        "stages": dict.fromkeys(("segmenter", "refinement", "restoration", "joint"), stage),
    }
    path = tmp_path / "smoke.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run(monkeypatch: pytest.MonkeyPatch, command: object, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["command", *arguments])
    return command.main()  # type: ignore[attr-defined, no-any-return]


def test_all_stages_then_export_then_evaluation(
    root: Path, config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bundle = tmp_path / "run", tmp_path / "bundle"
    assert run(monkeypatch, train, "--config", str(config_file), "--out", str(out)) == 0
    before = load_file(out / "restoration.safetensors")
    after = load_file(out / "joint.safetensors")
    changed = {key.split(".")[0] for key in after if not np.array_equal(after[key], before[key])}
    assert changed == {"refinement", "restoration"}  # the segmenter is the one that exists already
    logged = [json.loads(line)["stage"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(logged)) == ["segmenter", "refinement", "restoration", "joint"]

    assert run(monkeypatch, export, "--checkpoint", str(out / "joint.safetensors"), "--out", str(bundle)) == 0
    pipeline = Pipeline(load_bundle(bundle))
    (result,) = pipeline.run([np.zeros((HEIGHT, WIDTH, 3), np.uint8)], OUTPUTS)
    assert result.restored is not None
    assert result.restored.shape == (HEIGHT, WIDTH, 3)
    facts = load_bundle(bundle).facts
    assert facts["training"]["config"]["name"] == "smoke"

    folders = ("--images", str(root / "images/train"), "--labels", str(root / "labels/train"))
    arguments = ("--bundle", str(bundle), *folders, "--conditions", "fog,jpeg", "--out", str(tmp_path / "eval"))
    assert run(monkeypatch, evaluate, *arguments) == 0
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["images"] == 4
    assert [len(results["conditions"][name]["levels"]) for name in ("fog", "jpeg")] == [3, 4]
    for scores in (results["clean"], results["conditions"]["fog"], *results["conditions"]["jpeg"]["levels"]):
        assert set(scores["raw"]) == set(scores["refined"]) == {"pa", "mpa", "miou", "fwiou"}
        assert set(scores["degraded"]) == set(scores["restored"]) == {"psnr", "ssim"}
    fog = results["conditions"]["fog"]
    assert fog["degraded"]["psnr"] == pytest.approx(np.mean([level["degraded"]["psnr"] for level in fog["levels"]]))
    assert results["clean"]["degraded"] == pytest.approx({"psnr": 100.0, "ssim": 1.0})


class StopTrainingError(Exception):
    """As if the process had been killed."""


def test_resumed_stage_ends_where_the_uninterrupted_one_does(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "WARMUP_STEPS", 1)  # steps large enough that forgotten optimiser state would show
    arguments = ("--config", str(config_file), "--stage", "segmenter", "--out")
    assert run(monkeypatch, train, *arguments, str(tmp_path / "whole")) == 0

    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", 0.0)
    save = train.save_progress

    def save_then_stop(path: Path, facts: dict[str, str], steps: int, *rest: object) -> None:
        save(path, facts, steps, *rest)  # type: ignore[arg-type]
        if steps == 2:
            raise StopTrainingError

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_progress", save_then_stop)
        with pytest.raises(StopTrainingError):
            run(patch, train, *arguments, str(tmp_path / "cut"))
    assert run(monkeypatch, train, *arguments, str(tmp_path / "cut"), "--resume") == 0
    whole, cut = (load_file(tmp_path / name / "segmenter.safetensors") for name in ("whole", "cut"))
    for key in whole:
        np.testing.assert_allclose(cut[key].numpy(), whole[key].numpy(), rtol=1e-5, atol=1e-6, err_msg=key)


def test_a_stage_needs_the_one_before(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, train, "--config", str(config_file), "--stage", "joint", "--out", str(tmp_path / "run"))
    assert code == 1
    assert "restoration.safetensors: missing; run stage restoration first" in capsys.readouterr().err


def test_held_out_drives_are_left_out(config_file: Path) -> None:
    assert len(load_frames(load_config(config_file).data)) == 3 + 1


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"stages": {}}, "stages.segmenter: Field required"),
        ({"guidance": "truth"}, "guidance: Input should be"),
        ({"learning_rate": 1}, "learning_rate: Extra inputs are not permitted"),
        ({"conditions": ["mist"]}, "conditions: .*'mist'.* known: .*fog"),
        ({"height": 90}, "height: Input should be a multiple of 4"),
    ],
)
def test_configurations_that_cannot_be(config_file: Path, edit: dict[str, object], says: str) -> None:
    config_file.write_text(yaml.safe_dump({**yaml.safe_load(config_file.read_text()), **edit}))
    with pytest.raises(ConfigError, match=f"smoke.yaml: .*{says}"):
        load_config(config_file)


def frames() -> list[LabelledFrame]:
    drive = SampleDrive(4, WIDTH, HEIGHT)
    frame = drive.frame(0)
    return [LabelledFrame(frame.image, frame.mask, frame.depth.astype(np.float16), drive.intrinsics)]


def crops(first: int = 0, clear: float = 0.2, length: int = 12) -> AdverseCrops:
    return AdverseCrops(frames(), length, (64, 96), ("fog", "gaussian_noise"), clear, 0, (0.9, 1.3), first)


def test_samples_depend_on_their_index_alone() -> None:
    for resumed, whole in zip(list(crops(first=8)), list(crops())[8:], strict=True):
        np.testing.assert_array_equal(resumed.degraded, whole.degraded)
        np.testing.assert_array_equal(resumed.mask, whole.mask)


def test_conditions_are_balanced_and_say_what_was_done() -> None:
    samples = list(crops(length=90, clear=1 / 3))
    counts = np.bincount([int(sample.condition) for sample in samples], minlength=3)
    assert counts.min() > 15
    for sample in samples:
        same = np.array_equal(sample.clear, sample.degraded)
        assert same == (int(sample.condition) == 0) == (float(sample.strength) == 0)
        assert sample.clear.shape == (3, 64, 96)
        assert 0 <= float(sample.strength) <= 1


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


def test_resuming_another_configuration_is_refused(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run(monkeypatch, train, "--config", str(config_file), "--stage", "segmenter", "--out", str(out)) == 0
    config_file.write_text(yaml.safe_dump({**yaml.safe_load(config_file.read_text()), "seed": 5}))
    assert run(monkeypatch, train, "--config", str(config_file), "--out", str(out), "--resume") == 1
    assert "segmenter.safetensors: was made with another configuration" in capsys.readouterr().err
