"""Classical peers on pictures whose truth is known, their settings, and the comparison of several results."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import yaml
from coop_training.cases import Case
from coop_training.peers import choose, classical, settings, table
from coop_training.peers.filters import Peer, deconvolve, register, remove_impulses
from coop_training.peers.settings import SettingsError, read_settings
from coop_training.results import (
    ConditionScores,
    ImageScores,
    MaskScores,
    Results,
    Scores,
    read_results,
    write_results,
)
from toy_bundle import write_toy_bundle

from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.degradations.blur import chromatic_aberration, gaussian_blur
from coop_perception.metrics import PSNR_CAP, psnr
from coop_perception.sample_scene.drive import SampleDrive

SHIPPED = Path(__file__).parents[1] / "configs/peers/classical.yaml"
WIDTH, HEIGHT = 201, 143
"""Odd, as no transform likes it."""


@pytest.fixture(scope="module")
def drive() -> SampleDrive:
    return SampleDrive(5, WIDTH, HEIGHT)


@pytest.mark.parametrize("name", CONDITIONS)
def test_filters_restore_what_they_are_for(drive: SampleDrive, name: str) -> None:
    """With the shipped settings, at the level in the middle. Reflections they leave nearly as they are."""
    gains = []
    for seed in range(3):
        frame = drive.frame(20 * seed)
        degraded = degrade(frame.image, name, 2, seed=seed, depth=frame.depth, intrinsics=drive.intrinsics)
        restored = classical.restore(degraded, Case(name, 2), read_settings(SHIPPED))
        assert restored.shape == degraded.shape
        assert restored.dtype == np.uint8
        gains.append(psnr(frame.image, restored) - psnr(frame.image, degraded))
    assert np.mean(gains) > (-0.5 if name == "reflection" else 0.2)


def test_clear_images_are_left_alone(drive: SampleDrive) -> None:
    image = drive.frame(20).image
    assert classical.restore(image, Case("clear"), read_settings(SHIPPED)) is image


def test_a_known_blur_is_undone_at_the_borders_too(drive: SampleDrive) -> None:
    smooth = gaussian_blur(drive.frame(20).image, 2.0)
    blurred = gaussian_blur(smooth, 1.5)
    restored = deconvolve(blurred, 1.5, 1e-3)
    for window in (np.s_[:], np.s_[:5], np.s_[:, -5:]):
        assert psnr(smooth[window], restored[window]) > psnr(smooth[window], blurred[window]) + 4


@pytest.mark.parametrize("shift", [2, 6])
def test_registration_finds_the_shift(drive: SampleDrive, shift: int) -> None:
    image = np.repeat(drive.frame(20).image[..., 1:2], 3, axis=2)  # grey, so that no colour disturbs
    restored = register(chromatic_aberration(image, shift), shift)
    inside = np.s_[:, 10:-20]
    assert psnr(image[inside], restored[inside]) > 38


def test_only_impulses_are_replaced() -> None:
    image = np.random.default_rng(0).integers(1, 255, (20, 20, 3), np.uint8)
    assert np.array_equal(remove_impulses(image, 0.1, 3), image)
    hit = np.full((20, 20, 3), 90, np.uint8)
    hit[5, 5] = (0, 255, 90)
    assert np.array_equal(remove_impulses(hit, 0.1, 3), np.full_like(hit, 90))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images whose red channel is the label, and nowhere 0 or 255."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    for index in range(3):
        mask = np.full((24, 32), 3, np.uint8)
        mask[:12, 8 * index :] = 1
        for folder, picture in ((images, np.dstack([mask + 40, mask + 90, mask])), (labels, mask)):
            folder.mkdir(exist_ok=True)
            cv2.imwrite(str(folder / f"{index}.png"), picture)
    return images, labels


def mix(image: np.ndarray, parameter: float, share: float, offset: float) -> np.ndarray:
    """The image itself at share 1 and offset 0, whatever the parameter."""
    return np.clip(share * image + offset, 0, 255).astype(np.uint8)


def test_the_best_candidates_are_chosen(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peers = {
        "jpeg": Peer(mix, {"share": (0.5, 1.0, 2.0), "offset": (30, 0)}),
        "fog": Peer(lambda image, beta: image, {}),
    }
    for module in (choose, settings):
        monkeypatch.setattr(module, "PEERS", peers)
    out = tmp_path / "chosen.yaml"
    arguments = ["--images", folders[0], "--labels", folders[1], "--limit", 2, "--out", out]
    monkeypatch.setattr("sys.argv", ["choose", *map(str, arguments)])
    assert choose.main() == 0
    chosen = read_settings(out)
    assert chosen.images == 2
    assert chosen.levels == {"jpeg": [{"share": 1, "offset": 0}] * 4, "fog": [{}] * 3}


def test_choosing_from_no_images_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--images", tmp_path / "a", "--labels", tmp_path / "b", "--out", tmp_path / "c"]
    monkeypatch.setattr("sys.argv", ["choose", *map(str, arguments)])
    assert choose.main() == 1
    assert capsys.readouterr().err == f"coop-peers-choose: {tmp_path / 'a'}: no such folder\n"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ({"fog": None}, "fog: expected omega for each of its 3 levels"),
        ({"jpeg": [{"sigma_color": 1.0}] * 4}, "jpeg: expected sigma_color, sigma_space for each"),
        ({"impulse_noise": [{"size": 3}] * 3}, "impulse_noise: expected size for each of its 4 levels"),
        ({"rain": [{"omega": "much"}] * 3}, "levels.rain.0.omega"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, edit: dict[str, object], says: str) -> None:
    content = yaml.safe_load(SHIPPED.read_text())
    levels = {name: value for name, value in {**content["levels"], **edit}.items() if value is not None}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**content, "levels": levels}))
    with pytest.raises(SettingsError, match=f"own.yaml: .*{says}"):
        read_settings(path)


@pytest.mark.parametrize("text", [None, "a: [", "3"])
def test_files_that_hold_no_settings(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"own\.yaml: "):
        read_settings(path)


def test_classical_restoration_then_segmentation(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy bundle segments by the red channel: impulses cost it pixels, and the median wins them back."""
    bundle = write_toy_bundle(tmp_path / "toy")
    out = tmp_path / "out"
    arguments = ["--bundle", bundle, "--images", folders[0], "--labels", folders[1], "--settings", SHIPPED]
    arguments += ["--conditions", "impulse_noise", "--out", out]
    monkeypatch.setattr("sys.argv", ["classical", *map(str, arguments)])
    assert classical.main() == 0
    results = read_results(out / "results.json")
    assert results.clean.refined == results.clean.raw
    assert results.clean.restored.psnr == PSNR_CAP
    impulses = results.conditions["impulse_noise"]
    assert impulses.refined.pa > 0.99 > impulses.raw.pa
    assert impulses.restored.psnr > impulses.degraded.psnr + 10
    assert impulses.present is None


def test_classical_without_settings_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--bundle", "b", "--images", "i", "--labels", "l", "--out", "o", "--settings", tmp_path / "none.yaml"]
    monkeypatch.setattr("sys.argv", ["classical", *map(str, arguments)])
    assert classical.main() == 1
    assert capsys.readouterr().err.startswith(f"coop-peers-classical: {tmp_path / 'none.yaml'}: no such file")


def results(miou: float, db: float, degraded: float = 20.0, conditions: tuple[str, ...] = ("fog", "jpeg")) -> Results:
    """Equal scores under every condition, of a segmenter that has 0.2 raw."""

    def masks(value: float) -> MaskScores:
        return MaskScores(pa=value, mpa=value, miou=value, fwiou=value)

    def images(value: float) -> ImageScores:
        return ImageScores(psnr=value, ssim=value / 100)

    scores = Scores(raw=masks(0.2), refined=masks(miou), degraded=images(degraded), restored=images(db))
    by_condition = {name: ConditionScores(**scores.model_dump(), levels=[scores]) for name in conditions}
    return Results(bundle="b", method="m", images=5, clean=scores, conditions=by_condition, mean=scores)


def written(folder: Path, **by_name: Results) -> dict[str, Path]:
    paths = {name: folder / f"{name}.json" for name in by_name}
    for name, path in paths.items():
        write_results(path, by_name[name])
    return paths


def tabulate(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["table", *arguments])
    return table.main()


def test_methods_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = written(tmp_path, a=results(0.60, 30), b=results(0.62, 32), peer=results(0.5, 33.5))
    code = tabulate(monkeypatch, f"ours={paths['a']}", f"ours={paths['b']}", f"peer={paths['peer']}")
    assert code == 0
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    spread = 2**0.5
    assert [
        "ours", "2", f"61.0 ± {spread:.1f}", f"61.0 ± {spread:.1f}", "–", "–", f"31.00 ± {spread:.2f}",
        f"31.00 ± {spread:.2f}", "–", f"0.3100 ± {spread / 100:.4f}",
    ] in rows  # fmt: skip
    assert ["peer", "1", "50.0", "50.0", "-11.0", "–", "33.50", "33.50", "+2.50", "0.3350"] in rows
    assert ["jpeg", "20.0 ± 0.0", f"61.0 ± {spread:.1f}", "50.0"] in rows
    assert [
        "jpeg",
        "20.00",
        "0.2000",
        f"31.00 ± {spread:.2f}",
        f"0.3100 ± {spread / 100:.4f}",
        "33.50",
        "0.3350",
    ] in rows


def test_what_a_peer_with_a_segmenter_of_its_own_wins_back_is_told_from_the_first_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own raw masks are what is judged: by those it would win nothing back."""

    def of(refined: float, raw: float, clean: float) -> Results:
        found = results(refined, 30).model_dump()
        for scores in found["conditions"].values():
            scores["raw"]["miou"] = raw
        found["clean"]["raw"]["miou"] = clean
        return Results.model_validate(found)

    paths = written(tmp_path, first=of(0.5, 0.3, 0.7), peer=of(0.6, 0.6, 0.68))
    assert tabulate(monkeypatch, *(f"{name}={path}" for name, path in paths.items())) == 0
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    won_back = {row[0]: row[5] for row in rows if len(row) == 10}
    assert (won_back["first"], won_back["peer"]) == ("50.0", "75.0")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (results(0.5, 30, degraded=21), "other.json: its images under fog have 21.00 dB, those of .*first.json 20.00"),
        (results(0.5, 30, conditions=("fog",)), "other.json: has the conditions fog, .* fog, jpeg; evaluate both"),
        (results(0.5, 30).model_copy(update={"images": 6}), "other.json: is of 6 images, .* of 5"),
    ],
)
def test_only_scores_on_the_same_images_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], other: Results, says: str
) -> None:
    paths = written(tmp_path, first=results(0.5, 30), other=other)
    assert tabulate(monkeypatch, f"a={paths['first']}", f"b={paths['other']}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coop-peers-table: ")
    assert re.search(says, line), line


def test_runs_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tabulate(monkeypatch, "results.json")
    assert "expected NAME=PATH" in capsys.readouterr().err


@pytest.mark.parametrize("module", [choose, classical, table])
def test_each_is_a_command_with_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: ModuleType
) -> None:
    name = f"coop-peers-{module.__name__.rpartition('.')[2]}"
    declared = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'{name} = "{module.__name__}:main"' in declared
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name} ")
