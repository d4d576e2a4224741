"""Fine labels where a data set's own are coarse: teachers choose among the classes that a label may be.

Teachers are the segmenters of bundles of the same classes, such as a network that was trained on a data set that one
does not have (coop-export --segmenter, docs/own_segmenter.md). Where they are of one mind, a pixel gets the class that
they choose within its label's set; where they are not, it keeps the set. Without labels they choose among all classes,
and where they are not of one mind, there is no label. What is written is a data set for `data.also`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from coop_perception.arguments import command_parser
from coop_perception.classes import IGNORE_ID
from coop_perception.contracts import Bundle, network_size
from coop_perception.engines import Engine, EngineError
from coop_perception.engines.loading import EngineSettings, load_engines
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.recordings.labelled_folders import LabelValue, find_pairs, read_pair
from coop_perception.replacing import open_results, write_whole
from coop_perception.views import scene_view
from coop_training.label_sets import read_sets

SETS = "labels.yaml"
"""What the values of the labels written stand for, as `data.also` takes it."""
_LEAST = 0.01
"""Added to probabilities: no teacher alone rules a class out."""
_LIKELY = 0.05
"""Share that teachers give to a label's whole set below which they do not know what they see."""


def main() -> int:
    parser = command_parser(
        "python -m coop_training.fine_labels",
        __doc__,
        "python -m coop_training.fine_labels --bundle models/street --bundle models/teacher --root out/data/idd_lite "
        "--sets training/configs/labels/idd_lite_teachers.yaml --out out/data/idd_fine",
    )
    teaching = parser.add_argument_group("the teachers")
    labelled = parser.add_argument_group("the images")
    made = parser.add_argument_group("what is written")
    teaching.add_argument(
        "--bundle", metavar="DIR", type=Path, action="append", required=True, help="its segmenter; may be repeated"
    )
    teaching.add_argument(
        "--certain",
        metavar="SHARE",
        type=float,
        default=0.65,
        help="a class is chosen where it has at least this share of its set's probability (default: %(default)s)",
    )
    labelled.add_argument(
        "--root", metavar="DIR", type=Path, required=True, help="folder of images/SPLIT and perhaps labels/SPLIT"
    )
    labelled.add_argument("--split", default="train", help="default: %(default)s")
    labelled.add_argument(
        "--sets", metavar="FILE", type=Path, help="YAML of label values with names of classes, where there are labels"
    )
    made.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder of the data set to write")
    made.add_argument("--force", action="store_true", help="replace one that was written there")
    arguments = parser.parse_args()
    if not 0 <= arguments.certain <= 1:
        parser.error(f"--certain {arguments.certain:g}: expected a share, 0 to 1")
    console = Console(stderr=True, markup=False)
    try:
        open_results(arguments.out, [SETS], arguments.force)
        bundles = [load_bundle(path) for path in arguments.bundle]
        classes = bundles[0].classes
        check_same_classes(bundles)
        teachers = [
            (bundle, load_engines(bundle, ["segmenter"], EngineSettings(precision="fp32"))["segmenter"])
            for bundle in bundles
        ]
        sets = read_sets(arguments.sets, classes) if arguments.sets else {}
        images = arguments.root / "images" / arguments.split
        pairs = find_pairs(images, arguments.root / "labels" / arguments.split if sets else None)
        ids: dict[LabelValue, int] = {value: index for index, value in enumerate(sets)}
        ids[IGNORE_ID] = IGNORE_ID
        among = [np.array(members, np.int64) for members in sets.values()] or None
        written = arguments.out / "labels" / arguments.split
        written.mkdir(parents=True, exist_ok=True)
        for pair in track(pairs, "choosing", console=console):
            image, label = read_pair(pair, ids)
            chosen = choose(probabilities(teachers, image), label, among, arguments.certain)
            write_whole(written / f"{pair.name}.png", cv2.imencode(".png", chosen)[1].tobytes())
        link(arguments.out / "images" / arguments.split, images.resolve())
        stands_for = [[c.name] for c in classes] + [[classes[i].name for i in members] for members in sets.values()]
        text = yaml.safe_dump(dict(enumerate(stands_for)), default_flow_style=None)
        write_whole(arguments.out / SETS, text.encode())
    except (BundleError, DatasetError, EngineError, OSError) as error:
        print(f"fine_labels: {error}", file=sys.stderr)
        return 1
    console.print(f"{len(pairs)} labels in {written}; what they stand for, for data.also: {arguments.out / SETS}")
    return 0


def check_same_classes(bundles: Sequence[Bundle]) -> None:
    """Raises BundleError where a bundle has other classes than the first."""
    first, *others = ([c.name for c in bundle.classes] for bundle in bundles)
    for bundle, names in zip(bundles[1:], others, strict=True):
        if names != first:
            raise BundleError(
                f"{bundle.directory}: has the classes {', '.join(names)}, {bundles[0].directory} {', '.join(first)}; "
                "teachers need the same, in the same order"
            )


def probabilities(teachers: Sequence[tuple[Bundle, Engine]], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What teachers together take an image for: the geometric mean, of the mirrored image too. [C,h,w]"""
    height, width = image.shape[:2]
    logarithm = np.zeros((len(teachers[0][0].classes), height, width), np.float32)
    for bundle, engine in teachers:
        view = scene_view(image, network_size(bundle.input, height, width))
        found = engine.run({"image": np.stack([view, view[:, ::-1]])}, ["probabilities"])["probabilities"]
        mean = (found[0] + found[1][..., ::-1]) / 2
        logarithm += np.log(_LEAST + np.stack([cv2.resize(plane, (width, height)) for plane in mean]))
    together = np.exp(logarithm / len(teachers))
    return np.asarray(together / together.sum(0), np.float32)


def choose(
    probabilities: NDArray[np.float32],
    label: NDArray[np.uint8],
    sets: Sequence[NDArray[np.int64]] | None,
    certain: float,
) -> NDArray[np.uint8]:
    """Labels with the classes that teachers choose.

    Args:
        probabilities: [C,h,w].
        label: uint8 [h,w], indices of `sets`, or 255.
        sets: of classes, an empty one for what is not to be trained on; None: there are no labels.
        certain: least share of its set's probability that a class is chosen with.

    Returns:
        uint8 [h,w]: below C a class, from C on a set, 255 no label.
    """
    if sets is None:
        return np.where(probabilities.max(0) >= certain, probabilities.argmax(0), IGNORE_ID).astype(np.uint8)
    chosen = np.full(label.shape, IGNORE_ID, np.uint8)
    for index, among in enumerate(sets):
        if not len(among):
            continue
        there = label == index
        of_set = probabilities[among][:, there]
        whole = of_set.sum(0)
        sure = (of_set.max(0) >= certain * whole) & (whole >= _LIKELY)
        chosen[there] = among[of_set.argmax(0)]
        if len(among) > 1:
            chosen[there] = np.where(sure, chosen[there], len(probabilities) + index)
    return chosen


def link(path: Path, target: Path) -> None:
    """A link to the images, so that the labels written lie in a data set."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        path.unlink()
    path.symlink_to(target, target_is_directory=True)


if __name__ == "__main__":
    sys.exit(main())
