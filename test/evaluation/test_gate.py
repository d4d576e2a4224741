"""Gates: what is understood, what is refused, and what fails."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coop_perception.evaluation.gate import CHANGES, Gate, GateSyntaxError, judge, parse
from coop_perception.evaluation.judged import cell, junit_xml, score_rows
from coop_perception.evaluation.measures import MEASURES, NAMES


def score(value: float, low: float | None = None, high: float | None = None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


MEASURED: dict[str, Any] = {
    "all": {"frames": 9, "miou": score(0.6, 0.5, 0.7), "latency_p95": score(40.0), "psnr_gain": score(4.0)},
    "condition": {"fog": {"miou": score(0.4, 0.3, 0.5)}},
    "camera": {"left/cam": {"miou": score(0.7, 0.6, 0.8)}},
    "class": {"Traffic light": {"iou": score(0.2, 0.1, 0.3)}},
    "estimate": {"fog": {"presence": score(0.8, 0.7, 0.9), "false_alarms": score(0.02)}},
}

segments = st.from_regex(r"[A-Za-z][A-Za-z0-9_/ -]{0,20}[A-Za-z0-9]", fullmatch=True)
numbers = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:g}"))
gates = st.builds(
    Gate,
    metric=st.sampled_from(sorted(MEASURES)),
    segment=st.just("") | segments,
    change=st.just(""),
    operator=st.sampled_from(["<", "<=", ">", ">="]),
    number=numbers,
    significant=st.booleans(),
)


@given(gate=gates)
def test_a_gate_is_read_as_it_is_written(gate: Gate) -> None:
    assert parse(str(gate)) == gate
    assert parse(f"  {str(gate).replace(gate.operator, ' ' + gate.operator + ' ')}  ") == gate


@given(gate=gates, change=st.sampled_from(CHANGES))
def test_a_gate_of_a_comparison_is_read_as_it_is_written(gate: Gate, change: str) -> None:
    changed = Gate(gate.metric, gate.segment, change, gate.operator, gate.number, gate.significant)
    assert parse(str(changed), comparing=True) == changed


@given(text=st.text(max_size=40) | st.text("miou.fgdrp <>=0.5e+-()_", max_size=30))
def test_any_text_is_a_gate_or_refused(text: str) -> None:
    for comparing in (False, True):
        try:
            gate = parse(text, comparing)
        except GateSyntaxError:
            pass
        else:
            assert gate.metric in NAMES


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("miou", "is no condition; expected metric"),
        ("miou < 0.5; import os", "is no condition"),
        ("miou == 0.5", "is no condition"),
        ("miou < nan", "is no condition"),
        ("miou < 1e999", "is no finite number"),
        ("mIoU < 0.5", "there is no metric 'mIoU'; there are miou"),
        ("accuracy < 0.5", "there is no metric 'accuracy'; there are miou"),
        ("iou < 0.5", "iou is of one class; expected iou.CLASS"),
        ("recognised < 0.5", "recognised is of one condition; expected recognised.CONDITION"),
        ("latency_p95.fog > 50", "is of the whole run"),
        ("dropped > 0 significant", "is of the whole run"),
        ("miou. < 1", "names no segment"),
        ("miou < 0.5 significant significant", "is no condition"),
    ],
)
def test_what_is_no_gate_is_refused_by_what_was_expected(text: str, says: str) -> None:
    with pytest.raises(GateSyntaxError, match=says):
        parse(text)


def test_a_comparison_asks_which_way() -> None:
    with pytest.raises(GateSyntaxError, match="does not say which way it changes"):
        parse("miou < 0.1", comparing=True)


@pytest.mark.parametrize(
    ("text", "failed", "says"),
    [
        ("miou < 0.55", False, "miou is 0.6, 95 % interval 0.5 to 0.7"),
        ("miou < 0.65", True, "miou is 0.6"),
        ("miou < 0.65 significant", False, "miou is 0.6"),
        ("miou < 0.75 significant", True, "miou is 0.6"),
        ("miou.fog < 0.5", True, "miou.fog is 0.4"),
        ("miou.left/cam < 0.7", False, "miou.left/cam is 0.7"),
        ("miou.left/cam <= 0.7", True, "miou.left/cam is 0.7"),
        ("iou.Traffic light < 0.25", True, "is 0.2"),
        ("presence.fog < 0.75", False, "presence.fog is 0.8, 95 % interval 0.7 to 0.9"),
        ("false_alarms.fog > 0.01", True, "false_alarms.fog is 0.02"),
        ("recognised.fog < 0.5", True, "recognised.fog has no value here"),
        ("latency_p95 > 50", False, "latency_p95 is 40"),
        ("psnr_gain < 5 significant", True, "without an interval: too few frames"),
        ("psnr_gain.fog < 5", True, "psnr_gain.fog has no value here: nothing was scored by it"),
        ("miou.snow < 0.5", True, "no frame is of 'snow'; there are left/cam, fog, Traffic light"),
    ],
)
def test_verdicts(text: str, failed: bool, says: str) -> None:
    verdict = judge(parse(text), MEASURED)
    assert verdict.failed is failed
    assert says in verdict.reason


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ("miou.drop > 0.01", True),
        ("miou.drop > 0.03", False),
        ("miou.drop > 0.005 significant", True),
        ("miou.drop > 0.01 significant", False),
        ("miou.rise > 0", False),
    ],
)
def test_verdicts_on_what_changed(text: str, failed: bool) -> None:
    differences = {"all": {"miou": score(-0.02, -0.03, -0.009)}}
    assert judge(parse(text, comparing=True), differences).failed is failed


def test_no_change_is_no_negative_nought() -> None:
    reason = judge(parse("miou.drop > 0.01", comparing=True), {"all": {"miou": score(0.0, 0.0, 0.0)}}).reason
    assert reason == "miou.drop is 0, 95 % interval 0 to 0"


def test_junit_says_what_failed_and_takes_names_literally() -> None:
    verdicts = [judge(parse(text), MEASURED) for text in ("miou < 0.55", "miou.fog < 0.5")]
    root = ElementTree.fromstring(junit_xml(verdicts, 'bag<b>"&\x1b'))
    (suite,) = root
    assert suite.attrib["tests"] == "2"
    assert suite.attrib["failures"] == "1"
    assert [case.find("failure") is not None for case in suite] == [False, True]
    assert suite[1].attrib["classname"].startswith('bag<b>"&')


def test_markdown_names_scores_as_gates_do() -> None:
    rows = score_rows({"measures": MEASURED})
    assert "| miou | 0.6 | 0.5 to 0.7 |" in rows.replace("\\", "")
    assert "| presence.fog | 0.8 | 0.7 to 0.9 |" in rows.replace("\\", "")
    assert "| false_alarms.fog | 0.02 | |" in rows.replace("\\", "")


def test_names_are_no_markdown() -> None:
    assert cell("a|b <i>*x*</i> [y](z)\n") == r"a\|b \<i\>\*x\*\</i\> \[y\]\(z\)"
