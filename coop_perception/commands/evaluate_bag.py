"""Command `evaluate_bag`: a recording through the networks, offline or through the running node, and scored; or the
outputs of a node that were recorded with it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from coop_perception import topics
from coop_perception.engines import EngineError
from coop_perception.engines.backends import AUTO, BACKENDS, PRECISIONS
from coop_perception.engines.loading import EngineSettings
from coop_perception.evaluation.evaluation import EvaluationError, choose_topics
from coop_perception.evaluation.offline import evaluate_offline
from coop_perception.evaluation.results import OUTPUTS, add_result_options, finish, open_folder, rate
from coop_perception.evaluation.scoring import ScoringError
from coop_perception.exit_codes import one_line
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.resources import default_bundle


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work, a frame is unaccounted for, or the results rest on less
            than was there.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rate is not None and not options.live:
        parser.error("--rate is that at which --live plays; the others take every frame, as fast as they can")
    failures = (RecordingError, BundleError, EngineError, ScoringError, EvaluationError, OSError)
    with one_line("evaluate_bag", failures, "no results were written"):
        bundle = load_bundle(options.bundle)
        with Recording(options.bag) as recording:
            chosen = choose_topics(
                recording, options.image_topic, options.reference_image_topic, options.reference_mask_topic
            )
            open_folder(options.out, options.bag, (OUTPUTS,) if options.live else (), options.force)
            if options.live:
                from coop_perception.evaluation.live import evaluate_live  # rclpy: only where it is needed

                evaluation = evaluate_live(
                    recording, chosen, bundle, f"/{topics.NODE}", options.out, options.rate or 1.0
                )
            elif options.recorded:
                from coop_perception.evaluation.recorded import evaluate_recorded

                evaluation = evaluate_recorded(recording, chosen, bundle)
            else:
                evaluation = evaluate_offline(
                    recording, chosen, bundle, EngineSettings(options.backend, options.precision)
                )
        finish(evaluation, bundle, options.out, options.allow_incomplete)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evaluate_bag", description=__doc__)
    parser.add_argument("--bag", type=Path, required=True, help="the recording: a rosbag2 directory or storage file")
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="model bundle (default: %(default)s)")
    parser.add_argument("--image-topic", "--topic", help="camera topic to process (default: the recording's only one)")
    parser.add_argument(
        "--reference-image-topic", help="clear images to compare with (default: <camera>/reference/image)"
    )
    parser.add_argument("--reference-mask-topic", help="true masks to compare with (default: <camera>/reference/mask)")
    parser.add_argument("--backend", default="auto", choices=[AUTO, *BACKENDS], help="what runs the networks")
    parser.add_argument("--precision", default=AUTO, choices=[AUTO, *PRECISIONS], help="of the networks' arithmetic")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--live", action="store_true", help="play the recording to the running node instead")
    mode.add_argument("--recorded", action="store_true", help="score the node's outputs that the recording holds")
    parser.add_argument("--rate", type=rate, help="with --live: times the recording's own pace (default: 1)")
    parser.add_argument(
        "--out", type=Path, default=Path("out/evaluation"), help="folder of results (default: %(default)s)"
    )
    add_result_options(parser)
    return parser


if __name__ == "__main__":
    main()
