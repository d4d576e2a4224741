"""coop-evaluate: a bundle's scores on labelled images, clear and under every condition and level."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from coop_perception.bundle import BundleError, load_bundle
from coop_perception.camera import Intrinsics
from coop_perception.degradations import CONDITIONS, degrade
from coop_perception.engines import EngineError
from coop_perception.labelled_images import DatasetError, find_pairs, label_ids, read_pair
from coop_perception.metrics import confusion_matrix, mean_psnr, psnr, segmentation_scores, ssim
from coop_perception.pipeline import Pipeline
from coop_training.layouts.depth import depth_from_street_labels, street_ids

WANTED = ("mask_raw", "mask", "restored", "condition")
Pixels = NDArray[np.uint8]


@dataclass(slots=True)
class Tally:
    """Scores of one condition at one level, accumulated over images."""

    raw: NDArray[np.int64]
    refined: NDArray[np.int64]
    degraded: list[tuple[float, float]] = field(default_factory=list)
    restored: list[tuple[float, float]] = field(default_factory=list)
    recognised: list[bool] = field(default_factory=list)

    def scores(self) -> dict[str, Any]:
        return {
            "raw": _segmentation(self.raw),
            "refined": _segmentation(self.refined),
            "degraded": _image(self.degraded),
            "restored": _image(self.restored),
            **({"recognised": float(np.mean(self.recognised))} if self.recognised else {}),
        }


def main() -> int:
    parser = argparse.ArgumentParser(prog="coop-evaluate", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="model bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder of clear images")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        help="folder of their labels: the bundle's class ids, 255 = not scored; paired by file stem",
    )
    parser.add_argument("--conditions", default="all", help="comma-separated names, or all (default)")
    parser.add_argument("--out", type=Path, required=True, help="folder of results")
    arguments = parser.parse_args()
    names = list(CONDITIONS) if arguments.conditions == "all" else arguments.conditions.split(",")
    unknown = [name for name in names if name not in CONDITIONS]
    if unknown:
        parser.error(f"unknown condition {unknown[0]!r}; known: {', '.join(CONDITIONS)}")
    path = arguments.out / "results.json"
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        results = evaluate(arguments.bundle, arguments.images, arguments.labels, names)
    except (BundleError, EngineError, DatasetError, OSError) as error:
        print(f"coop-evaluate: {error}", file=sys.stderr)
        return 1
    path.write_text(json.dumps(results, indent=2) + "\n")
    Console().print(table(results))
    print(path)
    return 0


def evaluate(bundle: Path, images: Path, labels: Path, conditions: Sequence[str]) -> dict[str, Any]:
    """Scores as `results.json` holds them.

    Raises:
        BundleError, EngineError, DatasetError: as their modules say.
    """
    pipeline = Pipeline(load_bundle(bundle))
    classes = len(pipeline.bundle.classes)
    needs_depth = [name for name in conditions if CONDITIONS[name].needs_depth]
    if needs_depth and street_ids(pipeline.bundle.classes) is None:
        raise DatasetError(
            f"{bundle}: {', '.join(needs_depth)} need depth, which is told from labels of streets, and these "
            "classes are of something else; name the other --conditions"
        )
    ids = label_ids(pipeline.bundle.classes)
    pairs = find_pairs(images, labels)
    empty = np.zeros((classes, classes + 1), np.int64)
    cases: list[tuple[str, int]] = [("clear", 0)]
    cases += [(name, level) for name in conditions for level in range(1, len(CONDITIONS[name].levels) + 1)]
    tallies = {case: Tally(empty.copy(), empty.copy()) for case in cases}
    for index, pair in enumerate(track(pairs, f"evaluating {pipeline.bundle.name}")):
        image, mask = read_pair(pair, ids)
        intrinsics = Intrinsics.from_fov(image.shape[1], image.shape[0])
        depth = depth_from_street_labels(mask, image, intrinsics, pipeline.bundle.classes)
        for (name, level), tally in tallies.items():
            degraded = image
            if level:
                degraded = degrade(image, name, level, seed=index, depth=depth, intrinsics=intrinsics)
            (result,) = pipeline.run([degraded], WANTED)
            assert result.mask_raw is not None
            assert result.mask is not None
            assert result.restored is not None
            assert result.condition is not None
            tally.raw += confusion_matrix(mask, result.mask_raw, classes)
            tally.refined += confusion_matrix(mask, result.mask, classes)
            tally.degraded.append((psnr(image, degraded), ssim(image, degraded)))
            tally.restored.append((psnr(image, result.restored), ssim(image, result.restored)))
            if name in pipeline.bundle.conditions:
                tally.recognised.append(pipeline.bundle.conditions[int(result.condition.argmax())] == name)
    by_level = {name: [tallies[case].scores() for case in cases if case[0] == name] for name in ("clear", *conditions)}
    return {
        "bundle": pipeline.bundle.name,
        "images": len(pairs),
        "clean": by_level["clear"][0],
        "conditions": {name: {**_mean(by_level[name]), "levels": by_level[name]} for name in conditions},
    }


def table(results: Mapping[str, Any]) -> Table:
    """One row per condition, averaged over levels, and one for clear images."""
    shown = Table(title=f"{results['bundle']}: {results['images']} images")
    for column in ("condition", "mIoU raw", "refined", "gain", "PSNR degraded", "restored", "gain", "recognised"):
        shown.add_column(column, justify="left" if column == "condition" else "right")
    for name, scores in (("clear", results["clean"]), *results["conditions"].items()):
        raw, refined = scores["raw"]["miou"], scores["refined"]["miou"]
        degraded, restored = scores["degraded"]["psnr"], scores["restored"]["psnr"]
        shown.add_row(
            name,
            f"{raw:.1%}",
            f"{refined:.1%}",
            f"{100 * (refined - raw):+.1f}",
            f"{degraded:.2f}",
            f"{restored:.2f}",
            f"{restored - degraded:+.2f}" if name != "clear" else "",
            f"{scores['recognised']:.1%}" if "recognised" in scores else "not trained on",
        )
    return shown


def _segmentation(matrix: NDArray[np.int64]) -> dict[str, float]:
    scores = segmentation_scores(matrix)
    return {"pa": scores.pa, "mpa": scores.mpa, "miou": scores.miou, "fwiou": scores.fwiou}


def _image(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    return {"psnr": mean_psnr([p for p, _ in values]), "ssim": float(np.mean([s for _, s in values]))}


def _mean(levels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The same shape, every number the mean over levels."""
    return {
        key: float(np.mean([level[key] for level in levels]))
        if isinstance(value, float)
        else {inner: float(np.mean([level[key][inner] for level in levels])) for inner in value}
        for key, value in levels[0].items()
    }


if __name__ == "__main__":
    sys.exit(main())
