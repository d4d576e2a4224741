"""Overview, page and table of an evaluated recording: the right pictures and figures in the right places."""

from __future__ import annotations

import base64
import copy
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from coop_perception.classes import CAMVID_CLASSES, SemanticClass
from coop_perception.evaluation.report import charts, figures
from coop_perception.evaluation.report.frames import FrameScore, Sample
from coop_perception.evaluation.report.overview import write_overview
from coop_perception.evaluation.report.page import facts_of, write_report
from coop_perception.evaluation.report.terminal import summary_table

HEIGHT, WIDTH, COLUMNS = 48, 80, 3
OPTIONAL = (
    "mask_raw",
    "mask",
    "image_degraded",
    "image_restored",
    "condition",
    "stages_ms",
    "dropped_by_reason",
    "fps",
)
HOSTILE = "<script>alert(1)</script>\"'&{{ 7 * 7 }}<b>"


def plain(value: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def filled(class_id: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), class_id, np.uint8)


def make_samples() -> list[Sample]:
    """Every picture has a colour of its own."""
    return [
        Sample(
            title=f"frame {column}",
            image=plain(10 + column),
            mask_raw=filled(1 + column),
            mask=filled(4 + column),
            restored=plain(20 + column),
            reference_image=plain(30 + column),
            reference_mask=filled(7 + column),
        )
        for column in range(COLUMNS)
    ]


def make_summary() -> dict[str, Any]:
    return {
        "recording": "recordings/foggy_drive",
        "image_topic": "/front/image_raw",
        "mode": "live",
        "bundle": {"name": "street", "path": "models/street", "sha256": {"segmenter": "abc123"}},
        "backend": "onnxruntime",
        "device": "cpu",
        "frames": {"read": 150, "processed": 147, "dropped": 3, "failed": 0},
        "dropped_by_reason": {"superseded": 2, "malformed": 1},
        "fps": 14.23,
        "latency_ms": {"p50": 63.21, "p95": 81.04, "p99": 97.43},
        "stages_ms": {"segmenter": 20.0, "refinement": 10.0, "restoration": 50.0},
        "mask_raw": {
            "pa": 0.7,
            "mpa": 0.5,
            "miou": 0.434,
            "fwiou": 0.6,
            "iou": {"Road": 0.31, "Pole": 0.4, "Fence": None},
        },
        "mask": {
            "pa": 0.8,
            "mpa": 0.4,
            "miou": 0.613,
            "fwiou": 0.6,
            "iou": {"Road": 0.87, "Pole": 0.28, "Fence": None},
        },
        "image_degraded": {"psnr": 20.13, "ssim": 0.712},
        "image_restored": {"psnr": 24.35, "ssim": 0.853},
        "condition": {
            "estimated": 147,
            "clear": 5,
            "familiarity": 0.9,
            "restoration_ran": 0.95,
            "conditions": {
                "fog": {
                    "frames": 140,
                    "presence": 0.93,
                    "present": 0.95,
                    "strength": 0.42,
                    "recognised": 0.97,
                    "applied": 144,
                    "not_applied": 3,
                },
                "noise": {"frames": 0, "presence": 0.05, "present": 0.0, "false_alarms": 0.0},
            },
        },
    }


def make_series(count: int = 20) -> list[FrameScore]:
    return [FrameScore(i / 10, 60.0 + i, 0.4, 0.5 + i / 100, 20.0, 24.0) for i in range(count)]


class Page(HTMLParser):
    """What a browser would make of a page; refuses one whose tags do not match."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.pieces.append(data)

    def all(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and css_class in [*(a.get("class") or "").split(), ""]]


def report(
    path: Path,
    summary: dict[str, Any] | None = None,
    samples: list[Sample] | None = None,
    classes: tuple[SemanticClass, ...] = CAMVID_CLASSES,
    series: list[FrameScore] | None = None,
) -> Page:
    file = path / "report.html"
    write_report(
        file,
        make_summary() if summary is None else summary,
        make_samples() if samples is None else samples,
        classes,
        make_series() if series is None else series,
    )
    return Page(file)


def overview(path: Path, samples: list[Sample]) -> np.ndarray:
    write_overview(path / "overview.png", samples, CAMVID_CLASSES)
    return cv2.cvtColor(cv2.imread(str(path / "overview.png")), cv2.COLOR_BGR2RGB)


def find(picture: np.ndarray, rgb: tuple[int, int, int] | int) -> tuple[int, int, int, int] | None:
    """Box (top, left, height, width) of the largest patch of a colour; None where none exceeds 1000 pixels."""
    same = (picture == np.broadcast_to(rgb, 3)).all(axis=2).astype(np.uint8)
    stats = cv2.connectedComponentsWithStats(same)[2][1:]
    left, top, width, height, area = max(stats.tolist(), key=lambda s: s[4], default=(0, 0, 0, 0, 0))
    return (top, left, height, width) if area > 1000 else None


def colour(class_id: int) -> tuple[int, int, int]:
    return CAMVID_CLASSES[class_id].rgb


def test_overview_has_a_column_per_sample_and_rows_from_input_to_reference(tmp_path: Path) -> None:
    picture = overview(tmp_path, make_samples())
    wanted = [
        [10, 11, 12],
        [colour(1), colour(2), colour(3)],
        [colour(4), colour(5), colour(6)],
        [20, 21, 22],
        [30, 31, 32],
        [colour(7), colour(8), colour(9)],
    ]
    boxes = np.array([[find(picture, rgb) for rgb in row] for row in wanted])
    assert (boxes[..., 2:] == (HEIGHT, WIDTH)).all()
    tops, lefts = boxes[..., 0], boxes[..., 1]
    assert (tops == tops[:, :1]).all()
    assert (lefts == lefts[:1]).all()
    assert (np.diff(tops[:, 0]) >= HEIGHT).all()
    assert (np.diff(lefts[0]) >= WIDTH).all()
    below = picture[tops[-1, 0] + HEIGHT :]
    for semantic_class in CAMVID_CLASSES:  # each is named in the legend
        assert (below == semantic_class.rgb).all(axis=2).sum() > 50


def test_overview_leaves_out_rows_that_nothing_is_known_of(tmp_path: Path) -> None:
    whole = overview(tmp_path, make_samples())
    bare = [replace(s, mask_raw=None, restored=None, reference_image=None, reference_mask=None) for s in make_samples()]
    picture = overview(tmp_path, bare)
    assert find(picture, 10) is not None
    assert find(picture, colour(4)) is not None
    assert [find(picture, rgb) for rgb in (colour(1), 20, 30, colour(7))] == [None] * 4
    assert whole.shape[0] - picture.shape[0] >= 4 * HEIGHT


def test_overview_keeps_the_place_of_a_frame_that_came_out_without_results(tmp_path: Path) -> None:
    samples = make_samples()
    samples[1] = replace(samples[1], mask=None, restored=None)
    picture = overview(tmp_path, samples)
    assert find(picture, colour(5)) is None
    left, right = find(picture, colour(4)), find(picture, colour(6))
    above = find(picture, colour(2))
    assert left is not None and right is not None and above is not None  # noqa: PT018
    gap = picture[left[0] : left[0] + HEIGHT, above[1] : above[1] + WIDTH]
    assert (gap == gap[0, 0]).all()
    assert left[1] < above[1] < right[1]


def test_overview_of_large_frames_is_shrunk_with_exact_class_colours(tmp_path: Path) -> None:
    mask = np.zeros((1080, 1920), np.uint8)
    mask[:, 1000:] = 3  # the edge falls between pixels of the panel
    picture = overview(
        tmp_path, [Sample("frame 0", np.full((1080, 1920, 3), 77, np.uint8), None, mask, None, None, None)]
    )
    assert find(picture, 77)[2:] == (360, 640)
    top, left, height, width = find(picture, colour(0))
    assert (height, width) == (360, 333)
    assert find(picture, colour(3)) == (top, left + 333, 360, 307)


def test_overview_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"overview\.png: no sample frame"):
        write_overview(tmp_path / "overview.png", [], CAMVID_CLASSES)


def test_report_says_what_was_run_and_what_came_out(tmp_path: Path) -> None:
    text = report(tmp_path).text
    for words in (
        "The recording “foggy_drive” was played to the running node",
        "147 of 150 frames were processed, at 14.2 frames/s",
        "The refined masks score 61.3 % mIoU, 17.9 points above the raw ones.",
        "Restored images are 4.22 dB closer to the clean ones than the input is (PSNR 20.13 → 24.35 dB).",
        "finds fog in 140 of 147 frames, with a mean strength of 0.42 of 1; restoration ran for 95 % of the frames.",
        "fog 140 93.0 % 0.42 144 97.0 % –",
        "noise 0 5.0 % – – – 0.0 %",
        "mIoU 43.4 % 61.3 % +17.9 points",
        "mPA 50.0 % 40.0 % −10.0 points",
        "FWIoU 60.0 % 60.0 % ±0.0 points",
        "Road 31.0 % 87.0 % +56.0 points",
        "Fence – – –",
        "SSIM 0.712 0.853 +0.141",
        "63.2 ms 81.0 ms 97.4 ms",
        "together 80.0 ms",
        "dropped: superseded a newer frame arrived before this one's turn came 2",
        "unaccounted for 0",
        "bundle sha256 segmenter abc123",
    ):
        assert words in text


def test_report_says_of_which_frames_it_is_and_how_they_were_made() -> None:
    offline = {"mode": "offline", "network_height": 352, "skip_when_clear": True, "run": {"selection": [2.0, None, 3]}}
    facts = dict(facts_of(make_summary() | offline))
    assert facts["frames"] == "from 2 s to the end, one in 3"
    assert (facts["network height"], facts["skip when clear"]) == ("352", "True")
    assert "frames" not in dict(facts_of(make_summary() | offline | {"run": {"selection": [0.0, None, 1]}}))


def test_report_says_when_the_recording_was_not_played_at_its_own_pace(tmp_path: Path) -> None:
    slower = report(tmp_path, make_summary() | {"rate": 0.361}).text
    assert "was played to the running node at 0.36 times its own pace and taken through" in slower


def test_losses_are_called_losses(tmp_path: Path) -> None:
    summary = make_summary()
    summary["mask"]["miou"], summary["image_restored"]["psnr"] = 0.404, 18.13
    page = report(tmp_path, summary)
    assert "score 40.4 % mIoU, 3.0 points below the raw ones" in page.text
    assert "2.00 dB further from the clean ones" in page.text
    assert "above the raw" not in page.text
    assert "closer" not in page.text
    assert len(page.all("div", "worse")) == 2


def test_frames_that_are_unaccounted_for_are_named(tmp_path: Path) -> None:
    summary = make_summary()
    summary["frames"]["processed"] = 140
    page = report(tmp_path, summary)
    assert "The counts disagree by 7: not every frame is accounted for" in page.text
    assert "unaccounted for 7" in page.text
    assert "7 unaccounted for" in printed(summary)
    assert "disagree" not in report(tmp_path).text


def test_pictures_are_embedded(tmp_path: Path) -> None:
    page = report(tmp_path)
    images = page.all("img")
    assert len(images) == 6 * COLUMNS
    decoded = {}
    for image in images:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", image["src"]).groups()
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1), cv2.COLOR_BGR2RGB)
        decoded[image["alt"]] = (kind, pixels)
    assert all(pixels.shape == (HEIGHT, WIDTH, 3) for _, pixels in decoded.values())
    kind, mask = decoded["refined mask, frame 1"]
    assert kind == "png"
    assert (mask == colour(5)).all()
    assert np.abs(decoded["restored, frame 2"][1].astype(int) - 22).max() <= 2


def test_nothing_is_loaded_from_elsewhere_or_run(tmp_path: Path) -> None:
    page = report(tmp_path)
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in {"href", "xlink:href", "srcset", "poster", "action", "background"}
            assert name != "src" or (value or "").startswith("data:image/")
    assert not re.search(r"https?:|url\(|@import", page.source)


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    summary = make_summary()
    summary["recording"] = summary["image_topic"] = summary["backend"] = summary["bundle"]["name"] = HOSTILE
    for scores in (summary["mask_raw"], summary["mask"]):
        scores["iou"] = {HOSTILE: 0.5}
    summary["dropped_by_reason"] = {HOSTILE: 3}
    summary["condition"]["conditions"] = {HOSTILE: {"frames": 147}}
    summary["stages_ms"] = {HOSTILE: 1.0}
    samples = [replace(sample, title=HOSTILE) for sample in make_samples()]
    page = report(tmp_path, summary, samples, (SemanticClass(0, HOSTILE, (1, 2, 3)),))
    assert not page.all("script")
    assert not page.all("b")
    assert page.text.count(HOSTILE) >= 8
    assert any(HOSTILE in (image["alt"] or "") for image in page.all("img"))


@pytest.mark.parametrize(
    "missing", [*((name,) for name in OPTIONAL), OPTIONAL, ("mask_raw", "image_degraded"), ("mask",)]
)
def test_missing_parts_are_left_out(tmp_path: Path, missing: tuple[str, ...]) -> None:
    summary = {key: value for key, value in make_summary().items() if key not in missing}
    page = report(tmp_path, summary)
    present = {
        "IoU by class": "mask" in summary or "mask_raw" in summary,
        "mean over images": "image_degraded" in summary or "image_restored" in summary,
        "mean strength in these": "condition" in summary,
        "together 80.0 ms": "stages_ms" in summary,
        "dropped: superseded": "dropped_by_reason" in summary,
        "14.2 frames/s": "fps" in summary,
        "17.9 points": "mask" in summary and "mask_raw" in summary,
    }
    assert {words: words in page.text for words in present} == present
    assert "None" not in page.text
    assert not re.search(r"\bnan\b", page.text)


@pytest.mark.parametrize("absent", [None, math.nan])
def test_numbers_that_do_not_exist_are_dashes(tmp_path: Path, absent: float | None) -> None:
    summary = make_summary()
    summary["latency_ms"]["p95"] = summary["mask_raw"]["pa"] = summary["image_restored"]["psnr"] = absent
    page = report(tmp_path, summary)
    assert "63.2 ms – 97.4 ms" in page.text
    assert "PA – 80.0 % –" in page.text
    assert "PSNR 20.13 dB – –" in page.text
    assert not re.search(r"\bnan\b|None", page.text)


def test_page_without_frames_or_series(tmp_path: Path) -> None:
    page = report(tmp_path, samples=[], series=[])
    assert page.all("img") == []
    assert page.all("polyline") == []
    assert "Over the drive" not in page.text
    assert "Frames of the drive" not in page.text


def test_black_is_explained_where_it_occurs(tmp_path: Path) -> None:
    samples = make_samples()
    assert "unlabelled" not in report(tmp_path, samples=samples).text.split("What the figures mean")[0]
    samples[0].reference_mask[0, 0] = 255
    assert "unlabelled" in report(tmp_path, samples=samples).text.split("What the figures mean")[0]


def test_class_bars_have_their_class_colour_and_length(tmp_path: Path) -> None:
    bars = [(a["fill"], a["width"]) for a in report(tmp_path).all("rect", "outline")]
    road, pole = "rgb(128 64 128)", "rgb(192 192 128)"
    assert bars == [(road, "31.00%"), (road, "87.00%"), (pole, "40.00%"), (pole, "28.00%")]


def test_stages_fill_the_bar(tmp_path: Path) -> None:
    page = report(tmp_path)
    parts = [(a["x"], a["width"]) for a in page.all("rect") if "stage" in (a.get("fill") or "")]
    assert parts == [("0.00%", "25.00%"), ("25.00%", "12.50%"), ("37.50%", "62.50%")]


def curves(page: Page) -> list[list[tuple[float, float]]]:
    points = [str(line["points"]).split() for line in page.all("polyline")]
    return [[tuple(map(float, point.split(","))) for point in line] for line in points]  # type: ignore[misc]


def test_curves_run_left_to_right_and_up_for_more(tmp_path: Path) -> None:
    lines = curves(report(tmp_path))
    assert len(lines) == 5
    for line in lines:
        assert len(line) == 20
        assert np.allclose(np.diff([x for x, _ in line]), (line[-1][0] - line[0][0]) / 19, atol=1)
    raw, refined, degraded, restored, latency = ([y for _, y in line] for line in lines)
    assert len(set(raw)) == 1
    assert (np.diff(refined) < 0).all()
    assert (np.diff(latency) < 0).all()
    assert max(refined) < min(raw)  # SVG counts downwards
    assert max(restored) < min(degraded)


def test_curves_break_where_frames_have_no_value(tmp_path: Path) -> None:
    series = [FrameScore(float(i), None, None, None if i in (3, 5) else 0.5, None, math.nan) for i in range(10)]
    lines = curves(report(tmp_path, series=series))
    assert [len(line) for line in lines] == [3, 2, 4]
    assert lines[1][0] == lines[1][1]  # one frame alone: a dot


def test_an_hour_of_frames_draws_its_peak_in_a_small_page(tmp_path: Path) -> None:
    series = [FrameScore(i / 30, 500.0 if i == 70_000 else 50.0, None, None, None, None) for i in range(108_000)]
    page = report(tmp_path, samples=[], series=series)
    (line,) = curves(page)
    assert len(page.source) < 60_000
    peak = min(line, key=lambda point: point[1])
    assert peak[1] < min(y for _, y in line if y != peak[1]) - 100
    assert (peak[0] - line[0][0]) / (line[-1][0] - line[0][0]) == pytest.approx(70_000 / 108_000, abs=0.01)


def test_image_equal_to_its_reference_keeps_the_chart_finite(tmp_path: Path) -> None:
    series = [FrameScore(0.0, None, None, None, 30.0, math.inf), FrameScore(1.0, None, None, None, 30.0, 40.0)]
    assert np.isfinite(np.concatenate(curves(report(tmp_path, series=series)))).all()


def weather(count: int) -> list[FrameScore]:
    """Clear, then fog, which the recording says of the last three quarters, then a lost frame in ten."""
    return [
        FrameScore(i / 10, 50.0, None, None, None, None)
        if i % 10 == 9
        else FrameScore(
            i / 10,
            50.0,
            None,
            None,
            None,
            None,
            presence={"fog": float(i >= count // 2), "rain": 0.0},
            applied={"fog": 2.0 * (i >= count // 4), "rain": 0.0},
            familiarity=0.9,
            restored=i >= count // 2,
        )
        for i in range(count)
    ]


def test_conditions_over_the_drive(tmp_path: Path) -> None:
    strips = {strip.name: strip for strip in charts.strips(weather(40))}
    assert list(strips) == ["fog", "rain", "restoration ran"]
    assert strips["rain"].cells == strips["rain"].marks == ()
    fog, middle = strips["fog"], (charts.LEFT + charts.RIGHT) / 2
    assert {shade for _, _, shade in fog.cells} == {1.0}
    assert fog.cells[0][0] == pytest.approx(middle, abs=1)
    assert fog.marks[0][0] == pytest.approx((charts.LEFT + middle) / 2, abs=1)
    assert sum(width for _, width, _ in fog.cells) == pytest.approx(
        0.9 * (charts.RIGHT - middle), rel=0.01
    )  # lost ones
    assert strips["restoration ran"].cells == fog.cells
    page = report(tmp_path, series=weather(40))
    assert len(page.all("rect", "rail")) == 2
    assert "Never likelier than 5 %: rain." in page.text
    assert len(page.all("rect", "band")) == len(fog.cells) * 2
    assert "Familiarity" in page.text


def test_an_hour_of_weather_is_a_small_drawing() -> None:
    flickering = [replace(one, presence={"fog": i % 2}) for i, one in enumerate(weather(108_000))]
    assert all(len(strip.cells) <= 238 for strip in charts.strips(flickering))


@pytest.mark.parametrize(("low", "verdict"), [(-0.01, "same"), (0.01, "better")])
def test_a_difference_that_may_be_chance_is_not_praised(low: float, verdict: str) -> None:
    gain = {"value": 0.179, "low": low, "high": 0.3}
    summary = make_summary() | {"measures": {"all": {"miou_gain": gain}}}
    assert figures.mask_scores(summary)[0].verdict == verdict
    says = "+17.9 points against the raw ones, which may be chance"
    assert (says in figures.statement(summary)) == (verdict == "same")


def printed(summary: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=120, color_system=None)
    console.print(summary_table(summary))
    return " ".join(re.sub(r"[^\S\n]+|[│┃]", " ", console.file.getvalue()).split(" "))  # type: ignore[attr-defined]


def test_table_for_the_terminal() -> None:
    rows = [line.split() for line in printed(make_summary()).splitlines()]
    assert ["mIoU", "43.4", "%", "61.3", "%", "+17.9", "points"] in rows
    assert ["mPA", "50.0", "%", "40.0", "%", "−10.0", "points"] in rows
    assert ["PSNR", "20.13", "dB", "24.35", "dB", "+4.22", "dB"] in rows
    assert ["SSIM", "0.712", "0.853", "+0.141"] in rows
    assert ["frames", "processed", "147", "of", "150", "3", "dropped"] in rows
    assert ["fog", "found", "in", "140", "frames"] in rows
    assert ["restoration", "ran", "in", "95", "%", "of", "frames"] in rows
    assert ["rate", "14.2", "frames/s"] in rows
    assert ["latency", "p99", "97.4", "ms"] in rows


def test_table_takes_names_literally() -> None:
    assert "[red]drive" in printed(make_summary() | {"recording": "[red]drive"})


numbers = st.none() | st.just(math.nan) | st.floats(0, 1)
decibels = st.none() | st.floats(0, 100) | st.sampled_from([math.inf, math.nan])
counts = st.integers(0, 10**6)
mask_scores = st.fixed_dictionaries(
    dict.fromkeys(("pa", "mpa", "miou", "fwiou"), numbers)
    | {"iou": st.dictionaries(st.text(max_size=8), numbers, max_size=4)}
)
image_scores = st.fixed_dictionaries({"psnr": decibels, "ssim": numbers})
milliseconds = st.none() | st.floats(0, 1e5)
estimates = st.fixed_dictionaries(
    {"frames": counts},
    optional=dict.fromkeys(("presence", "present", "strength", "recognised", "false_alarms"), numbers)
    | dict.fromkeys(("applied", "not_applied"), counts),
)
summaries = st.fixed_dictionaries(
    {
        "recording": st.text(max_size=12),
        "image_topic": st.text(max_size=12),
        "mode": st.sampled_from(["live", "offline"]),
        "bundle": st.text(max_size=12)
        | st.dictionaries(st.sampled_from(["name", "path", "sha256"]), st.text(max_size=8)),
        "backend": st.text(max_size=12),
        "device": st.text(max_size=12),
        "frames": st.fixed_dictionaries(dict.fromkeys(("read", "processed", "dropped", "failed"), counts)),
        "latency_ms": st.fixed_dictionaries(dict.fromkeys(("p50", "p95", "p99"), milliseconds)),
    },
    optional={
        "mask_raw": mask_scores,
        "mask": mask_scores,
        "image_degraded": image_scores,
        "image_restored": image_scores,
        "condition": st.fixed_dictionaries(
            {
                "estimated": counts,
                "clear": counts,
                "conditions": st.dictionaries(st.text(max_size=8), estimates, max_size=3),
            },
            optional={"familiarity": numbers, "restoration_ran": numbers},
        ),
        "stages_ms": st.dictionaries(st.text(max_size=8), milliseconds, max_size=5),
        "dropped_by_reason": st.dictionaries(st.text(max_size=8), counts, max_size=3),
        "fps": milliseconds,
    },
)
frame_scores = st.builds(
    FrameScore,
    time_s=st.floats(0, 1e5),
    latency_ms=milliseconds,
    miou_raw=numbers,
    miou=numbers,
    psnr_degraded=decibels,
    psnr_restored=decibels,
    presence=st.dictionaries(st.sampled_from(["fog", "rain"]), st.floats(0, 1), max_size=2),
    applied=st.dictionaries(st.sampled_from(["fog", "snow"]), st.floats(0, 3), max_size=2),
    familiarity=numbers,
    restored=st.booleans(),
    lost=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(summary=summaries, series=st.lists(frame_scores, max_size=6))
def test_any_summary_makes_a_sound_page_and_table(
    tmp_path_factory: pytest.TempPathFactory, summary: dict[str, Any], series: list[FrameScore]
) -> None:
    before = copy.deepcopy(summary)
    page = report(tmp_path_factory.getbasetemp(), summary, [], series=series)
    assert repr(summary) == repr(before)
    assert f"{summary['frames']['processed']} of {summary['frames']['read']} frames were processed" in page.text
    assert not re.search(r"\bnan\b|\binf\b", " ".join(str(line["points"]) for line in page.all("polyline")))
    assert "frames processed" in printed(summary)
