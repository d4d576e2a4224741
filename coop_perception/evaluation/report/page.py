"""report.html: one file that needs nothing beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from coop_perception.classes import SemanticClass
from coop_perception.evaluation.report import charts, figures
from coop_perception.evaluation.report.frames import FrameScore, Sample, Shown
from coop_perception.evaluation.report.panels import legend_classes, panel_rows
from coop_perception.evaluation.report.templates import render
from coop_perception.metrics import PSNR_CAP
from coop_perception.replacing import write_whole
from coop_perception.shown import plain

_JPEG_QUALITY = 88
_GALLERY_QUALITY = 80
GALLERY_WIDEST = 480
"""Pixels: some thirty frames of six pictures each are then a few megabytes."""

_REASONS = {
    "superseded": "a newer frame arrived before this one's turn came",
    "too_old": "older than the node's limit when its turn came",
    "malformed": "not a readable image",
    "unwatched": "nobody subscribed to any output",
    "failed": "the networks failed on it",
}


@dataclass(frozen=True, slots=True)
class _Picture:
    """An embedded picture; no `uri` where a sample lacks it."""

    uri: str
    alt: str


@dataclass(frozen=True, slots=True)
class _PictureRow:
    title: str
    pictures: tuple[_Picture, ...]


@dataclass(frozen=True, slots=True)
class _Stage:
    name: str
    ms: float
    start: float
    """Where its part of the bar begins, percent."""
    share: float
    """Percent of the networks' time."""


@dataclass(frozen=True, slots=True)
class _ClassBar:
    score: figures.Comparison
    colour: str
    """CSS."""


def write_report(
    path: Path,
    summary: Mapping[str, Any],
    samples: Sequence[Sample],
    classes: Sequence[SemanticClass],
    series: Sequence[FrameScore],
    gallery: Sequence[Shown] = (),
) -> None:
    """Write a page about an evaluated recording: pictures, scores, time, frames, and what the figures mean.

    What the summary, the samples or the series lack is left out.

    Args:
        path: an HTML file; its directory exists.
        summary: as in summary.json.
        samples: frames to show; may be empty.
        classes: of the masks.
        series: scores by frame; may be empty.
        gallery: frames to look at closely, and why.

    Raises:
        OSError: the file cannot be written.
    """
    measures = figures.measures_table(summary)
    shown = _shown_frames(gallery, classes)
    strips = charts.strips(series)
    page = render(
        "report.html.j2",
        "gallery.js.j2",
        name=figures.recording_name(summary),
        statement=figures.statement(summary),
        summary=summary,
        fps=figures.number(summary.get("fps")),
        latency={k: figures.number(summary.get("latency_ms", {}).get(k)) for k in ("p50", "p95", "p99")},
        sample_titles=[sample.title for sample in samples],
        picture_rows=_picture_rows(samples, classes),
        legend=[(named.name, _css(named)) for named in legend_classes(samples, classes)],
        mask_scores=figures.mask_scores(summary),
        class_bars=_class_bars(summary, classes),
        image_scores=figures.image_scores(summary),
        timelines=charts.timelines(series),
        strips=[strip for strip in strips if strip.cells or strip.marks],
        absent=[strip.name for strip in strips if not (strip.cells or strip.marks)],
        conditions=figures.conditions_table(summary),
        histogram=charts.histogram([ms for s in series if (ms := figures.number(s.latency_ms)) is not None]),
        measures=measures if measures.rows else None,
        confusion=_confusion(summary, classes),
        gallery=shown,
        filters=_filters(gallery),
        chart=charts,
        stages=_stages(summary.get("stages_ms", {})),
        unaccounted=figures.unaccounted(summary["frames"]),
        reasons=_REASONS,
        facts=list(facts_of(summary)),
        warnings=figures.warnings(summary),
        psnr_cap=f"{PSNR_CAP:g}",
    )
    write_whole(path, page)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two pictures of which one lies over the other; or one alone."""

    under: _Picture
    under_name: str
    over: _Picture | None
    over_name: str


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame of the gallery; conditions and classes by their numbers in the filters."""

    title: str
    conditions: str
    classes: str
    scores: tuple[tuple[str, str], ...]
    pairs: tuple[_Pair, ...]


def _filters(gallery: Sequence[Shown]) -> list[tuple[str, str, list[str]]]:
    """By what the gallery's frames can be chosen: attribute, label, names."""
    conditions = sorted({name for frame in gallery for name in frame.conditions})
    classes = sorted({name for frame in gallery for name in frame.classes})
    kinds = [("condition", "condition", conditions), ("class", "class in the reference", classes)]
    return [kind for kind in kinds if len(kind[2]) > 1]


def _shown_frames(gallery: Sequence[Shown], classes: Sequence[SemanticClass]) -> list[_Frame]:
    names = {attribute: of for attribute, _, of in _filters(gallery)}

    def numbers(attribute: str, of: Sequence[str]) -> str:
        return " ".join(str(names[attribute].index(name)) for name in of if attribute in names)

    return [
        _Frame(
            frame.title,
            numbers("condition", frame.conditions),
            numbers("class", frame.classes),
            tuple((label, figures.text(figures.number(value), 3)) for label, value in frame.scores.items()),
            tuple(_pairs(frame, classes)),
        )
        for frame in gallery
    ]


def _pairs(frame: Shown, classes: Sequence[SemanticClass]) -> Iterator[_Pair]:
    pictures = {
        row.title: _Picture(_data_uri(row.panels[0], row.flat, _GALLERY_QUALITY), f"{row.title}, {frame.title}")
        for row in panel_rows([frame.sample], classes, GALLERY_WIDEST)
        if row.panels[0] is not None
    }
    pairs = (("input", "restored"), ("raw mask", "refined mask"), ("reference image", "reference mask"))
    for over, under in pairs:
        if over in pictures and under in pictures:
            yield _Pair(pictures[under], under, pictures[over], over)
        elif over in pictures or under in pictures:
            name = over if over in pictures else under
            yield _Pair(pictures[name], name, None, "")


@dataclass(frozen=True, slots=True)
class _Confusion:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[int, ...]], ...]
    """Of each class in the reference, percent of its pixels by column."""


def _confusion(summary: Mapping[str, Any], classes: Sequence[SemanticClass]) -> _Confusion | None:
    matrix = summary.get("mask", {}).get("confusion")
    if not matrix:
        return None
    names = [c.name for c in classes]
    rows = tuple(
        (name, tuple(round(100 * count / sum(counts)) for count in counts))
        for name, counts in zip(names, matrix, strict=True)
        if sum(counts)
    )
    return _Confusion((*names, "no class"), rows)


def _picture_rows(samples: Sequence[Sample], classes: Sequence[SemanticClass]) -> list[_PictureRow]:
    rows = panel_rows(samples, classes) if samples else []
    return [
        _PictureRow(
            row.title,
            tuple(
                _Picture("" if panel is None else _data_uri(panel, row.flat), f"{row.title}, {sample.title}")
                for panel, sample in zip(row.panels, samples, strict=True)
            ),
        )
        for row in rows
    ]


def _data_uri(picture: NDArray[np.uint8], flat: bool, quality: int = _JPEG_QUALITY) -> str:
    """PNG for masks, whose colours have to stay exact; JPEG for photographs."""
    kind, extension, options = ("png", ".png", []) if flat else ("jpeg", ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
    encoded = cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)[1]
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def _css(semantic_class: SemanticClass) -> str:
    return "rgb({} {} {})".format(*semantic_class.rgb)


def _class_bars(summary: Mapping[str, Any], classes: Sequence[SemanticClass]) -> list[_ClassBar]:
    colours = {semantic_class.name: _css(semantic_class) for semantic_class in classes}
    return [_ClassBar(score, colours.get(score.name, "gray")) for score in figures.class_scores(summary)]


def _stages(stages_ms: Mapping[str, Any]) -> list[_Stage]:
    times = {name: ms for name, value in stages_ms.items() if (ms := figures.number(value)) is not None}
    total = sum(times.values())
    stages, start = [], 0.0
    for name, ms in times.items():
        share = 100 * ms / total if total else 0.0
        stages.append(_Stage(name, ms, start, share))
        start += share
    return stages


def facts_of(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was run, as (label, value)."""
    yield "recording", plain(summary["recording"])
    yield "image topic", str(summary["image_topic"])
    yield "mode", str(summary["mode"])
    yield "backend", str(summary["backend"])
    yield "precision", str(summary.get("precision", figures.DASH))
    yield "device", str(summary["device"])
    for key in ("network_height", "condition_time_constant", "skip_when_clear", "rate"):
        if key in summary:
            yield key.replace("_", " "), str(summary[key])
    start, end, every = summary.get("run", {}).get("selection", (0.0, None, 1))
    if (start, end, every) != (0.0, None, 1):
        until = "the end" if end is None else f"{end:g} s"
        yield "frames", f"from {start:g} s to {until}" + f", one in {every}" * (every > 1)
    yield from flat("bundle", summary["bundle"])
    yield "made by", f"coop_perception {version('coop_perception')}"


def flat(label: str, value: Any) -> Iterator[tuple[str, str]]:
    """A fact as (label, value); of several in one, each."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from flat(f"{label} {key}", part)
    else:
        yield label, figures.DASH if value is None else plain(value)
