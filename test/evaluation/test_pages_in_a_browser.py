"""The pages as a browser sees them: nothing goes wrong in them, and what can be moved moves."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_report import HOSTILE, make_samples, make_series, make_summary

from coop_perception.classes import CAMVID_CLASSES
from coop_perception.evaluation.report.frames import FrameScore, Sample, Shown
from coop_perception.evaluation.report.page import write_report
from coop_perception.evaluation.report.tables import Cell, Sheet, number_cell, write_tables

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

GALLERY_CHECK = """
const say = (what) => document.body.setAttribute("data-checked", JSON.stringify(what));
const input = document.querySelector(".slider input"), over = document.querySelector(".over");
const clip = () => getComputedStyle(over).clipPath;
const before = clip();
input.value = 20;
input.dispatchEvent(new Event("input"));
const after = clip();
const select = document.querySelector("select[data-filter=condition]");
select.selectedIndex = 1;
select.dispatchEvent(new Event("change"));
const shown = [...document.querySelectorAll("#gallery figure")].filter((f) => f.offsetParent !== null).length;
say({before, after, shown, count: document.getElementById("count").textContent,
     wide: document.documentElement.scrollWidth <= window.innerWidth,
     bold: document.querySelectorAll("b").length, broken: [...document.images].filter((i) => !i.naturalWidth).length});
"""
SORT_CHECK = """
const button = document.querySelectorAll("table.sortable thead button")[1];
const column = () => [...document.querySelectorAll("table.sortable")][0].tBodies[0].rows;
const texts = () => [...column()].map((row) => row.cells[1].textContent);
button.click();
const up = texts();
button.click();
document.body.setAttribute("data-checked", JSON.stringify({up, down: texts()}));
"""


def in_browser(page: Path, check: str, width: int = 1200) -> dict:
    """What a script says that runs behind the page's own; the page must log nothing."""
    text = page.read_text()
    # The page's policy lets nothing run but its own script: the check needs a page without one.
    policed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    checked = page.with_name(f"checked_{page.name}")
    checked.write_text(
        policed.replace("</body>", f"<script>addEventListener('load', () => {{{check}}})</script></body>")
    )
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command += [f"--user-data-dir={page.parent / 'profile'}", f"--window-size={width},900", "--enable-logging=stderr"]

    def dump(path: Path) -> str:
        done = subprocess.run(
            [*command, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        return done.stdout

    dump(page)  # as it is, its policy included
    found = re.search(r'data-checked="([^"]*)"', dump(checked))
    assert found is not None
    return json.loads(html.unescape(found[1]))


def gallery(samples: list[Sample], title: str = "worst: frame") -> list[Shown]:
    conditions = (("fog",), ("rain", "fog"), ("clear",))
    return [
        Shown(f"{title} {i}", sample, conditions[i % 3], ("Road", "Car")[: 1 + i % 2], {"mIoU": 0.5})
        for i, sample in enumerate(samples)
    ]


@needs_browser
@pytest.mark.parametrize("width", [1280, 400])
def test_sliders_move_and_filters_choose(tmp_path: Path, width: int) -> None:
    summary = make_summary() | {"recording": HOSTILE}
    shown = gallery(make_samples(), HOSTILE)
    write_report(tmp_path / "report.html", summary, make_samples(), CAMVID_CLASSES, make_series(), shown)
    found = in_browser(tmp_path / "report.html", GALLERY_CHECK, width)
    assert "50%" in found["before"]
    assert "20%" in found["after"] or "80%" in found["after"]
    assert found["before"] != found["after"]
    assert found["shown"] == 1  # clear, the first in the order of names
    assert found["count"] == "1 frames"
    assert found["wide"]
    assert found["bold"] == found["broken"] == 0


@needs_browser
def test_headings_sort(tmp_path: Path) -> None:
    rows = [[Cell(HOSTILE, link="x"), number_cell(value)] for value in (0.5, None, 10.0, 2.0)]
    write_tables(tmp_path / "report.html", "k", HOSTILE, "s", [HOSTILE], [Sheet("t", "", ["a", "b"], rows)], [])
    found = in_browser(tmp_path / "report.html", SORT_CHECK)
    assert found == {"up": ["0.500", "2.000", "10.000", "–"], "down": ["10.000", "2.000", "0.500", "–"]}


def test_a_thousand_frames_weigh_little(tmp_path: Path) -> None:
    """With pictures as large and as hard to compress as any: noise."""
    random = np.random.default_rng(0)

    def photograph() -> np.ndarray:
        return random.integers(0, 256, (1080, 1920, 3), dtype=np.uint8)

    image, restored, clean = photograph(), photograph(), photograph()
    mask = np.kron(random.integers(0, 11, (67, 120), dtype=np.uint8), np.ones((17, 16), np.uint8))[:1080, :1920]
    mask = np.ascontiguousarray(np.pad(mask, ((0, 1080 - mask.shape[0]), (0, 0)), mode="edge"))
    sample = Sample("frame", image, mask, mask, restored, clean, mask)
    series = [
        FrameScore(
            i / 10, 50.0, 0.4, 0.5, 20.0, 24.0, 0.1, 0.2, 0.1, i % 7 == 0, {"fog": i / 1000}, {"fog": 1.0}, 0.9, True
        )
        for i in range(1000)
    ]
    shown = gallery([replace(sample, title=str(i)) for i in range(28)])  # best, median, worst, 8 conditions, 11 classes
    write_report(tmp_path / "report.html", make_summary(), [sample] * 4, CAMVID_CLASSES, series, shown)
    assert (tmp_path / "report.html").stat().st_size < 15e6
