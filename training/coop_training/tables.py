"""Results as Markdown tables, two of them in the form of the paper's Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from coop_perception.images import nearly_black
from coop_training.results import HARM_DB, HARM_POINTS, HarmSummary, ImageScores, MaskScores, Results, Scores

DASH = "–"
CLEAN = "clean"
_NAMES = 5


def report(results: Results) -> str:
    """All that there is to say of one evaluation."""
    sections = [
        f"# {results.bundle}, {results.method}, {results.suite}: {results.images} images",
        "Means over each condition's levels. Masks are scored on the confusion matrix pooled over all images, over the "
        "classes present in the reference; PSNR (dB) and SSIM are means over images.",
        "## Summary",
        *warnings(results),
        summary(results),
        *([harm(results.harm)] if results.harm else []),
        "Won back: the share of the mIoU lost to the condition that refinement regains, "
        "(refined − raw) / (clean raw − raw); behind the stroke against the clean image's refined mask. Harmed: the "
        f"share of images whose restored one is more than {HARM_DB} dB further from the reference than the input, and "
        "by how much the worst was changed.",
        "## Segmentation and restoration (the paper's Table 1)",
        segmentation_and_restoration(results),
        "## Restoration (the paper's Table 2)",
        restoration({"restored": [results]}),
        *(["## Confidence of refined masks", calibration(results)] if results.clean.calibration else []),
        *(["## Condition estimate", estimates(results)] if results.clean.present else []),
        *(["## Levels", levels(results)] if results.conditions else []),
    ]
    return "\n\n".join(sections) + "\n"


def warnings(results: Results) -> list[str]:
    """What the scores do not rest on, or rest on that shows little."""
    lines = [f"{line}." for line in results.odd]
    if results.absent:
        lines.append(f"No label has a pixel of {', '.join(results.absent)}: mIoU is over the other classes.")
    if results.nearly_black:
        lines.append(nearly_black(results.nearly_black, results.images) + ".")
    return lines


def summary(results: Results) -> str:
    """What refinement and restoration gain."""
    rows = [
        [
            name,
            *_miou_gain(scores),
            _won_back(scores),
            *_gain(scores.degraded.psnr, scores.restored.psnr, 2, input_is_perfect=scores.changed is not None),
            _harm(scores),
            _recognised(scores),
            number(scores.familiarity, 2),
        ]
        for name, scores in _rows(results)
    ]
    return markdown(
        [
            *("condition", "mIoU raw, %", "refined", "gain", "won back"),
            *("PSNR degraded", "restored", "gain", "harmed, worst", "recognised", "familiarity"),
        ],
        rows,
    )


def segmentation_and_restoration(results: Results) -> str:
    """Two rows per condition: as it is, and refined and restored (`_Re`)."""

    def row(name: str, mask: MaskScores | None, image: ImageScores | None) -> list[str]:
        masks = [f"{value:.4f}" for value in (mask.pa, mask.mpa, mask.miou, mask.fwiou)] if mask else [DASH] * 4
        return [name, *masks, *(_image_cells([image]) if image else [DASH, DASH])]

    rows = [
        row("original", results.clean.raw, None),
        row("original_Re", results.clean.refined, results.clean.restored),
    ]
    for name, scores in results.conditions.items():
        rows += [row(name, scores.raw, scores.degraded), row(f"{name}_Re", scores.refined, scores.restored)]
    return markdown(["degradation", "PA", "mPA", "mIoU", "FWIoU", "PSNR", "SSIM"], rows)


def restoration(by_method: Mapping[str, Sequence[Results]]) -> str:
    """One row per condition, PSNR and SSIM of the degraded images and of each method's restored ones.

    Args:
        by_method: results by the method's name, of one run or of several that differ in their seeds.
    """
    first = next(iter(by_method.values()))[0]
    header = ["degradation", *(f"{name} {score}" for name in ("degraded", *by_method) for score in ("PSNR", "SSIM"))]
    rows = []
    for name, scores in first.conditions.items():
        cells = _image_cells([scores.degraded])
        for runs in by_method.values():
            cells += _image_cells([run.conditions[name].restored for run in runs])
        rows.append([name, *cells])
    return markdown(header, rows)


def harm(found: HarmSummary) -> str:
    """How many variants became worse, and which."""
    rows = [
        [
            f"worse by more than {HARM_DB} dB in the mean",
            f"{found.worse} of {found.variants}",
            _listed(found.worse_variants),
        ],
        ["worst frame", f"{found.worst:+.1f} dB", f"{found.worst_variant}, {found.worst_image}"],
    ]
    if found.masks_below is not None:
        masks = f"refined masks below raw by more than {HARM_POINTS} points"
        rows.append([masks, str(found.masks_below), _listed(found.masks_below_variants)])
    return markdown(["harm over all variants", "", ""], rows)


def _listed(names: Sequence[str]) -> str:
    """The first of them; all are in results.json."""
    more = [f"and {len(names) - _NAMES} more"] if len(names) > _NAMES else []
    return "; ".join([*names[:_NAMES], *more]) or DASH


def estimates(results: Results) -> str:
    """How often each of the bundle's conditions counts as present under which, how far off its strength was, and the
    mean familiarity."""
    names = list(results.clean.present or ())
    rows = [
        [
            name,
            *(percent((scores.present or {})[other]) for other in names),
            number(scores.strength_error, 3),
            number(scores.familiarity, 2),
        ]
        for name, scores in ((CLEAN, results.clean), *results.conditions.items())
    ]
    return (
        markdown(["condition \\ present", *names, "strength error", "familiarity"], rows)
        + f"\n\nFalse alarms, clean images in which any is: {percent(results.clean.false_alarms)}."
    )


def levels(results: Results) -> str:
    """One row per condition and level."""
    rows = [
        [
            name,
            scores.name or "",
            *_miou_gain(scores),
            percent(scores.won_back),
            *_gain(scores.degraded.psnr, scores.restored.psnr, 2, input_is_perfect=scores.changed is not None),
            f"{scores.degraded.ssim:.4f}",
            f"{scores.restored.ssim:.4f}",
            _harm(scores),
            _ece(scores),
            _recognised(scores),
            number(scores.familiarity, 2),
        ]
        for name, condition in results.conditions.items()
        for scores in condition.levels
    ]
    header = ["condition", "level", "mIoU raw, %", "refined", "gain", "won back", "PSNR degraded", "restored", "gain"]
    return markdown([*header, "SSIM degraded", "restored", "harmed, worst", "ECE", "recognised", "familiarity"], rows)


def calibration(results: Results) -> str:
    """One row per condition: the expected calibration error of the refined mask's confidence, and its risk at each
    coverage."""
    rows = [
        [name, _ece(scores), *(percent(risk) for _, risk in scores.calibration.risk_coverage)]
        for name, scores in _rows(results)
        if scores.calibration
    ]
    assert results.clean.calibration is not None
    coverages = [f"{coverage:.0%}" for coverage, _ in results.clean.calibration.risk_coverage]
    return markdown(["condition", "ECE", *(f"wrong of {coverage}" for coverage in coverages)], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that reads well as plain text too; all columns but the first are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    ruler = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "| " + " | ".join([cells[0].ljust(widths[0]), *padded[1:]]) + " |"

    return "\n".join(map(line, (header, ruler, *rows)))


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """The mean, and the standard deviation (of a sample) where there are several."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.1f} %"


def _rows(results: Results) -> list[tuple[str, Scores]]:
    means = [("mean of conditions", results.mean), ("– without exact inverses", results.mean_without_exact)]
    shown = [(name, mean) for name, mean in means if mean] if len(results.conditions) > 1 else []
    return [(CLEAN, results.clean), *results.conditions.items(), *shown]


def _miou_gain(scores: Scores) -> list[str]:
    if scores.raw is None or scores.refined is None:
        return [DASH] * 3
    return _gain(100 * scores.raw.miou, 100 * scores.refined.miou, 1)


def _won_back(scores: Scores) -> str:
    if scores.won_back is None:
        return DASH
    return f"{percent(scores.won_back)} / {percent(scores.won_back_of_refined)}"


def _harm(scores: Scores) -> str:
    if scores.changed is not None:
        return f"{scores.changed:.0%} changed"
    return DASH if scores.harm is None else f"{scores.harm.share:.0%}, {scores.harm.worst:+.1f} dB"


def _recognised(scores: Scores) -> str:
    if scores.false_alarms is not None:
        return f"{scores.false_alarms:.0%} false"
    return percent(scores.recognised)


def _ece(scores: Scores) -> str:
    return DASH if scores.calibration is None else f"{scores.calibration.ece:.3f}"


def _gain(before: float, after: float, digits: int, input_is_perfect: bool = False) -> list[str]:
    if input_is_perfect:
        return [DASH, number(after, digits), DASH]
    return [number(before, digits), number(after, digits), f"{after - before:+.{digits}f}"]


def _image_cells(scores: Sequence[ImageScores]) -> list[str]:
    return [mean_and_spread([one.psnr for one in scores], 2), mean_and_spread([one.ssim for one in scores], 4)]
