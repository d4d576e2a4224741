"""Evaluation of methods whose scores are known, and coop-evaluate as a command."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from coop_training import evaluate as command
from coop_training.cases import Case, Entry, published_cases, suite_cases
from coop_training.evaluation import Evaluation, Method, evaluate, select, spread
from coop_training.layouts.class_lists import published
from coop_training.layouts.folders import paired_items
from coop_training.layouts.frame import Item, LabelledFrame
from coop_training.mixtures import KINDS
from coop_training.results import EXACT, HARM_DB, ResultsError, read_results, write_results
from coop_training.tables import report
from hypothesis import given
from hypothesis import strategies as st
from toy_bundle import HEIGHT, WIDTH, edit_manifest, write_toy_bundle

from coop_perception.classes import CAMVID_CLASSES, IGNORE_ID
from coop_perception.degradations import CONDITIONS
from coop_perception.metrics import PSNR_CAP, psnr
from coop_perception.model.conditions import Conditions
from coop_perception.model.pipeline import Result

MASK = np.repeat([0, 1, 8, 3], HEIGHT // 4).astype(np.uint8)[:, None].repeat(WIDTH, axis=1)
"""Sky, building, car, road, a quarter each: the truth of every image here."""
KNOWN = tuple(CONDITIONS)


def picture(index: int) -> np.ndarray:
    """Red says the class, green says another one in the left half; blue is texture."""
    image = np.random.default_rng(index).integers(0, 225, (HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = image[..., 1] = MASK
    image[:, : WIDTH // 2, 1] = 2
    return image


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
    for index in range(5):
        cv2.imwrite(str(images / f"{index}.png"), picture(index)[..., ::-1])
        cv2.imwrite(str(labels / f"{index}.png"), MASK)
    return images, labels


def items(folders: tuple[Path, Path]) -> list[Item]:
    return paired_items(*folders, published("camvid"), depth=True)


@pytest.fixture
def entries(folders: tuple[Path, Path]) -> list[Entry]:
    return select(items(folders), None)


def estimate(*names: str, strength: float = 0.5, known: Sequence[str] = KNOWN) -> Conditions:
    """These are present, and all as strong."""
    presence = np.array([name in names for name in known], np.float32)
    return Conditions(presence, np.full(len(known), strength, np.float32), 0.75)


def ideal(image: np.ndarray, case: Case) -> Result:
    """Raw masks are wrong on the left half under any condition; the rest is right. Images stay as they are."""
    raw = MASK.copy()
    raw[:, : WIDTH // 2] = 2 if case.level else raw[:, : WIDTH // 2]
    condition = estimate(*case.applied(KNOWN), strength=case.strength)
    return Result(mask_raw=raw, mask=MASK, restored=image, condition=condition)


def score(entries: list[Entry], method: Method, *conditions: str) -> Evaluation:
    cases = published_cases(conditions)
    return evaluate(entries, cases, method, CAMVID_CLASSES, bundle="none", method_name="a fake", known=KNOWN)


def test_the_truth_scores_one_and_identity_restores_nothing(entries: list[Entry]) -> None:
    results = score(entries, ideal, "fog", "jpeg").results
    assert results.images == 5
    assert results.clean.degraded.model_dump() == pytest.approx({"psnr": PSNR_CAP, "ssim": 1})
    assert results.mean is not None
    for scores in (results.conditions["fog"], *results.conditions["jpeg"].levels, results.mean):
        assert scores.refined.model_dump() == dict.fromkeys(("pa", "mpa", "miou", "fwiou"), 1.0)
        assert scores.raw.pa == 0.5
        assert scores.restored == scores.degraded
        assert scores.degraded.psnr < PSNR_CAP
        assert scores.won_back == 1
        assert scores.recognised == 1
        assert scores.strength_error == pytest.approx(0)
        assert scores.familiarity == 0.75
    assert results.clean.won_back is None
    assert results.clean.false_alarms == 0


def test_levels_are_averaged(entries: list[Entry]) -> None:
    """Half of the mask is right at level 1, a quarter at level 2, nothing at level 3."""

    def method(image: np.ndarray, case: Case) -> Result:
        right = (WIDTH, WIDTH // 2, WIDTH // 4, 0)[case.level]
        mask = np.where(np.arange(WIDTH) < right, MASK, 2).astype(np.uint8)
        return Result(mask_raw=np.full_like(MASK, 2) if case.level else MASK, mask=mask, restored=image)

    fog = score(entries, method, "fog").results.conditions["fog"]
    assert [level.refined.pa for level in fog.levels] == [0.5, 0.25, 0]
    assert fog.refined.pa == pytest.approx(0.25)
    assert fog.won_back == pytest.approx(0.25)  # classes are equally many, and nothing is taken for one of them
    assert fog.degraded.psnr == pytest.approx(np.mean([level.degraded.psnr for level in fog.levels]))
    assert fog.recognised is None  # no estimate, so nothing to judge
    assert fog.present is None


def test_conditions_that_are_present_and_that_are_not(entries: list[Entry]) -> None:
    def always_fog(image: np.ndarray, case: Case) -> Result:
        return Result(mask_raw=MASK, mask=MASK, restored=image, condition=estimate("fog"))

    results = score(entries, always_fog, "fog", "jpeg").results
    assert (results.clean.false_alarms, results.clean.recognised, results.clean.strength_error) == (1, None, None)
    assert (results.conditions["fog"].recognised, results.conditions["jpeg"].recognised) == (1, 0)
    assert results.conditions["fog"].false_alarms is None
    assert results.conditions["jpeg"].present == {name: float(name == "fog") for name in KNOWN}
    assert results.conditions["fog"].levels[0].strength_error == pytest.approx(1 / 2 - 1 / 3)
    assert results.conditions["fog"].strength_error == pytest.approx((1 / 6 + 1 / 6 + 1 / 2) / 3)


def test_what_the_model_was_not_trained_on_cannot_be_recognised(entries: list[Entry]) -> None:
    cases, known = published_cases(["jpeg"]), ("fog",)

    def method(image: np.ndarray, case: Case) -> Result:
        return Result(mask_raw=MASK, mask=MASK, restored=image, condition=estimate(known=known))

    results = evaluate(entries, cases, method, CAMVID_CLASSES, bundle="none", method_name="", known=known).results
    assert results.clean.false_alarms == 0
    assert results.conditions["jpeg"].recognised is None
    assert results.conditions["jpeg"].present == {"fog": 0}


def test_a_condition_is_known_by_its_own_name_or_a_broader_one() -> None:
    known = tuple(kind.name for kind in KINDS)
    applied = {case.condition: case.applied(known) for name in ("realistic",) for case in suite_cases(name)}
    assert applied["motion_blur"] == applied["defocus"] == ("blur",)
    assert (applied["webp"], applied["haze"], applied["night"]) == (("compression",), ("fog",), ("low_light",))
    assert applied["other_camera"] == ()
    assert {name for name, found in applied.items() if not found} == {
        *("other_camera", "watermark", "caption", "irregular_mask")
    }
    (blur, *_) = published_cases(["gaussian_blur"])
    assert blur.applied(known) == ("blur",)
    assert blur.applied(("gaussian_blur", "blur")) == ("gaussian_blur",)
    for case in suite_cases("mixed"):
        assert case.variant is not None
        assert len(case.applied(known)) == len(case.variant.name.split(","))


def test_scores_do_not_depend_on_the_cores(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for cores in (1, 4):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)))
        outcomes.append(score(entries, ideal, "gaussian_noise").results)
    assert outcomes[0] == outcomes[1]


def test_a_part_is_degraded_as_the_whole(folders: tuple[Path, Path]) -> None:
    listed = items(folders)
    seen: dict[int | None, set[bytes]] = {}
    for limit in (None, 2):

        def method(image: np.ndarray, case: Case, limit: int | None = limit) -> Result:
            seen.setdefault(limit, set()).add(image.tobytes())
            return ideal(image, case)

        score(select(listed, limit), method, "gaussian_noise")
    assert len(seen[2]) == 2 * 5
    assert seen[2] < seen[None]


@given(st.integers(1, 300), st.data())
def test_spread_is_even(count: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, count))
    chosen = spread(count, wanted)
    assert len(set(chosen)) == wanted
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < count
    gaps = np.diff([-1, *chosen, count])
    assert max(gaps) <= count / wanted + 1
    assert spread(count, count) == list(range(count))


def test_samples_show_each_level_on_another_image(entries: list[Entry]) -> None:
    samples = score(entries, ideal, "fog").samples
    assert [sample.title for sample in samples["fog"]] == ["1 (0.005)", "2 (0.01)", "3 (0.02)"]
    assert len({sample.reference_image.tobytes() for sample in samples["fog"]}) == 3  # type: ignore[union-attr]
    assert all(np.array_equal(sample.image, sample.reference_image) for sample in samples["clear"])  # type: ignore[arg-type]


def test_results_are_read_as_written(entries: list[Entry], tmp_path: Path) -> None:
    results = score(entries, ideal, "fog").results
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read"), ("{", "is no results.json"), ('{"bundle": "a"}', "is no results.json.*method")],
)
def test_unusable_results_are_named(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text)
    with pytest.raises(ResultsError, match=f"x.json: .*{says}"):
        read_results(tmp_path / "x.json")


def cells(markdown: str, first: str) -> list[list[str]]:
    """The cells of the rows that begin so."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    return [row[1:] for row in rows if row[0] == first]


def test_report_holds_the_papers_tables(entries: list[Entry]) -> None:
    results = score(entries, ideal, "fog", "jpeg").results
    text = report(results)
    fog = results.conditions["fog"]
    degraded = [f"{fog.degraded.psnr:.2f}", f"{fog.degraded.ssim:.4f}"]
    assert ["1.0000"] * 4 + degraded in cells(text, "fog_Re")
    assert ["1.0000", "1.0000", "1.0000", "1.0000", "–", "–"] in cells(text, "original")
    assert cells(text, "worse by more than 0.3 dB in the mean") == [["0 of 7", "–"]]
    table2 = text.split("Table 2)")[1].split("##")[0]
    assert cells(table2, "fog") == [degraded + degraded]
    assert cells(text.split("Condition estimate")[1].split("##")[0], "jpeg")[0][KNOWN.index("jpeg")] == "100.0 %"
    assert "False alarms, clean images in which any is: 0.0 %" in text
    assert len(cells(text.split("## Levels")[1], "jpeg")) == 4


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["coop-evaluate", *map(str, arguments)])
    return command.main()


@pytest.fixture
def options(folders: tuple[Path, Path], tmp_path: Path) -> list[object]:
    bundle = write_toy_bundle(tmp_path / "toy")
    return ["--bundle", bundle, "--images", folders[0], "--labels", folders[1], "--out", tmp_path / "out"]


def test_command(options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy bundle's raw mask is the red channel, its mask the green one, and what it restores is the negative; rain
    is as likely as blue is bright."""
    assert run(monkeypatch, *options, "--conditions", "fog,reflection", "--limit", 3) == 0
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["images"] == 3
    assert set(results["conditions"]) == {"fog", "reflection"}
    clean = results["clean"]
    assert clean["raw"] == dict.fromkeys(("pa", "mpa", "miou", "fwiou"), 1.0)
    assert clean["refined"]["pa"] == 0.5
    shown = [picture(index) for index in spread(5, 3)]
    assert clean["restored"]["psnr"] == pytest.approx(np.mean([psnr(image, 255 - image) for image in shown]))
    assert clean["false_alarms"] == 0
    assert clean["familiarity"] < 0.1  # green is dark
    assert [set(level["raw"]) for level in results["conditions"]["fog"]["levels"]] == [set(clean["raw"])] * 3
    assert "recognised" not in results["conditions"]["reflection"]  # which the toy does not know
    assert results["harm"]["variants"] == 6
    for name, rows in (("clear", 3), ("fog", 3), ("reflection", 3)):
        panels = cv2.imread(str(tmp_path / f"out/panels/{name}.png"))
        assert panels.shape[0] > rows * HEIGHT
        assert panels.shape[1] > 6 * WIDTH
    assert "# toy, cooperative, published: 3 images" in (tmp_path / "out/results.md").read_text()


def test_images_of_any_size_are_scored_at_their_own(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In dark ones nothing is present: they come back as they are, byte for byte."""
    for folder, value in (("images", 8), ("labels", 1)):
        for path in (tmp_path / folder).iterdir():
            path.unlink()
        for index, size in enumerate(((75, 100, 3), (108, 192, 3), (37, 90, 3))):
            image = np.full(size, value, np.uint8)
            cv2.imwrite(str(tmp_path / f"{folder}/{index}.png"), image if folder == "images" else image[..., 0])
    assert run(monkeypatch, *options, "--conditions", "jpeg") == 0
    results = read_results(tmp_path / "out/results.json")
    assert (results.clean.restored.psnr, results.clean.changed, results.clean.false_alarms) == (PSNR_CAP, 0, 0)
    assert results.clean.raw is not None
    assert results.images == 3


def test_images_that_are_nearly_black_are_told(
    folders: tuple[Path, Path],
    options: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As files of 16 bits are that hold 12."""
    cv2.imwrite(str(folders[0] / "1.png"), np.full((HEIGHT, WIDTH, 3), 4095, np.uint16))
    cv2.imwrite(str(folders[1] / "other.png"), MASK)
    assert run(monkeypatch, *options, "--conditions", "jpeg") == 0
    assert "1 of 6 labels" in capsys.readouterr().err
    assert run(monkeypatch, *options, "--conditions", "jpeg", "--force") == 0
    assert "warning: 1 of 5 images are nearly black" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/results.json").read_text())["nearly_black"] == 1
    assert "1 of 5 images are nearly black" in (tmp_path / "out/results.md").read_text()


def test_restore_then_segment(options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative's red channel is no class anywhere."""
    assert run(monkeypatch, *options, "--conditions", "jpeg", "--restore-then-segment") == 0
    results = read_results(tmp_path / "out/results.json")
    assert (results.clean.raw.pa, results.clean.refined.pa) == (1, 0)
    assert results.method == "restore-then-segment"


def broken(case: str, tmp_path: Path) -> None:
    if case == "depth":
        edit_manifest(tmp_path / "toy", classes=[{"id": i, "name": f"cup {i}", "rgb": [i, 0, 0]} for i in range(11)])
    elif case == "pair":
        (tmp_path / "labels/3.png").unlink()
    elif case == "ids":
        cv2.imwrite(str(tmp_path / "labels/3.png"), np.full_like(MASK, 77))
    elif case == "void":
        for label in (tmp_path / "labels").iterdir():
            cv2.imwrite(str(label), np.full_like(MASK, IGNORE_ID))
    elif case == "small":
        cv2.imwrite(str(tmp_path / "images/0.png"), np.zeros((8, 8, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "labels/0.png"), np.zeros((8, 8), np.uint8))
    elif case == "out":
        (tmp_path / "out").write_text("")


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("depth", "toy: fog need depth, which is estimated from labels of streets"),
        ("pair", "3.png: has no label"),
        ("ids", "3.png: holds label ids"),
        ("void", "no pixel of 5 labels is of a class"),
        ("small", "0: .*expected at least 11 pixels"),
        ("out", "File exists.*out"),
    ],
)
def test_what_cannot_be_evaluated_ends_in_one_line(
    options: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
    says: str,
) -> None:
    broken(case, tmp_path)
    assert run(monkeypatch, *options, "--conditions", "fog,jpeg") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coop-evaluate: ")
    assert re.search(says, line), line


@pytest.mark.parametrize(("option", "value"), [("--conditions", "fog,snow"), ("--limit", "0"), ("--limit", "-1")])
def test_bad_options(
    options: list[object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, *options, option, value)
    assert {"--conditions": "unknown condition 'snow'", "--limit": "above 0"}[option] in capsys.readouterr().err


def test_harm_is_counted_image_by_image(entries: list[Entry]) -> None:
    """Two of five images come back 1.9 dB further away, and clear ones changed."""
    spoilt = {entry.item.read().image.tobytes() for entry in entries[1:3]}

    def method(image: np.ndarray, case: Case) -> Result:
        result = ideal(image, case)
        if case.clear and image.tobytes() in spoilt:
            result.restored = image ^ 8
        if case.condition == "gaussian_noise" and current[0] in (1, 2):
            result.restored = np.full_like(image, 255)
        return result

    current = [0]
    outcome = []
    for index in range(5):
        current[0] = index
        outcome.append(score(entries[index : index + 1], method, "gaussian_noise").results)
    assert [results.clean.changed for results in outcome] == [0, 1, 1, 0, 0]
    assert [results.conditions["gaussian_noise"].harm.share for results in outcome] == [0, 1, 1, 0, 0]  # type: ignore[union-attr]
    assert outcome[1].conditions["gaussian_noise"].harm.worst < -HARM_DB  # type: ignore[union-attr]
    whole = score(entries, ideal, "gaussian_noise").results.conditions["gaussian_noise"].harm
    assert whole is not None
    assert (whole.share, whole.worst) == (0, 0)


def test_harm_over_all_variants(entries: list[Entry]) -> None:
    """Level 2 of fog comes back spoilt, of which the masks are wrong too; all else stays as it is."""

    def method(image: np.ndarray, case: Case) -> Result:
        bad = (case.condition, case.level) == ("fog", 2)
        return Result(mask_raw=MASK, mask=np.zeros_like(MASK) if bad else MASK, restored=255 - image if bad else image)

    found = score(entries, method, "fog", "jpeg").results.harm
    assert found is not None
    assert (found.variants, found.worse, found.masks_below) == (7, 1, 1)
    assert found.worse_variants == found.masks_below_variants == [found.worst_variant] == ["fog 2 (0.01)"]
    assert found.worst < -HARM_DB
    assert score(entries, method).results.harm is None


def test_masks_of_images_without_a_condition_count_as_harm(entries: list[Entry]) -> None:
    def method(image: np.ndarray, case: Case) -> Result:
        return Result(mask_raw=MASK, mask=MASK if case.level else np.zeros_like(MASK), restored=image)

    found = score(entries, method, "jpeg").results.harm
    assert found is not None
    assert found.masks_below_variants == ["clean"]


def test_harm_is_a_number_where_images_equal_their_references(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """As frames of a data set that happen to be clear: what is left alone there is neither harm nor hides it elsewhere,
    and what is spoilt there is harm."""
    whole = select(items(folders), None)
    entries = [whole[0], replace(whole[1], item=replace(whole[1].item, name="equal"))]

    class Equal(Entry):
        def under(self, case: Case, frame: LabelledFrame) -> np.ndarray:
            return frame.image if self.item.name == "equal" else super().under(case, frame)

    def method(image: np.ndarray, case: Case) -> Result:
        result = ideal(image, case)
        equal = image.tobytes() == entries[1].item.read().image.tobytes()
        if case.level == 2 and (not equal or spoils_equal):
            result.restored = image ^ 1 if equal else 255 - image
        return result

    for spoils_equal in (False, True):
        results = score([Equal(entry.item, entry.seed) for entry in entries], method, "jpeg").results
        kept, spoilt = (level.harm for level in results.conditions["jpeg"].levels[:2])
        assert kept is not None
        assert spoilt is not None
        assert (kept.share, kept.worst) == (0, 0)
        assert spoilt.share == (1 if spoils_equal else 0.5)
        assert np.isfinite(spoilt.worst)
        assert spoilt.worst < -HARM_DB
        write_results(tmp_path / "results.json", results)
        assert read_results(tmp_path / "results.json") == results


def test_what_is_won_back_in_all_is_of_the_means(entries: list[Entry]) -> None:
    """A condition that costs next to nothing does not rule it."""

    def method(image: np.ndarray, case: Case) -> Result:
        raw = MASK.copy()
        raw[:, : {"jpeg": 1, "fog": WIDTH // 2}.get(case.condition, 0)] = 2
        return Result(mask_raw=raw, mask=raw if case.condition == "fog" else MASK, restored=image)

    results = score(entries, method, "jpeg", "fog").results
    assert results.mean is not None
    assert results.conditions["jpeg"].won_back == 1
    assert results.mean.won_back is not None
    assert 0 < results.mean.won_back < 0.1


def test_a_confidence_that_is_true_is_calibrated(entries: list[Entry]) -> None:
    """Certain where the mask is right, half certain where it is right every other time."""

    def method(image: np.ndarray, case: Case) -> Result:
        mask = MASK.copy()
        mask[:, : WIDTH // 2 : 2] = 2
        confidence = np.full_like(MASK, 255)
        confidence[:, : WIDTH // 2] = 128
        return Result(mask_raw=MASK, mask=mask, confidence=confidence, restored=image)

    found = score(entries, method).results.clean.calibration
    assert found is not None
    assert found.ece < 0.002
    risk = dict(found.risk_coverage)
    assert (risk[0.5], risk[1.0]) == (0, pytest.approx(0.25))


@pytest.mark.parametrize("suite", ["realistic", "mixed"])
def test_suites_are_scored_by_families(entries: list[Entry], suite: str) -> None:
    def method(image: np.ndarray, case: Case) -> Result:
        return Result(mask_raw=MASK, mask=MASK, restored=image)

    cases = suite_cases(suite)
    results = evaluate(
        entries[:1], cases, method, CAMVID_CLASSES, bundle="none", method_name="a fake", suite=suite
    ).results
    assert sum(len(of_family.levels) for of_family in results.conditions.values()) == len(cases)
    names = [level.name for of_family in results.conditions.values() for level in of_family.levels]
    assert all(names)
    for family in results.conditions.values():
        assert (family.harm is None) == (family.changed is not None)
    if suite == "realistic":
        camera = results.conditions["other_camera"]
        assert camera.changed == 0  # what is left as it is is not changed, however it differs from the frame
        assert results.mean is not None
        adverse = [of for name, of in results.conditions.items() if name != "other_camera"]
        assert results.mean.degraded.psnr == pytest.approx(np.mean([of.degraded.psnr for of in adverse]))
        without = [of for name, of in results.conditions.items() if name not in (*EXACT, "other_camera")]
        assert results.mean_without_exact is not None
        assert results.mean_without_exact.degraded.psnr == pytest.approx(np.mean([of.degraded.psnr for of in without]))
    assert len(cells(report(results).split("## Levels")[1], next(iter(results.conditions))))


def test_ready_made_pairs(
    options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Degraded images named after the clean ones, which have the labels."""
    degraded = tmp_path / "degraded"
    degraded.mkdir()
    for index in range(5):
        image = cv2.imread(str(tmp_path / f"images/{index}.png"))
        cv2.imwrite(str(degraded / f"{index}_foggy_beta_0.01.png"), image // 2)
    pairs = ["--images", degraded, "--references", tmp_path / "images"]
    bundle, out = options[:2], options[6:]
    assert run(monkeypatch, *bundle, *pairs, "--labels", tmp_path / "labels", *out) == 0
    results = read_results(tmp_path / "out/results.json")
    assert (results.suite, results.images, list(results.conditions)) == ("ready_made", 5, ["ready_made"])
    expected = np.mean([psnr(picture(index), picture(index) // 2) for index in range(5)])
    assert results.conditions["ready_made"].degraded.psnr == pytest.approx(expected)
    assert results.clean.raw is not None
    assert run(monkeypatch, *bundle, *pairs, *out, "--conditions", "fog") == 1
    assert "--conditions does not go with --references" in capsys.readouterr().err
    assert run(monkeypatch, *bundle, *pairs, *out) == 1
    assert "holds results.json, results.md, panels of another run" in capsys.readouterr().err
    (tmp_path / "out/panels/notes.md").touch()
    assert run(monkeypatch, *bundle, *pairs, *out, "--force") == 1
    assert "panels holds notes.md, which is no part of an evaluation's panels" in capsys.readouterr().err
    (tmp_path / "out/panels/notes.md").unlink()
    (tmp_path / "out/panels/of_another_condition.png").touch()
    assert run(monkeypatch, *bundle, *pairs, *out, "--force") == 0
    assert not (tmp_path / "out/panels/of_another_condition.png").exists()
    assert read_results(tmp_path / "out/results.json").clean.raw is None
    assert "–" in (tmp_path / "out/results.md").read_text()
    cv2.imwrite(str(degraded / "4_foggy_beta_0.01.png"), np.zeros((HEIGHT // 2, WIDTH // 2, 3), np.uint8))
    assert run(monkeypatch, *bundle, *pairs, *out, "--force") == 1
    sizes = f"is {WIDTH // 2}x{HEIGHT // 2}, its clean image {WIDTH}x{HEIGHT}; scale one of them"
    assert sizes in capsys.readouterr().err


def test_coarse_labels(options: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sky and building are one label, road and car another: what takes one for the other is right."""
    for label in (tmp_path / "labels").iterdir():
        cv2.imwrite(str(label), np.array([5, 5, 7, 7], np.uint8).repeat(HEIGHT // 4)[:, None].repeat(WIDTH, axis=1))
    sets = tmp_path / "sets.yaml"
    sets.write_text("5: [Sky, Building]\n7: [Road, Car]\n")
    assert run(monkeypatch, *options, "--label-sets", sets, "--conditions", "jpeg") == 0
    results = read_results(tmp_path / "out/results.json")
    assert results.clean.raw is not None
    assert results.clean.refined is not None
    assert (results.clean.raw.pa, results.clean.refined.pa) == (1, 0.5)
    sets.write_text("5: [Sky, Building]\n7: [Road, Lorry]\n")
    assert run(monkeypatch, *options, "--label-sets", sets) == 1
