"""Plays a recording to a node in a process of its own, over DDS, and scores what it publishes; with pictures."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from coop_perception import topics
from coop_perception.arguments import command_parser
from coop_perception.evaluation.evaluation import EvaluationError, choose_topics
from coop_perception.evaluation.results import OUTPUTS, add_result_options, finish, open_folder, rate
from coop_perception.exit_codes import one_line
from coop_perception.model.bundle import BundleError, load_bundle
from coop_perception.recordings.cameras import camera_of
from coop_perception.recordings.making import Request, make_recording
from coop_perception.recordings.messages import COMPRESSED_IMAGE_TYPE
from coop_perception.recordings.recording import Recording, RecordingError
from coop_perception.resources import default_bundle, share

RECORDING = "sample_drive"
"""Of the folder of results: not `recording`, where evaluation.launch.py leaves what it records."""
SAMPLE = Request(out=Path(), force=True, schedule=share("config/weather.yaml"), rate=10.0, frames=120, seed=7)
"""The default recording: a sample drive that no network was trained on, into fog, into rain and out of it, at a rate
that two cores can follow."""


def main(arguments: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        SystemExit: with one line, when it cannot do its work, a frame is unaccounted for, or the results rest on less
            than was there.
    """
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, markup=False)
    # On this machine only, and apart from whatever else runs here.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    failures = (RecordingError, BundleError, EvaluationError, OSError)
    with one_line("demo", failures, "no results were written"):
        from coop_perception.evaluation.live import evaluate_live  # first: without rclpy all else is in vain
        from coop_perception.evaluation.node_process import running_node

        bundle = load_bundle(options.bundle)
        bag = options.bag
        made = (OUTPUTS,) if bag else (OUTPUTS, RECORDING)
        open_folder(options.out, [bag] if bag else [], made, options.force)
        if bag is None:
            bag = options.out / RECORDING
            make_recording(replace(SAMPLE, out=bag))
        with Recording(bag) as recording:
            chosen = choose_topics(recording, options.image_topic, None, None)
            compressed = recording.topics[chosen.image].type == COMPRESSED_IMAGE_TYPE
            camera = camera_of(chosen.image)
            log = options.out / "node.log"
            console.print(f"node: bundle {bundle.name}, camera {camera}, log in {log}")
            with running_node(options.bundle, camera, "compressed" if compressed else "raw", log):
                evaluation = evaluate_live(recording, chosen, bundle, f"/{topics.NODE}", options.out, options.rate)
        if options.rate is None and (played := evaluation.summary["rate"]) < 1:
            console.print(f"played at {played:.2g} of the recording's rate, which this machine can follow")
        finish(evaluation, bundle, options.out, options.allow_incomplete)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("demo", __doc__, "demo --bag drives/monday --image-topic /front/image_raw --out out/monday")
    played = parser.add_argument_group("what is played").add_argument
    played(
        "--bag",
        type=Path,
        metavar="DIR",
        help="recording to play (default: a sample drive through fog and rain, made anew)",
    )
    played("--image-topic", "--topic", metavar="NAME", help="its camera topic (default: the recording's only one)")
    played(
        "--rate",
        type=rate,
        metavar="R",
        help="times the recording's own pace (default: that, or as slow as the node can follow)",
    )
    networks = parser.add_argument_group("through which networks").add_argument
    networks("--bundle", type=Path, default=default_bundle(), metavar="DIR", help="model bundle (default: %(default)s)")
    add_result_options(parser, "out/demo")
    return parser


if __name__ == "__main__":
    main()
