"""Classical restoration before the bundle's segmenter, scored as coop-evaluate scores a bundle.

The filters are given the condition and its level, which is more than a bundle receives.
"""

from __future__ import annotations

import sys
from pathlib import Path

from coop_perception.degradations import CONDITIONS
from coop_perception.engines import EngineError
from coop_perception.image_files import DatasetError
from coop_perception.model.bundle import BundleError
from coop_training.cases import Case, Pixels
from coop_training.evaluate import argument_parser, run
from coop_training.evaluation import restore_then_segment
from coop_training.peers.filters import PEERS
from coop_training.peers.settings import Settings, SettingsError, read_settings


def main() -> int:
    parser = argument_parser("coop-peers-classical", __doc__, "--settings training/configs/peers/classical.yaml ")
    parser.add_argument(
        "--settings",
        metavar="FILE",
        type=Path,
        required=True,
        help="YAML file: training/configs/peers/classical.yaml, or your own",
    )
    arguments = parser.parse_args()
    try:
        settings = read_settings(arguments.settings)
        run(
            arguments,
            lambda pipeline: restore_then_segment(pipeline, lambda image, case: restore(image, case, settings)),
            "classical restoration, then segmentation",
        )
    except (BundleError, EngineError, DatasetError, SettingsError, OSError) as error:
        print(f"coop-peers-classical: {error}", file=sys.stderr)
        return 1
    return 0


def restore(image: Pixels, case: Case, settings: Settings) -> Pixels:
    """The condition's filter with its settings for the level; clear images are left alone."""
    if not case.level:
        return image
    parameter = CONDITIONS[case.condition].levels[case.level - 1]
    return PEERS[case.condition].restore(image, parameter, **settings.levels[case.condition][case.level - 1])


if __name__ == "__main__":
    sys.exit(main())
