"""Chooses the classical peers' settings: for every condition and level those of the highest mean PSNR.

On training images: never on those that the peers are scored on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from rich.progress import track

from coop_perception.arguments import command_parser, positive
from coop_perception.degradations import CONDITIONS
from coop_perception.image_files import DatasetError
from coop_perception.metrics import psnr
from coop_perception.replacing import open_results, write_whole
from coop_training.cases import Case, Entry
from coop_training.evaluation import select
from coop_training.layouts.class_lists import published
from coop_training.layouts.folders import paired_items
from coop_training.peers.filters import PEERS
from coop_training.peers.settings import Settings


def main() -> int:
    parser = command_parser(
        "coop-peers-choose",
        __doc__,
        "coop-peers-choose --images out/data/camvid/images/train --labels out/data/camvid/labels/train "
        "--out out/classical.yaml",
    )
    parser.add_argument("--images", metavar="DIR", type=Path, required=True, help="folder of clear training images")
    parser.add_argument(
        "--labels", metavar="DIR", type=Path, required=True, help="folder of their labels, CamVid's ids"
    )
    parser.add_argument(
        "--limit", metavar="N", type=positive, default=16, help="so many of them, evenly spread (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="YAML file to write")
    parser.add_argument("--force", action="store_true", help="replace a file at --out")
    arguments = parser.parse_args()
    try:
        open_results(arguments.out.parent, [arguments.out.name], arguments.force)
        items = paired_items(arguments.images, arguments.labels, published("camvid"), depth=True)
        text = yaml.safe_dump(
            choose(select(items, arguments.limit)).model_dump(), sort_keys=False, default_flow_style=None
        )
        folder = "/".join(arguments.images.resolve().parts[-3:])
        head = f"# Chosen by coop-peers-choose on images of {folder}, for PSNR.\n"
        write_whole(arguments.out, (head + text).encode())
    except (DatasetError, OSError) as error:
        print(f"coop-peers-choose: {error}", file=sys.stderr)
        return 1
    print(arguments.out)
    return 0


def choose(entries: Sequence[Entry]) -> Settings:
    """The best settings on these images.

    Raises:
        DatasetError: an image or label cannot be used.
    """
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as executor:
        by_image = list(track(executor.map(_score, entries), "choosing", total=len(entries)))
    best = {case: int(np.argmax(np.mean([scores[case] for scores in by_image], axis=0))) for case in by_image[0]}
    levels = {
        name: [peer.candidates()[best[Case(name, level)]] for level in range(1, len(CONDITIONS[name].levels) + 1)]
        for name, peer in PEERS.items()
    }
    return Settings(images=len(entries), levels=levels)


def _score(entry: Entry) -> dict[Case, list[float]]:
    """One image: PSNR of every candidate in every case."""
    frame = entry.item.read()
    scores: dict[Case, list[float]] = {}
    for name, peer in PEERS.items():
        for level, parameter in enumerate(CONDITIONS[name].levels, 1):
            degraded = entry.under(Case(name, level), frame)
            scores[Case(name, level)] = [
                psnr(frame.image, peer.restore(degraded, parameter, **candidate)) for candidate in peer.candidates()
            ]
    return scores


if __name__ == "__main__":
    sys.exit(main())
