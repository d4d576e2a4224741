"""Measures a bundle on all that docs/results.md reports of, and writes the figures into it and into the README."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from coop_training.results import ConditionScores, HarmSummary, MaskScores, Results, Scores, read_results
from coop_training.tables import DASH, number, percent

from coop_perception.documents import read_yaml
from coop_perception.model.bundle import MANIFEST

ROOT = Path(__file__).parents[1]
DRIVE = ("--images", "0006R0/images", "--labels", "0006R0/labels", "--limit", "12")
IDD_LABELS = ("--labels", "idd_lite/labels/val", "--label-sets", str(ROOT / "training/configs/labels/idd_lite.yaml"))
EVALUATIONS: dict[str, Sequence[str]] = {
    "realistic": (*DRIVE, "--suite", "realistic"),
    "mixed": (*DRIVE, "--suite", "mixed"),
    "published": DRIVE,
    "bdd": ("--images", "bdd100k/images", "--labels", "bdd100k/labels", "--suite", "mixed"),
    "kitti": ("--images", "kitti/images", "--conditions", "fog,gaussian_noise"),
    "idd": ("--images", "idd_lite/images/val", *IDD_LABELS, "--limit", "51", "--conditions", "fog,gaussian_noise"),
    "polyu": ("--images", "polyu_noise/noisy", "--references", "polyu_noise/clean"),
}
"""By name, the arguments of coop-evaluate; paths lie in the folder of data."""
HEADER = [
    "",
    "mIoU raw, %",
    "refined",
    "PSNR of the input",
    "gain, dB",
    "harmed",
    "worst, dB",
    "recognised",
    "familiarity",
]
AIMS = {
    "noise": ("gaussian_noise", 9.0),
    "blur": ("gaussian_blur", 2.0),
    "JPEG": ("jpeg", 1.0),
    "fog": ("fog", 8.0),
    "rain": ("rain", 6.0),
    "reflection": ("reflection", 4.0),
    "chromatic aberration": ("chromatic_aberration", 12.0),
    "impulses": ("impulse_noise", 15.0),
}
"""The published conditions, and the gains in dB that were aimed at."""
Found = dict[str, Results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder that holds 0006R0 (of CamVid), bdd100k, kitti, idd_lite and polyu_noise",
    )
    parser.add_argument("--bundle", type=Path, default=ROOT / "models/street", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "out/results", help="default: %(default)s")
    parser.add_argument("--only-measure", action="store_true", help="leave the documents as they are")
    options = parser.parse_args()
    measured, manifest = options.out / MANIFEST, options.bundle / MANIFEST
    same = measured.exists() and read_yaml(measured)["networks"] == read_yaml(manifest)["networks"]
    if not same and any(options.out.glob("*/results.json")):
        parser.error(f"{options.out} holds figures of another bundle, or of one unknown; remove it, or name another")
    options.out.mkdir(parents=True, exist_ok=True)
    measured.write_bytes(manifest.read_bytes())
    found = {}
    for name, arguments in EVALUATIONS.items():
        out = options.out / name
        if not (out / "results.json").exists():
            command = ["coop-evaluate", "--bundle", options.bundle.resolve(), *arguments, "--out", out.resolve()]
            print(*command)
            run = ["-m", "coop_training.evaluate", *map(str, command[1:])]
            subprocess.run([sys.executable, *run], cwd=options.data, check=True)
        found[name] = read_results(out / "results.json")
    for document in () if options.only_measure else (ROOT / "README.md", ROOT / "docs/results.md"):
        document.write_text(with_figures(document.read_text(), found))


def with_figures(text: str, found: Found) -> str:
    """A document whose parts from `<!-- figures: NAME -->` to `<!-- end -->` are made anew, each by BLOCKS[NAME]."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{BLOCKS[match[2]](found)}\n\n<!-- end -->"

    return re.sub(r"(<!-- figures: (\w+) -->).*?<!-- end -->", block, text, flags=re.DOTALL)


def clear_frames(found: Found) -> str:
    rows = []
    for title, name in (
        ("BDD100K, 1280x720", "bdd"),
        ("KITTI, 1224x370", "kitti"),
        ("IDD Lite, seven classes", "idd"),
        ("0006R0 (12 frames)", "mixed"),
    ):
        clean = found[name].clean
        rows.append([title, *_masks(clean), percent(clean.changed), percent(clean.false_alarms)])
    header = [
        "clear frames",
        "mIoU raw, %",
        "refined",
        "come back changed below 40 dB",
        "a condition is called present",
    ]
    return _table(header, rows, "--:")


def unseen(found: Found) -> str:
    bdd, kitti, idd, polyu = (found[name] for name in ("bdd", "kitti", "idd", "polyu"))
    fog, noise = (idd.conditions[name] for name in ("fog", "gaussian_noise"))
    pairs = next(iter(polyu.conditions.values()))
    assert pairs.harm is not None
    rows = [
        ["BDD100K, mixtures of two to four conditions (24 frames)", f"{_mean(bdd)}; {_harm(bdd)}"],
        ["KITTI, fog; noise (10 frames)", f"{_gains(kitti, 'fog', 'gaussian_noise')} dB; {_harm(kitti)}"],
        [
            "IDD Lite, fog; noise",
            f"masks {_arrow(fog)}; {_arrow(noise)} %; {_gains(idd, 'fog', 'gaussian_noise')} dB; {_harm(idd)}",
        ],
        [
            "PolyU, real noise of indoor scenes (100 pairs)",
            f"**{_gain(pairs):+.2f} dB**; {percent(pairs.harm.share)} of the images worse by more than 0.3 dB, "
            f"the worst by {pairs.harm.worst:.1f} dB",
        ],
    ]
    return _table(["", ""], rows)


def suites(found: Found) -> str:
    pair = [found["realistic"], found["mixed"]]
    exact = found["realistic"].mean_without_exact
    assert exact is not None
    rows = [
        ["harm", *(_harm(one, names=True) for one in pair)],
        ["mean gain", *(f"{_gain(_of(one)):+.2f} dB" for one in pair)],
        ["– without aberrations and impulses", f"{_gain(exact):+.2f} dB", DASH],
        ["masks, raw → refined", *(f"{_arrow(_of(one))} %" for one in pair)],
        ["calibration error, mean over families; worst variant", *(_calibration(one) for one in pair)],
    ]
    return _table(["", "`realistic`", "`mixed`"], rows)


def table(name: str) -> Callable[[Found], str]:
    def rows(found: Found) -> str:
        results = found[name]
        return _table(
            HEADER, [_row("clear", results.clean), *(_row(*one) for one in results.conditions.items())], "--:"
        )

    return rows


def published_mean(found: Found) -> str:
    results = found["published"]
    exact = results.mean_without_exact
    assert exact is not None
    return (
        f"The mean: {_mean(results)}; {_harm(results)}. Without chromatic aberration and impulses, which can be undone "
        f"exactly: {_gain(exact):+.2f} dB."
    )


def aims(found: Found) -> str:
    realistic, mixed, published = (found[name] for name in ("realistic", "mixed", "published"))
    of_suites = [_harm_of(realistic), _harm_of(mixed)]
    mean = _of(published)
    raw, refined, clear_raw, clear_refined = (
        _miou(mask) for one in (mean, published.clean) for mask in (one.raw, one.refined)
    )
    frames = [(found[name].images, found[name].clean.changed or 0.0) for name in ("bdd", "kitti")]
    kept = 1 - sum(count * share for count, share in frames) / sum(count for count, _ in frames)
    errors = [error for one in (realistic, mixed) for error in _errors(one).values()]
    parts = [list(AIMS)[:5], list(AIMS)[5:]]
    rows = [
        [
            "variants of `realistic` and `mixed` worse by more than 0.3 dB in the mean",
            "0",
            f"{sum(one.worse for one in of_suites)} of {sum(one.variants for one in of_suites)}",
        ],
        ["the worst image there", "-1.0 dB", f"{min(one.worst for one in of_suites):+.1f} dB"],
        ["masks there below raw by more than 0.5 points", "0", str(sum(one.masks_below or 0 for one in of_suites))],
        ["mean gain, `realistic`; `mixed`", "+5; +5 dB", f"{_gain(_of(realistic)):+.1f}; {_gain(_of(mixed)):+.1f} dB"],
        *(
            [
                f"published: {', '.join(part)}",
                ", ".join(f"{AIMS[name][1]:+g}" for name in part) + " dB",
                ", ".join(f"{_gain(published.conditions[AIMS[name][0]]):+.1f}" for name in part) + " dB",
            ]
            for part in parts
        ),
        [
            "aberrations, radial; displaced by parts of a pixel and more",
            "+6; +6 dB",
            f"{_gains(realistic, 'aberration_radial', 'aberration_shift')} dB",
        ],
        ["segmenter on clear frames of the unseen drive", "66.9 %", f"{100 * clear_raw:.1f} %"],
        [
            "won back of the mean mIoU that the published conditions cost, unseen drive",
            "75 %",
            f"{(refined - raw) / (clear_raw - raw):.0%}",
        ],
        ["refinement of clear frames of the unseen drive", "≥ 0 points", f"{100 * (clear_refined - clear_raw):+.1f}"],
        ["clear frames of unseen cameras (34) that are not changed below 40 dB", "95 %", f"{kept:.0%}"],
        [
            "calibration error, mean over families; worst variant",
            "0.02; 0.08",
            f"{sum(errors) / len(errors):.3f}; {max(map(_worst_error, (realistic, mixed))):.3f}",
        ],
    ]
    return _table(["", "aim", "now"], rows)


def readme(found: Found) -> str:
    bdd, kitti, idd, polyu = (found[name] for name in ("bdd", "kitti", "idd", "polyu"))
    pairs = next(iter(polyu.conditions.values()))
    levels = _harm_of(kitti)
    assert pairs.harm is not None

    def changed(results: Results) -> str:
        return f"{percent(results.clean.changed)} of the frames changed below 40 dB"

    def suite(results: Results) -> list[str]:
        found = _harm_of(results)
        return [
            _arrow(_of(results)),
            f"{_gain(_of(results)):+.2f} dB; {found.worse} of {found.variants} made worse in the mean, "
            f"the worst image {found.worst:+.1f} dB",
        ]

    rows = [
        ["BDD100K, clear", _arrow(bdd.clean), changed(bdd)],
        ["KITTI, clear", "", changed(kitti)],
        ["BDD100K, mixtures of conditions", *suite(bdd)],
        [
            "KITTI, fog; noise",
            "",
            f"{_gains(kitti, 'fog', 'gaussian_noise')} dB; {levels.worse} of {levels.variants} levels made "
            "worse in the mean",
        ],
        [
            "PolyU, real noise, indoors",
            "",
            f"**{_gain(pairs):+.2f} dB**; {percent(pairs.harm.share)} of the images made worse",
        ],
        [
            "IDD Lite, clear: other frames of roads and cameras like those trained on",
            _arrow(idd.clean),
            changed(idd),
        ],
        ["CamVid's drive 0006R0, a street left out of training, 77 realistic variants", *suite(found["realistic"])],
        ["the same, 14 mixtures", *suite(found["mixed"])],
        ["the same, eight published conditions", *suite(found["published"])],
    ]
    return _table(["", "masks, %", "image"], rows)


BLOCKS: dict[str, Callable[[Found], str]] = {
    "clear": clear_frames,
    "unseen": unseen,
    "suites": suites,
    "realistic": table("realistic"),
    "mixed": table("mixed"),
    "published": table("published"),
    "published_mean": published_mean,
    "aims": aims,
    "readme": readme,
}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], ruler: str = ":--") -> str:
    rulers = [":--", *(ruler for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, rulers, *rows))


def _row(name: str, scores: Scores) -> list[str]:
    clear = scores.changed is not None
    return [
        name,
        *_masks(scores),
        DASH if clear else f"{scores.degraded.psnr:.2f}",
        DASH if clear else f"{_gain(scores):+.2f}",
        f"{percent(scores.changed)} changed" if clear else percent(scores.harm.share if scores.harm else None),
        DASH if clear or scores.harm is None else f"{scores.harm.worst:+.1f}",
        f"{percent(scores.false_alarms)} false" if clear else percent(scores.recognised),
        number(scores.familiarity, 2),
    ]


def _of(results: Results) -> Scores:
    assert results.mean is not None
    return results.mean


def _masks(scores: Scores) -> list[str]:
    return [DASH if mask is None else f"{100 * mask.miou:.1f}" for mask in (scores.raw, scores.refined)]


def _arrow(scores: Scores) -> str:
    return " → ".join(_masks(scores))


def _gain(scores: Scores) -> float:
    return scores.restored.psnr - scores.degraded.psnr


def _gains(results: Results, *conditions: str) -> str:
    return "; ".join(f"{_gain(results.conditions[name]):+.2f}" for name in conditions)


def _mean(results: Results) -> str:
    return f"masks {_arrow(_of(results))} %, {_gain(_of(results)):+.2f} dB"


def _harm(results: Results, names: bool = False) -> str:
    found = _harm_of(results)
    which = f" ({'; '.join(found.worse_variants)})" if found.worse_variants and (names or found.worse <= 3) else ""
    masks = "" if found.masks_below is None else f"; masks {found.masks_below} times below raw by more than 0.5 points"
    return (
        f"{found.worse} of {found.variants} worse by more than 0.3 dB in the mean{which}, the worst image "
        f"{found.worst:+.1f} dB{masks}"
    )


def _harm_of(results: Results) -> HarmSummary:
    assert results.harm is not None
    return results.harm


def _miou(mask: MaskScores | None) -> float:
    assert mask is not None
    return mask.miou


def _worst_error(results: Results) -> float:
    levels = [level for condition in results.conditions.values() for level in condition.levels]
    return max(one.calibration.ece for one in (results.clean, *levels) if one.calibration is not None)


def _errors(results: Results) -> dict[str, float]:
    named: dict[str, ConditionScores | Scores] = {"clear": results.clean, **results.conditions}
    return {name: one.calibration.ece for name, one in named.items() if one.calibration is not None}


def _calibration(results: Results) -> str:
    errors = _errors(results)
    return f"{sum(errors.values()) / len(errors):.3f}; {_worst_error(results):.3f}"


if __name__ == "__main__":
    main()
