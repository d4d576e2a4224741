"""Compares methods by their results.json: Markdown tables with means over conditions and over seeds.

NAME=PATH once per run; runs of one name differ in their seeds, and are shown as mean ± standard deviation. The first
name is what the others are compared with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from coop_perception.arguments import command_parser
from coop_training.results import Results, ResultsError, Scores, read_results
from coop_training.tables import DASH, markdown, mean_and_spread, restoration

_SAME_PSNR = 0.05
"""dB: degraded images whose mean PSNR differs by more are not the same images."""


def main() -> int:
    parser = command_parser(
        "coop-peers-table", __doc__, "coop-peers-table ours=out/eval/results.json classical=out/classical/results.json"
    )
    parser.add_argument("runs", nargs="+", type=_run, metavar="NAME=PATH", help="a method and its results.json")
    try:
        read = [(name, path, read_results(path)) for name, path in parser.parse_args().runs]
        check_comparable([(path, results) for _, path, results in read])
    except ResultsError as error:
        print(f"coop-peers-table: {error}", file=sys.stderr)
        return 1
    runs: dict[str, list[Results]] = {}
    for name, _, results in read:
        runs.setdefault(name, []).append(results)
    print(compare(runs), end="")
    return 0


def check_comparable(runs: Sequence[tuple[Path, Results]]) -> None:
    """Refuse to compare what was not scored on the same degraded images.

    Raises:
        ResultsError: naming the two files and what differs.
    """
    (path, first), *others = runs
    if not first.conditions:
        raise ResultsError(f"{path}: holds no condition; evaluate with --conditions")
    for other_path, other in others:
        if other.conditions.keys() != first.conditions.keys():
            raise ResultsError(
                f"{other_path}: has the conditions {', '.join(other.conditions) or 'none'}, {path} "
                f"{', '.join(first.conditions)}; evaluate both with the same --conditions"
            )
        if other.images != first.images:
            raise ResultsError(
                f"{other_path}: is of {other.images} images, {path} of {first.images}; expected the same"
            )
        for name, scores in first.conditions.items():
            here, there = other.conditions[name].degraded.psnr, scores.degraded.psnr
            if abs(here - there) > _SAME_PSNR:
                raise ResultsError(
                    f"{other_path}: its images under {name} have {here:.2f} dB, those of {path} {there:.2f} dB; "
                    "evaluate both on the same images"
                )


def compare(runs: Mapping[str, Sequence[Results]]) -> str:
    """Tables of comparable results by the method's name.

    Returns:
        Markdown: a summary, mIoU by condition, PSNR and SSIM by condition.
    """
    first = next(iter(runs))
    sections = [
        "## Summary",
        _summary(runs),
        f"{runs[first][0].images} images, means over {len(runs[first][0].conditions)} conditions. Raw is the mask of "
        f"the segmenter of {first}, degraded the images as they came. Δ: ahead of {first}.",
        "## Segmentation, mIoU in %",
        _segmentation(runs),
        "## Restoration, PSNR in dB and SSIM",
        restoration(runs),
    ]
    return "\n\n".join(sections) + "\n"


def _summary(runs: Mapping[str, Sequence[Results]]) -> str:
    name, first = next(iter(runs.items()))
    miou, psnr = _miou(first), _psnr(first)
    rows = [
        [
            "raw, degraded",
            DASH,
            mean_and_spread([100 * run.clean.raw.miou for run in first], 1),
            mean_and_spread([100 * _mean(run).raw.miou for run in first], 1),
            *[DASH] * 3,
            mean_and_spread([_mean(run).degraded.psnr for run in first], 2),
            DASH,
            mean_and_spread([_mean(run).degraded.ssim for run in first], 4),
        ]
    ]
    for other, of_other in runs.items():
        won_back = [100 * share for share in (_won_back(run, first) for run in of_other) if share is not None]
        rows.append(
            [
                other,
                str(len(of_other)),
                mean_and_spread([100 * run.clean.refined.miou for run in of_other], 1),
                mean_and_spread(_miou(of_other), 1),
                DASH if other == name else f"{fmean(_miou(of_other)) - fmean(miou):+.1f}",
                mean_and_spread(won_back, 1) if won_back else DASH,
                mean_and_spread([run.clean.restored.psnr for run in of_other], 2),
                mean_and_spread(_psnr(of_other), 2),
                DASH if other == name else f"{fmean(_psnr(of_other)) - fmean(psnr):+.2f}",
                mean_and_spread([_mean(run).restored.ssim for run in of_other], 4),
            ]
        )
    header = ["method", "runs", "clean mIoU, %", "mIoU, %", "Δ", "won back, %", "clean PSNR", "PSNR", "Δ", "SSIM"]
    return markdown(header, rows)


def _segmentation(runs: Mapping[str, Sequence[Results]]) -> str:
    first = next(iter(runs.values()))
    rows = []
    for name in ("clean", *first[0].conditions):
        raw = [100 * _scores(run, name).raw.miou for run in first]
        refined = [[100 * _scores(run, name).refined.miou for run in of_name] for of_name in runs.values()]
        rows.append([name, *(mean_and_spread(values, 1) for values in (raw, *refined))])
    return markdown(["condition", "raw", *runs], rows)


def _scores(run: Results, name: str) -> Scores:
    return run.clean if name == "clean" else run.conditions[name]


def _mean(run: Results) -> Scores:
    assert run.mean is not None  # check_comparable has seen to it
    return run.mean


def _won_back(run: Results, first: Sequence[Results]) -> float | None:
    """Mean over conditions of what was won back of what each cost the first method's segmenter: a method may have
    another segmenter, whose own raw masks are then what is to be judged."""
    clean = fmean(one.clean.raw.miou for one in first)
    shares = []
    for name, scores in run.conditions.items():
        raw = fmean(one.conditions[name].raw.miou for one in first)
        if clean > raw:
            shares.append((scores.refined.miou - raw) / (clean - raw))
    return fmean(shares) if shares else None


def _miou(runs: Sequence[Results]) -> list[float]:
    return [100 * _mean(run).refined.miou for run in runs]


def _psnr(runs: Sequence[Results]) -> list[float]:
    return [_mean(run).restored.psnr for run in runs]


def _run(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not (name and separator and path):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=PATH of a results.json")
    return name, Path(path)


if __name__ == "__main__":
    sys.exit(main())
