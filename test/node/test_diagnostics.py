"""A camera's level and message from its statistics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from fake_cuda import FakeCuda
from toy_bundle import open_pipeline

from coop_perception.node.diagnostics import AHEAD_S, KEEPS_UP, diagnostics, judge
from coop_perception.node.input_health import Missing
from coop_perception.node.statistics import WINDOW_S, CameraStatistics, Summary
from coop_perception.node.twins import LEASE_S, Twins

NAN = float("nan")
RUNNING = Summary(
    received=300,
    processed=290,
    clear=0,
    dropped={"superseded": 10},
    recently_dropped={},
    input_rate=20.0,
    output_rate=20.0,
    latency_ms=(10.0, 12.0, 15.0),
    stages_ms={"segmenter": 8.0},
    silence_s=0.05,
    age_s=0.02,
    present=(),
)
NOTHING = Missing()
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@pytest.mark.parametrize(
    ("changes", "missing", "level", "says"),
    [
        ({}, NOTHING, OK, "running"),
        ({}, Missing("nothing publishes it"), ERROR, "nothing publishes it"),
        ({}, Missing(camera_info="no camera_info: sent to nobody", info_published=True), WARN, "no camera_info: sent"),
        ({}, Missing(camera_info="no camera_info: nothing publishes it"), OK, "running"),
        ({"received": 0}, NOTHING, WARN, "no image yet"),
        ({"recently_dropped": {"malformed": 3}}, NOTHING, WARN, "3 malformed in 10 s"),
        (
            {"recently_dropped": {"malformed": 3, "failed": 1}, "output_rate": NAN},
            NOTHING,
            ERROR,
            "1 failed, 3 malformed",
        ),
        ({"recently_dropped": {"too_old": 9}, "output_rate": NAN}, NOTHING, ERROR, "9 too_old"),
        ({"recently_dropped": {"unwatched": 9}, "output_rate": NAN}, NOTHING, OK, "running"),
        ({"recently_dropped": {"superseded": 9}, "output_rate": 20 * KEEPS_UP}, NOTHING, OK, "running"),
        ({"recently_dropped": {"superseded": 9}, "output_rate": 9.9}, NOTHING, WARN, "9.9 of 20.0 images per second"),
        ({"age_s": -AHEAD_S}, NOTHING, OK, "running"),
        ({"age_s": -AHEAD_S - 0.1}, NOTHING, WARN, "1.1 s ahead of the node's clock"),
        ({"age_s": NAN}, NOTHING, OK, "running"),
    ],
)
def test_levels_change_at_their_thresholds(
    changes: dict[str, object], missing: Missing, level: bytes, says: str
) -> None:
    found, message = judge(replace(RUNNING, **changes), missing)
    assert (found, says in message) == (level, True), message


def test_statistics_know_silence_age_and_recent_drops() -> None:
    now = [100.0]
    statistics = CameraStatistics(lambda: now[0])
    now[0] += 4
    assert statistics.summary().silence_s == 4
    statistics.received(0.25)
    statistics.dropped("malformed")
    now[0] += 2
    summary = statistics.summary()
    assert (summary.silence_s, summary.age_s, dict(summary.recently_dropped)) == (2, 0.25, {"malformed": 1})
    now[0] += WINDOW_S
    summary = statistics.summary()
    assert (dict(summary.recently_dropped), dict(summary.dropped)) == ({}, {"malformed": 1})


@pytest.mark.parametrize(("present", "said"), [(None, None), ((), "none"), (("fog", "rain"), "fog, rain")])
def test_a_cameras_entry_names_the_conditions_that_are_there(
    bundle: Path, present: tuple[str, ...] | None, said: str | None
) -> None:
    summary = replace(RUNNING, clear=7, present=present)
    stages = {"refinement": True, "restoration": True}
    camera, *_ = diagnostics("/node", {"front": (summary, NOTHING)}, open_pipeline(bundle), stages, Time()).status
    values = {pair.key: pair.value for pair in camera.values}
    assert (values["frames not restored, being clear"], values.get("conditions")) == ("7", said)


def test_the_engines_entry_tells_gpu_memory_where_there_is_a_gpu(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = open_pipeline(bundle)

    def values(refinement: bool = True) -> dict[str, str]:
        stages = {"refinement": refinement, "restoration": True}
        engines, _ = diagnostics("/node", {}, pipeline, stages, Time()).status
        return {pair.key: pair.value for pair in engines.values}

    assert values() == {
        "bundle": "toy",
        "bundle directory": str(bundle),
        "backend": "onnxruntime",
        "device": pipeline.engines["segmenter"].device,
        "precision": "fp32",
        "refinement": "on",
        "restoration": "on",
    }
    assert values(refinement=False)["restoration"] == "on, but without effect while refinement is off"
    FakeCuda().stand_in(monkeypatch)
    pipeline.engines["segmenter"].device = "Fake GPU"
    assert values()["GPU memory in use (MiB)"] == "0 of 1024"


def test_another_node_of_the_name_is_said_once_a_dead_one_would_be_gone(bundle: Path) -> None:
    """In the log once, and in the lifecycle's entry."""
    said: list[str] = []
    node: Any = SimpleNamespace(
        create_timer=lambda *_, **__: None,
        get_fully_qualified_name=lambda: "/coop_perception",
        get_logger=lambda: SimpleNamespace(warning=said.append),
    )
    twins = Twins(node)
    for now, count in ((0, 1), (5, 2), (5 + LEASE_S - 1, 2), (50, 1), (60, 2)):
        twins.seen(count, now)
        assert (twins.said, said) == ("", [])
    for now in (60 + LEASE_S, 61 + LEASE_S):
        twins.seen(2, now)
    assert said == [twins.said]
    assert twins.said.startswith("2 nodes are called /coop_perception; stop one")
    stages = {"refinement": True, "restoration": True}
    lifecycle = diagnostics("/node", {}, open_pipeline(bundle), stages, Time(), twins.said).status[-1]
    assert (lifecycle.level, lifecycle.message) == (WARN, twins.said)
    twins.seen(1, 100)
    assert twins.said == ""
