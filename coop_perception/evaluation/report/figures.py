"""The figures of a summary in words and digits: one wording for the page and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from coop_perception.shown import LONGEST_NAME, plain

DASH = "–"
"""Stands for a number that does not exist."""
SHOWN = 5
"""Warnings; summary.json has them all."""


def number(value: Any) -> float | None:
    """A summary's value as a finite float; None for null, NaN and infinities."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def text(value: float | None, digits: int = 1, unit: str = "") -> str:
    """e.g. "61.3 %"."""
    if value is None:
        return DASH
    rounded = round(value, digits) + 0.0  # without the sign of a zero
    return f"{rounded:.{digits}f}{unit and ' ' + unit}".replace("-", "−")


def signed(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A difference, e.g. "+17.9 points"; "±0.0" where it vanishes in rounding."""
    if value is None:
        return DASH
    sign = "±" if round(value, digits) == 0 else "+" if value > 0 else "−"
    return f"{sign}{abs(value):.{digits}f}{unit and ' ' + unit}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A score, better when higher, before and after the networks' work on it."""

    name: str
    before: float | None
    after: float | None
    digits: int
    unit: str = ""
    difference_unit: str = ""
    spread: tuple[float, float] | None = None
    """The difference's 95 % interval, where there is one."""

    @property
    def difference(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> str:
        """better, worse, or same: also where there is nothing to compare, or where the interval holds no difference."""
        difference = round(self.difference or 0.0, self.digits)
        if self.unsure:
            return "same"
        return "better" if difference > 0 else "worse" if difference < 0 else "same"

    @property
    def unsure(self) -> bool:
        """Whether the interval says that it may be none."""
        return self.spread is not None and self.spread[0] <= 0 <= self.spread[1]

    @property
    def texts(self) -> tuple[str, str, str]:
        """Before, after, difference."""
        return (
            text(self.before, self.digits, self.unit),
            text(self.after, self.digits, self.unit),
            signed(self.difference, self.digits, self.difference_unit),
        )


def mask_scores(summary: Mapping[str, Any]) -> list[Comparison]:
    """Raw against refined masks, in percent, mIoU first; empty where no mask was scored."""
    names = {"miou": "mIoU", "mpa": "mPA", "pa": "PA", "fwiou": "FWIoU"}
    pair = _pair(summary, "mask_raw", "mask")
    if pair is None:
        return []
    gains = summary.get("measures", {}).get("all", {})
    return [
        _percent(name, pair[0].get(key), pair[1].get(key), _spread(gains.get(f"{key}_gain")))
        for key, name in names.items()
    ]


def class_scores(summary: Mapping[str, Any]) -> list[Comparison]:
    """Intersection over union per class, raw against refined, in percent; empty where no mask was scored."""
    pair = _pair(summary, "mask_raw", "mask")
    if pair is None:
        return []
    raw, refined = (scores.get("iou", {}) for scores in pair)
    gains = summary.get("measures", {}).get("class", {})
    return [
        _percent(name, raw.get(name), refined.get(name), _spread(gains.get(name, {}).get("iou_gain")))
        for name in dict.fromkeys([*raw, *refined])
    ]


def image_scores(summary: Mapping[str, Any]) -> list[Comparison]:
    """Degraded against restored images: PSNR in dB, SSIM; empty where no image was scored."""
    pair = _pair(summary, "image_degraded", "image_restored")
    if pair is None:
        return []
    degraded, restored = pair
    gains = summary.get("measures", {}).get("all", {})
    psnr, ssim = (_spread(gains.get(name)) for name in ("psnr_gain", "ssim_gain"))
    return [
        Comparison("PSNR", number(degraded.get("psnr")), number(restored.get("psnr")), 2, "dB", "dB", psnr),
        Comparison("SSIM", number(degraded.get("ssim")), number(restored.get("ssim")), 3, spread=ssim),
    ]


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """The first of what went wrong on the way, and how much more there is."""
    found = [str(warning) for warning in summary.get("warnings", ())]
    return found[:SHOWN] + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])


def recording_name(summary: Mapping[str, Any]) -> str:
    """The recording's own name, without the directories it lies in."""
    return plain(PurePath(summary["recording"]).name or summary["recording"], LONGEST_NAME)


def bundle_name(summary: Mapping[str, Any]) -> str:
    bundle = summary["bundle"]
    return str(bundle.get("name", DASH)) if isinstance(bundle, Mapping) else PurePath(str(bundle)).name or str(bundle)


_MODES = {
    "fleet": "read frame by frame, without a node,",
    "live": "played to the running node",
    "offline": "read frame by frame, without a node,",
    "recorded": "made beside the running node, with its outputs,",
}


def unaccounted(frames: Mapping[str, int]) -> int:
    """Frames read that were neither processed nor counted as dropped or failed; below 0 where one was counted twice."""
    return frames["read"] - frames["processed"] - frames["dropped"] - frames["failed"]


def statement(summary: Mapping[str, Any]) -> str:
    """What was run and what came out, in a few sentences."""
    several = summary["mode"] == "fleet"
    subject = f"{recording_name(summary)} were" if several else f"The recording “{recording_name(summary)}” was"
    sentences = [
        f"{subject} {_MODES[summary['mode']]}{_pace(summary)} "
        f"and taken through the bundle {bundle_name(summary)} ({summary['backend']} on {summary['device']}).",
        _frames(summary),
        *_masks(summary),
        *_images(summary),
        *_conditions(summary),
    ]
    return " ".join(sentences)


def _pace(summary: Mapping[str, Any]) -> str:
    rate = summary.get("rate", 1)
    return "" if rate == 1 else f" at {rate:.2g} times its own pace"


def _frames(summary: Mapping[str, Any]) -> str:
    frames, fps = summary["frames"], number(summary.get("fps"))
    sentence = f"{frames['processed']} of {frames['read']} frames were processed"
    sentence += "" if fps is None else f", at {text(fps)} frames/s"
    p50, p99 = (number(summary.get("latency_ms", {}).get(key)) for key in ("p50", "p99"))
    if p50 is not None and p99 is not None:
        sentence += f"; the median latency was {text(p50)} ms, and 99 of 100 frames took at most {text(p99)} ms"
    if frames["dropped"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary.get("dropped_by_reason", {}).items())
        sentence += f". Dropped: {frames['dropped']}{reasons and f' ({reasons})'}"
    if frames["failed"]:
        sentence += f". The networks failed on {frames['failed']}"
    if unaccounted(frames):
        sentence += f". The counts disagree by {abs(unaccounted(frames))}: not every frame is accounted for"
    return sentence + "."


def _masks(summary: Mapping[str, Any]) -> list[str]:
    scores = mask_scores(summary)
    if not scores:
        return ["No masks could be scored: there was nothing to compare them with."]
    miou = scores[0]
    if miou.after is None:
        return [] if miou.before is None else [f"The raw masks score {text(miou.before)} % mIoU."]
    score = f"The refined masks score {text(miou.after)} % mIoU"
    if miou.difference is None:
        return [f"{score}."]
    if miou.unsure:
        return [f"{score}, {miou.texts[2]} against the raw ones, which may be chance."]
    words = {"better": f"{_size(miou)} points above", "worse": f"{_size(miou)} points below", "same": "the same as"}
    return [f"{score}, {words[miou.verdict]} the raw ones."]


def _images(summary: Mapping[str, Any]) -> list[str]:
    scores = image_scores(summary)
    if not scores:
        return ["No images could be scored: there were no clean ones to compare them with."]
    psnr = scores[0]
    if psnr.difference is None:
        return []
    if psnr.unsure:
        return [
            f"Restored images are {psnr.texts[2]} closer to the clean ones than the input is, which may be chance "
            f"(PSNR {text(psnr.before, 2)} → {text(psnr.after, 2)} dB)."
        ]
    words = {
        "better": f"{_size(psnr)} dB closer to the clean ones than the input is",
        "worse": f"{_size(psnr)} dB further from the clean ones than the input is",
        "same": "as far from the clean ones as the input is",
    }
    return [f"Restored images are {words[psnr.verdict]} (PSNR {text(psnr.before, 2)} → {text(psnr.after, 2)} dB)."]


def _conditions(summary: Mapping[str, Any]) -> list[str]:
    condition = summary.get("condition")
    if not condition:
        return []
    name, of = next(iter(condition["conditions"].items()), ("", {"frames": 0}))
    clear = of["frames"] < max(1, condition["clear"])
    what, frames = ("nothing adverse", condition["clear"]) if clear else (name.replace("_", " "), of["frames"])
    said = f"The networks' own estimate finds {what} in {frames} of {condition['estimated']} frames"
    strength = None if clear else number(of.get("strength"))
    said += "" if strength is None else f", with a mean strength of {text(strength, 2)} of 1"
    ran = number(condition.get("restoration_ran"))
    return [f"{said}." if ran is None else f"{said}; restoration ran for {text(100 * ran, 0)} % of the frames."]


@dataclass(frozen=True, slots=True)
class ConditionTable:
    """Without rows where nothing was estimated. A row: the condition's name, and a text for each other heading."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def conditions_table(summary: Mapping[str, Any]) -> ConditionTable:
    """What the networks find, and what that is worth where the recording says what was applied."""
    conditions = summary.get("condition", {}).get("conditions", {})
    told = any("applied" in of for of in conditions.values())
    estimated = ("frames with it", "mean presence", "mean strength in these")
    judged = ("applied to", "found of these", "found where not applied") if told else ()

    def share(value: Any) -> str:
        known = number(value)
        return text(None if known is None else 100 * known, 1, "%")

    def cells(of: Mapping[str, Any]) -> Iterator[str]:
        yield f"{of['frames']}"
        yield share(of.get("presence"))
        yield text(number(of.get("strength")), 2)
        if told:
            yield str(of.get("applied", DASH))
            yield share(of.get("recognised"))
            yield share(of.get("false_alarms"))

    return ConditionTable((*estimated, *judged), tuple((name, tuple(cells(of))) for name, of in conditions.items()))


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One score over all frames and over parts of them: (value, interval) each, empty where there is none."""

    name: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """`columns`: all frames, each camera where there are several, each condition."""

    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]


def measures_table(summary: Mapping[str, Any]) -> ScoreTable:
    """All scores with their intervals; without rows where there are none."""
    measures = summary.get("measures", {})
    parts = {"all frames": measures.get("all", {})}
    cameras = measures.get("camera", {})
    parts |= {f"camera {name}": part for name, part in cameras.items()} if len(cameras) > 1 else {}
    parts |= measures.get("condition", {})
    names = dict.fromkeys(
        name
        for part in parts.values()
        for name, score in part.items()
        if isinstance(score, Mapping) and not name.startswith("latency")
    )
    rows = tuple(ScoreRow(name, tuple(_score(part.get(name)) for part in parts.values())) for name in names)
    return ScoreTable(tuple(parts), rows)


def _score(score: Mapping[str, Any] | None) -> tuple[str, str]:
    value, low, high = (None if score is None else number(score[key]) for key in ("value", "low", "high"))
    if value is None:
        return DASH, ""
    digits = 3 if abs(value) < 10 else 1
    interval = "" if low is None or high is None else f"{text(low, digits)} to {text(high, digits)}"
    return text(value, digits), interval


def _size(comparison: Comparison) -> str:
    return f"{abs(comparison.difference or 0.0):.{comparison.digits}f}"


def _pair(summary: Mapping[str, Any], before: str, after: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """Both sides' scores, with nothing in a missing one; None where both are missing."""
    if before not in summary and after not in summary:
        return None
    return summary.get(before, {}), summary.get(after, {})


def _spread(score: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """A score's interval, where it has one that is no single point."""
    low, high = (None if score is None else number(score.get(key)) for key in ("low", "high"))
    return None if low is None or high is None or low == high else (low, high)


def _percent(name: str, before: Any, after: Any, spread: tuple[float, float] | None = None) -> Comparison:
    shares = number(before), number(after)
    raw, refined = (None if share is None else 100 * share for share in shares)
    return Comparison(name, raw, refined, 1, "%", "points", spread and (100 * spread[0], 100 * spread[1]))
